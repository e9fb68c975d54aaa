//! Results of actions over the network.

use std::sync::Arc;

use bombproof_core::action::{ActionResult, OutputFile};
use bombproof_core::digest::BlobDigest;
use bombproof_proto::reapi::to_wire;
use bombproof_proto::wire::reapi::action_cache_client::ActionCacheClient;
use bombproof_proto::wire::reapi::{self, GetActionResultRequest, UpdateActionResultRequest};
use bombproof_store::action_cache::{ActionCache, laws};
use bombproof_store::cas::Cas;
use bombproof_store::remote::{SyncActions, TransferError};
use tokio::runtime::Handle;
use tonic::Code;

use super::served::{Client, Served, content};

fn result(outputs: &[BlobDigest], stderr: &str) -> ActionResult {
    let output = |(number, blob): (usize, &BlobDigest)| OutputFile {
        path: format!("out/{number}.o"),
        blob: *blob,
        executable: number % 2 == 1,
    };
    let outputs = outputs.iter().enumerate().map(output).collect();
    ActionResult { exit: 1, outputs, stderr: stderr.to_owned(), cpu_us: 1_500_000, wall_us: 2_500_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_laws_hold_over_the_network() {
    let served = Served::start().await;
    served.cas.put(laws::CONTENT).unwrap();
    let client = Client::of(&served.connection());
    let cache = SyncActions::new(served.results(), client.transfer.clone(), Handle::current());
    tokio::task::spawn_blocking(move || laws::hold(&cache)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_told_after_its_outputs_and_is_the_same_elsewhere() {
    let served = Served::start().await;
    let client = Client::of(&served.connection());
    let cache = Arc::new(SyncActions::new(served.results(), client.transfer.clone(), Handle::current()));
    let outputs = [100, 2_000_000].map(|size| client.cas.put(&content(9, size)).unwrap());
    // From nothing to more than goes into a message.
    for stderr in [String::new(), "a.c:1: warning: é\n".to_owned(), "x".repeat(600_000)] {
        let action = BlobDigest::of(stderr.as_bytes());
        let result = result(&outputs, &stderr);
        let (cache, put) = (Arc::clone(&cache), result.clone());
        tokio::task::spawn_blocking(move || cache.put(&action, &put).unwrap()).await.unwrap();
        assert_eq!(served.cas.missing(&outputs), []);
        assert!(served.results().get(&action).await.unwrap() == Some(result.clone()));
        assert!(served.actions.get(&action).unwrap() == Some(result));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_of_which_some_output_is_gone_is_not_found() {
    let served = Served::start().await;
    let outputs = [b"one", b"two"].map(|bytes| served.cas.put(bytes).unwrap());
    let action = BlobDigest::of(b"action");
    served.results().put(&action, &result(&outputs, "")).await.unwrap();
    assert!(served.results().get(&action).await.unwrap().is_some());
    std::fs::remove_file(served.file(&outputs[1])).unwrap();
    assert_eq!(served.results().get(&action).await.unwrap(), None);
    served.cas.put(b"two").unwrap();
    assert!(served.results().get(&action).await.unwrap().is_some(), "it was made again");
    served.damage(&outputs[1]);
    // Whoever takes it in good faith finds out, and the next one is not told.
    let client = Client::of(&served.connection());
    let fetched = client.transfer.fetch(&outputs).await.map(|_| ());
    assert!(matches!(fetched, Err(TransferError::Gone { blobs, .. }) if blobs == [outputs[1]]));
    assert_eq!(served.results().get(&action).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_without_its_outputs_is_refused() {
    let served = Served::start().await;
    let (action, none) = (BlobDigest::of(b"action"), BlobDigest::of(b"never stored"));
    let error = served.results().put(&action, &result(&[none], "")).await.unwrap_err();
    assert!(error.to_string().contains(&format!("the output blob {none} is not here")), "{error}");
    assert_eq!(served.results().get(&action).await.unwrap(), None);
    assert_eq!(served.results().get(&BlobDigest::of(b"never")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_ours_cannot_hold_is_refused() {
    let served = Served::start().await;
    let mut client = ActionCacheClient::new(served.channel().await);
    let action = Some(to_wire(&BlobDigest::of(b"action")));
    let mut put = async |action_result: Option<reapi::ActionResult>| {
        let action_digest = action.clone();
        let request =
            UpdateActionResultRequest { action_digest, action_result, ..UpdateActionResultRequest::default() };
        client.update_action_result(request).await.map(|_| ()).unwrap_err()
    };
    let killed = reapi::ActionResult { exit_code: 137, ..reapi::ActionResult::default() };
    let stdout = reapi::ActionResult { stdout_raw: b"x".to_vec(), ..reapi::ActionResult::default() };
    for (message, said) in [(Some(killed), "exit_code: 137"), (Some(stdout), "a standard output"), (None, "is missing")]
    {
        let status = put(message).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(said), "{}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_did_not_ask_for_the_text_gets_its_digest() {
    let served = Served::start().await;
    let action = BlobDigest::of(b"action");
    served.actions.put(&action, &result(&[], "said")).unwrap();
    let mut client = ActionCacheClient::new(served.channel().await);
    let request = GetActionResultRequest { action_digest: Some(to_wire(&action)), ..GetActionResultRequest::default() };
    let answer = client.get_action_result(request).await.unwrap().into_inner();
    assert_eq!((answer.stderr_raw, answer.stderr_digest), (Vec::new(), Some(to_wire(&BlobDigest::of(b"said")))));
    assert_eq!(served.cas.get(&BlobDigest::of(b"said")).unwrap().as_deref(), Some(&b"said"[..]));
}
