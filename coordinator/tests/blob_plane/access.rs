//! Who may do what, and what everybody may.

use bombproof_coordinator::services::Limits;
use bombproof_coordinator::services::auth::{Auth, Caller};
use bombproof_core::access::Role;
use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;
use bombproof_proto::wire::reapi::GetCapabilitiesRequest;
use bombproof_proto::wire::reapi::capabilities_client::CapabilitiesClient;
use bombproof_store::cas::Cas;
use bombproof_store::remote::RemoteError;
use tonic::Code;

use super::served::Served;

async fn as_one(roles: &[Role]) -> Served {
    Served::with(Auth::everybody_is(Caller::new("ann", roles)), Limits::default()).await
}

fn empty() -> ActionResult {
    ActionResult { exit: 0, outputs: Vec::new(), stderr: String::new(), cpu_us: 0, wall_us: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_workers_reads_or_writes_anything() {
    for roles in [&[][..], &[Role::Read], &[Role::Submit], &[Role::Admin]] {
        let served = as_one(roles).await;
        let blob = served.cas.put(b"secret source").unwrap();
        let other = BlobDigest::of(b"poison");
        let denied = |done: Result<(), RemoteError>| {
            let error = done.unwrap_err();
            assert!(matches!(error, RemoteError::Denied { .. }) && !error.is_trouble(), "{roles:?}: {error}");
        };
        denied(served.blobs().missing(&[blob]).await.map(|_| ()));
        denied(served.blobs().read(&blob).await.map(|_| ()));
        denied(served.blobs().upload_many(vec![(other, b"poison".to_vec())]).await);
        denied(served.results().get(&blob).await.map(|_| ()));
        denied(served.results().put(&blob, &empty()).await);
        assert_eq!(served.cas.missing(&[other]), [other]);
        let mut raw = CapabilitiesClient::new(served.channel().await);
        let status = raw.get_capabilities(GetCapabilitiesRequest::default()).await.unwrap_err();
        let expected = if roles.is_empty() { Code::Unauthenticated } else { Code::PermissionDenied };
        assert_eq!(status.code(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_and_the_capabilities_say_so() {
    let served = as_one(&[Role::Worker]).await;
    let mut raw = CapabilitiesClient::new(served.channel().await);
    let answer = raw.get_capabilities(GetCapabilitiesRequest::default()).await.unwrap().into_inner();
    let cache = answer.cache_capabilities.unwrap();
    assert!(cache.action_cache_update_capabilities.unwrap().update_enabled);
    assert_eq!(cache.digest_functions, [1], "SHA-256");
    assert!(cache.max_batch_total_size_bytes > 3_000_000 && cache.max_batch_total_size_bytes < 4 << 20);
    assert!(answer.execution_capabilities.is_none(), "nothing is executed for others");
    let blob = BlobDigest::of(b"an object");
    served.blobs().upload_many(vec![(blob, b"an object".to_vec())]).await.unwrap();
    served.results().put(&blob, &empty()).await.unwrap();
    assert_eq!(served.results().get(&blob).await.unwrap(), Some(empty()));
}
