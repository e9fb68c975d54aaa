//! Blobs come and go as they are.

use bombproof_core::digest::BlobDigest;
use bombproof_proto::reapi::to_wire;
use bombproof_proto::wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use bombproof_proto::wire::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, batch_update_blobs_request,
};
use bombproof_store::cas::{Cas, laws};
use bombproof_store::remote::{Connection, RemoteCas, Retry, TransferError};
use tokio::runtime::Handle;
use tonic::Code;

use super::served::{Client, Served, content, exists};

/// Sizes around every bound: of a piece, of what goes as a stream, of a batch.
const SIZES: [usize; 11] =
    [0, 1, 100, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1 << 20, (1 << 20) + 1, 3_934_464, 3_934_465, 11_000_000];

#[tokio::test(flavor = "multi_thread")]
async fn the_laws_hold_for_a_store_with_a_server_behind_it() {
    let served = Served::start().await;
    let client = Client::of(&served.connection());
    let cas = RemoteCas::new(client.transfer.clone(), Handle::current());
    tokio::task::spawn_blocking(move || laws::serve(&cas)).await.unwrap();
    // And they hold where nothing is kept here: each is asked for once, and fetched.
    let other = Client::of(&served.connection());
    let blob = BlobDigest::of(b"from a file");
    let cas = RemoteCas::new(other.transfer.clone(), Handle::current());
    let got = tokio::task::spawn_blocking(move || cas.get(&blob).unwrap()).await.unwrap();
    assert_eq!(got.as_deref(), Some(&b"from a file"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_all_sizes_arrive_as_they_were() {
    let served = Served::start().await;
    let blobs: Vec<(BlobDigest, Vec<u8>)> =
        SIZES.iter().map(|size| content(*size as u64, *size)).map(|bytes| (BlobDigest::of(&bytes), bytes)).collect();
    let names: Vec<BlobDigest> = blobs.iter().map(|(blob, _)| *blob).collect();
    let client = Client::of(&served.connection());
    for (_, bytes) in &blobs {
        client.cas.put(bytes).unwrap();
    }
    let traffic = client.transfer.push(&names).await.unwrap();
    // The empty one is always there.
    assert_eq!(traffic.blobs, SIZES.len() as u64 - 1);
    assert_eq!(traffic.bytes, SIZES.iter().sum::<usize>() as u64);
    assert_eq!(client.transfer.push(&names).await.unwrap().blobs, 0, "all of it is there");
    let other = Client::of(&served.connection());
    let pin = other.transfer.fetch(&names).await.unwrap();
    for (blob, bytes) in &blobs {
        assert_eq!(other.cas.get(blob).unwrap().as_ref(), Some(bytes), "{blob}");
        assert_eq!(served.blobs().read(blob).await.unwrap().as_ref(), Some(bytes), "{blob}");
    }
    drop(pin);
    let third = Served::start().await;
    third.blobs().upload_many(blobs.clone()).await.unwrap();
    let mut got = third.blobs().download_many(&names).await.unwrap();
    got.sort();
    let mut blobs = blobs;
    blobs.sort();
    assert!(got == blobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_said_by_name() {
    let served = Served::start().await;
    let client = Client::of(&served.connection());
    let [here, none] = [b"here", b"none"].map(|text| BlobDigest::of(text));
    let large = BlobDigest::of(&content(1, 2_000_000));
    served.cas.put(b"here").unwrap();
    let error = client.transfer.fetch(&[none, here, large]).await.map(|_| ()).unwrap_err();
    let mut expected = vec![none, large];
    expected.sort();
    assert!(matches!(&error, TransferError::Gone { blobs, .. } if *blobs == expected), "{error}");
    assert_eq!(client.cas.missing(&[here]), [], "and what is there came");
    assert!(matches!(client.transfer.push(&[none]).await, Err(TransferError::NotHere { blobs }) if blobs == [none]));
    assert_eq!(served.blobs().read(&none).await.unwrap(), None);
    // The name of what is not there, whatever a server would make of its size.
    let missing = bombproof_core::action::InputFile::missing().blob;
    assert_eq!(served.blobs().missing(&[here, missing]).await.unwrap(), [missing]);
    let gone = client.transfer.fetch(&[here, missing]).await.map(|_| ());
    assert!(matches!(gone, Err(TransferError::Gone { blobs, .. }) if blobs == [missing]));
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    assert!(!served.blobs().read_file(&large, &to).await.unwrap());
    assert!(!exists(&to));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_blobs_are_asked_for_in_few_questions_and_told_in_order() {
    let served = Served::start().await;
    let all: Vec<BlobDigest> = (0..20_001_u32).map(|number| BlobDigest::of(&number.to_be_bytes())).collect();
    for number in (0..20_001_u32).filter(|number| number % 97 == 0) {
        served.cas.put(&number.to_be_bytes()).unwrap();
    }
    let missing = served.blobs().missing(&all).await.unwrap();
    let expected: Vec<BlobDigest> =
        all.iter().zip(0..).filter(|(_, number)| number % 97 != 0).map(|(blob, _)| *blob).collect();
    assert!(missing == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_blobs_go_in_batches() {
    let served = Served::start().await;
    let client = Client::of(&served.connection());
    let names: Vec<BlobDigest> = (0..3_000_u32).map(|number| client.cas.put(&number.to_be_bytes()).unwrap()).collect();
    assert_eq!(client.transfer.push(&names).await.unwrap().blobs, 3_000);
    let other = Client::of(&served.connection());
    let _pin = other.transfer.fetch(&names).await.unwrap();
    assert_eq!(other.cas.missing(&names), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_is_not_that_of_its_digest_is_refused_and_nothing_else_of_the_batch() {
    let served = Served::start().await;
    let mut client = ContentAddressableStorageClient::new(served.channel().await);
    let good = BlobDigest::of(b"good");
    let bad = BlobDigest::of(b"what it should be");
    let request = |blob: &BlobDigest, data: &[u8]| batch_update_blobs_request::Request {
        digest: Some(to_wire(blob)),
        data: data.to_vec(),
        ..batch_update_blobs_request::Request::default()
    };
    let requests = vec![request(&bad, b"what it is, I say"), request(&good, b"good")];
    let answer = client
        .batch_update_blobs(BatchUpdateBlobsRequest { requests, ..BatchUpdateBlobsRequest::default() })
        .await
        .unwrap();
    let codes: Vec<i32> = answer.into_inner().responses.into_iter().map(|one| one.status.unwrap().code).collect();
    assert_eq!(codes, [Code::InvalidArgument as i32, Code::Ok as i32]);
    assert_eq!(served.cas.missing(&[good, bad]), [bad]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_never_served_in_any_way() {
    let served = Served::start().await;
    for size in [1_000, 3_000_000] {
        let bytes = content(7, size);
        let blob = served.cas.put(&bytes).unwrap();
        // The server has looked at it, and knows it to be right.
        assert!(served.blobs().read(&blob).await.unwrap().is_some());
        served.damage(&blob);
        let client = Client::of(&served.connection());
        let gone = client.transfer.fetch(&[blob]).await.map(|_| ());
        assert!(matches!(gone, Err(TransferError::Gone { .. })), "{size}: {gone:?}");
        assert!(!exists(&served.file(&blob)), "{size}: it is dropped");
        assert_eq!(served.blobs().missing(&[blob]).await.unwrap(), [blob]);
        // Whoever has it gives it again, and all is well.
        client.cas.put(&bytes).unwrap();
        client.transfer.push(&[blob]).await.unwrap();
        assert!(served.blobs().read(&blob).await.unwrap() == Some(bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_want_the_same_move_it_once() {
    let served = Served::start().await;
    let bytes = content(3, 2_500_000);
    let blob = served.cas.put(&bytes).unwrap();
    let small = served.cas.put(b"small").unwrap();
    let cuts = super::cuts::Cuts::start(served.address, usize::MAX, 0).await;
    let client = Client::of(&cuts.connection());
    let wanted: Vec<_> = (0..12)
        .map(|_| {
            let transfer = client.transfer.clone();
            tokio::spawn(async move { transfer.fetch(&[small, blob]).await.map(|_| ()) })
        })
        .collect();
    for one in wanted {
        one.await.unwrap().unwrap();
    }
    assert!(client.cas.get(&blob).unwrap() == Some(bytes));
    assert!(cuts.bytes() < 3_500_000, "{} bytes went over for 2,500,000", cuts.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_trouble_and_said_so() {
    let retry = Retry { tries: 2, first: std::time::Duration::from_millis(1), ..Retry::default() };
    // Nobody listens there: the port was ours, and is free again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = Client::of(&Connection::to(&format!("http://127.0.0.1:{port}")).retry(retry));
    let error = client.transfer.remote().missing(&[BlobDigest::of(b"x")]).await.unwrap_err();
    assert!(error.is_trouble());
    let said = error.to_string();
    assert!(said.contains("tried 2 times") && said.contains("refused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_are_refused_with_the_field() {
    let served = Served::start().await;
    let mut client = ContentAddressableStorageClient::new(served.channel().await);
    let good = to_wire(&BlobDigest::of(b"x"));
    let ask = |instance: &str, digests: Vec<_>, digest_function| FindMissingBlobsRequest {
        instance_name: instance.to_owned(),
        blob_digests: digests,
        digest_function,
    };
    let bad = bombproof_proto::wire::reapi::Digest { hash: "zz".to_owned(), size_bytes: 1 };
    for (request, said) in [
        (ask("other", vec![good.clone()], 0), "no instance 'other'"),
        (ask("", vec![bad], 0), "blob_digests[]: 'zz/1'"),
        (ask("", vec![good.clone()], 9), "SHA-256"),
    ] {
        let status = client.find_missing_blobs(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(said), "{}", status.message());
    }
    let huge = bombproof_proto::wire::reapi::Digest { size_bytes: i64::MAX, ..good };
    let digests = vec![huge.clone(), huge.clone(), huge];
    let request = BatchReadBlobsRequest { digests, ..BatchReadBlobsRequest::default() };
    let status = client.batch_read_blobs(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("max_batch_total_size_bytes"), "{}", status.message());
}
