//! Large blobs over connections that break, and streams of clients that do not know how.

use bombproof_coordinator::services::Limits;
use bombproof_coordinator::services::auth::Auth;
use bombproof_core::digest::BlobDigest;
use bombproof_proto::wire::bytestream::byte_stream_client::ByteStreamClient;
use bombproof_proto::wire::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use bombproof_store::cas::Cas;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::cuts::Cuts;
use super::served::{Client, Served, content};

const SIZE: usize = 12_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_off_goes_on_where_it_was() {
    let served = Served::start().await;
    let cuts = Cuts::start(served.address, 3_000_000, 5).await;
    let client = Client::of(&cuts.connection());
    let bytes = content(1, SIZE);
    let blob = client.cas.put(&bytes).unwrap();
    client.transfer.push(&[blob]).await.unwrap();
    assert!(served.cas.get(&blob).unwrap() == Some(bytes));
    assert!(cuts.broken() >= 3, "{} connections broke", cuts.broken());
    // From the beginning each time it would be five times as much and never end.
    assert!(cuts.bytes() < SIZE * 2, "{} bytes went over for {SIZE}", cuts.bytes());
    assert_eq!(served.uploads(), 0, "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_off_goes_on_where_it_was() {
    let served = Served::start().await;
    let cuts = Cuts::start(served.address, 3_000_000, 3).await;
    let client = Client::of(&cuts.connection());
    let bytes = content(2, SIZE);
    let blob = served.cas.put(&bytes).unwrap();
    let _pin = client.transfer.fetch(&[blob]).await.unwrap();
    assert!(client.cas.get(&blob).unwrap() == Some(bytes));
    assert_eq!(cuts.broken(), 3);
    assert!(cuts.bytes() < SIZE * 3 / 2, "{} bytes went over for {SIZE}", cuts.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_cut_off_are_sent_again() {
    let served = Served::start().await;
    let cuts = Cuts::start(served.address, 700_000, 4).await;
    let client = Client::of(&cuts.connection());
    let names: Vec<BlobDigest> = (0..40).map(|number| client.cas.put(&content(number, 50_000)).unwrap()).collect();
    client.transfer.push(&names).await.unwrap();
    let cuts = Cuts::start(served.address, 700_000, 4).await;
    let other = Client::of(&cuts.connection());
    let _pin = other.transfer.fetch(&names).await.unwrap();
    assert_eq!(other.cas.missing(&names), []);
    assert!(cuts.broken() > 0);
}

fn name(upload: &str, blob: &BlobDigest) -> String {
    format!("uploads/{upload}/blobs/{blob}")
}

fn message(name: &str, offset: usize, data: &[u8], finish_write: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: i64::try_from(offset).unwrap(),
        finish_write,
        data: data.to_vec(),
    }
}

async fn write(client: &mut ByteStreamClient<Channel>, messages: Vec<WriteRequest>) -> Result<i64, Status> {
    Ok(client.write(futures::stream::iter(messages)).await?.into_inner().committed_size)
}

async fn committed(client: &mut ByteStreamClient<Channel>, name: &str) -> Result<(i64, bool), Status> {
    let answer = client.query_write_status(QueryWriteStatusRequest { resource_name: name.to_owned() }).await?;
    let answer = answer.into_inner();
    Ok((answer.committed_size, answer.complete))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_taken_up_by_another_stream_and_is_whole_at_its_end() {
    let served = Served::start().await;
    let mut client = ByteStreamClient::new(served.channel().await);
    let bytes = content(4, 1000);
    let blob = BlobDigest::of(&bytes);
    let name = name("one", &blob);
    assert_eq!(committed(&mut client, &name).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(write(&mut client, vec![message(&name, 0, &bytes[..300], false)]).await.unwrap(), 300);
    assert_eq!(committed(&mut client, &name).await.unwrap(), (300, false));
    assert_eq!(served.cas.missing(&[blob]), [blob]);
    for wrong in [299, 301, 1000] {
        let status = write(&mut client, vec![message(&name, wrong, b"x", false)]).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange);
        assert!(status.message().contains("300 bytes are committed"), "{}", status.message());
    }
    let rest = vec![message(&name, 300, &bytes[300..900], false), message("", 900, &bytes[900..], true)];
    assert_eq!(write(&mut client, rest).await.unwrap(), 1000);
    assert_eq!(committed(&mut client, &name).await.unwrap(), (1000, true));
    assert!(served.cas.get(&blob).unwrap() == Some(bytes.clone()));
    // What is there need not be sent: the answer comes at once, whatever is said.
    assert_eq!(write(&mut client, vec![message(&name, 17, b"anything", false)]).await.unwrap(), 1000);
    assert_eq!(served.uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_again_at_0_begins_anew() {
    let served = Served::start().await;
    let mut client = ByteStreamClient::new(served.channel().await);
    let bytes = content(5, 1000);
    let blob = BlobDigest::of(&bytes);
    let name = name("one", &blob);
    write(&mut client, vec![message(&name, 0, b"rubbish", false)]).await.unwrap();
    assert_eq!(write(&mut client, vec![message(&name, 0, &bytes, true)]).await.unwrap(), 1000);
    assert!(served.cas.get(&blob).unwrap() == Some(bytes));
    assert_eq!(served.uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_another_content_is_refused_and_leaves_nothing() {
    let served = Served::start().await;
    let mut client = ByteStreamClient::new(served.channel().await);
    let blob = BlobDigest::of(b"right");
    let name = name("one", &blob);
    for (messages, said) in [
        (vec![message(&name, 0, b"wrong", true)], "the content is that of"),
        (vec![message(&name, 0, b"too long", true)], "there are 8"),
        (vec![message(&name, 0, b"sho", true)], "at 3 bytes of 5"),
        (vec![message(&name, 0, b"ri", false), message("uploads/x/blobs/y/1", 2, b"ght", true)], "this stream writes"),
        (vec![message("blobs/x", 0, b"", true)], "is no name of a blob"),
        (vec![message(&format!("uploads/u/compressed-blobs/zstd/{blob}"), 0, b"", true)], "compressed blobs"),
        (vec![message(&format!("other/{name}"), 0, b"right", true)], "no instance 'other'"),
        (vec![], "no message"),
    ] {
        let status = write(&mut client, messages).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{said}");
        assert!(status.message().contains(said), "{}", status.message());
    }
    assert_eq!(served.cas.missing(&[blob]), [blob]);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_too_large_are_refused_before_they_are_sent() {
    let served = Served::with(Auth::open(), Limits { blob_bytes: 2_000_000, ..Limits::default() }).await;
    let client = Client::of(&served.connection());
    let blob = client.cas.put(&content(1, 2_000_001)).unwrap();
    let error = client.transfer.push(&[blob]).await.unwrap_err();
    assert!(error.to_string().contains("2000000 bytes"), "{error}");
    let mut raw = ByteStreamClient::new(served.channel().await);
    let status = write(&mut raw, vec![message(&name("one", &blob), 0, b"x", false)]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_part_of_a_blob_can_be_read() {
    let served = Served::start().await;
    let mut client = ByteStreamClient::new(served.channel().await);
    let bytes = content(6, 600_000);
    let blob = served.cas.put(&bytes).unwrap();
    let read = async |client: &mut ByteStreamClient<Channel>, name: String, read_offset: i64, read_limit: i64| {
        let mut stream = client.read(ReadRequest { resource_name: name, read_offset, read_limit }).await?.into_inner();
        let mut all = Vec::new();
        while let Some(piece) = stream.message().await? {
            assert!(!piece.data.is_empty());
            all.extend(piece.data);
        }
        Ok::<_, Status>(all)
    };
    let name = format!("blobs/{blob}");
    for (offset, limit, end) in [
        (0, 0, 600_000),
        (0, 1, 1),
        (599_999, 0, 600_000),
        (600_000, 0, 600_000),
        (262_144, 262_144, 524_288),
        (100, 599_901, 600_000),
        (5, i64::MAX, 600_000),
    ] {
        let got = read(&mut client, name.clone(), offset, limit).await.unwrap();
        assert!(got == bytes[usize::try_from(offset).unwrap()..end], "{offset} {limit}");
    }
    for (name, offset, limit, code) in [
        (name.clone(), -1, 0, Code::OutOfRange),
        (name.clone(), 600_001, 0, Code::OutOfRange),
        (name.clone(), 0, -1, Code::InvalidArgument),
        (format!("blobs/{}", BlobDigest::of(b"none")), 0, 0, Code::NotFound),
        (format!("compressed-blobs/zstd/{blob}"), 0, 0, Code::InvalidArgument),
        (format!("other/{name}"), 0, 0, Code::InvalidArgument),
        (format!("blobs/{}/599999", blob.hash), 0, 0, Code::NotFound),
    ] {
        assert_eq!(read(&mut client, name.clone(), offset, limit).await.unwrap_err().code(), code, "{name} {offset}");
    }
    let empty = format!("blobs/{}", BlobDigest::of(b""));
    assert_eq!(read(&mut client, empty, 0, 0).await.unwrap(), [0; 0], "the empty blob is always there");
}
