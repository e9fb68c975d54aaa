//! Every call, made by everybody.

use bombproof_coordinator::services::Limits;
use bombproof_coordinator::services::auth::{Auth, Caller};
use bombproof_core::access::{CALLS, Needs, Role, needs};
use bombproof_core::protocol;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::served::Served;

/// Which calls there are to have.
const FARM: &str = include_str!("../../../proto/proto/bombproof/farm/v1/farm.proto");

async fn server(roles: &[Role]) -> Served {
    Served::with(Auth::everybody_is(Caller::new("ann", roles)), Limits::default()).await
}

/// Makes the call with an empty message.
async fn call(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(());
    request.metadata_mut().insert(protocol::HEADER, protocol::VERSION.into());
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.server_streaming(request, PathAndQuery::from_static(path), codec).await.map(drop)
}

fn is_for_some(path: &str) -> bool {
    matches!(needs(path), Some(Needs::Permission(_)))
}

#[test]
fn every_call_of_ours_is_in_the_table() {
    let (mut service, mut calls) = ("", 0);
    for line in FARM.lines() {
        let words: Vec<&str> = line.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty()).collect();
        match words.as_slice() {
            ["service", name, ..] if line.starts_with("service") => service = name,
            ["rpc", name, ..] if line.trim_start().starts_with("rpc") => {
                calls += 1;
                let path = format!("/bombproof.farm.v1.{service}/{name}");
                let open = path == "/bombproof.farm.v1.About/Version";
                let expected = if open { needs(&path) == Some(Needs::Nothing) } else { is_for_some(&path) };
                assert!(expected, "{path}");
            }
            _ => {}
        }
    }
    let ours = CALLS.iter().filter(|(path, _)| path.starts_with("/bombproof.")).count();
    assert_eq!(calls, ours, "the table has calls that are no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_refused_to_who_may_not_make_it() {
    for roles in [&[][..], &[Role::Read], &[Role::Submit], &[Role::Worker], &[Role::Admin]] {
        let channel = server(roles).await.channel().await;
        for (path, needs) in CALLS {
            let code = call(&channel, path).await.err().map(|status| status.code());
            let refused = matches!(code, Some(Code::Unauthenticated | Code::PermissionDenied));
            match needs {
                Needs::Nothing => assert!(!refused, "{roles:?}: {path}: {code:?}"),
                Needs::Known | Needs::Permission(_) if roles.is_empty() => {
                    assert_eq!(code, Some(Code::Unauthenticated), "{path}");
                }
                Needs::Known => assert!(!refused, "{roles:?}: {path}: {code:?}"),
                Needs::Permission(permission) if roles.iter().any(|role| role.gives(*permission)) => {
                    assert!(!refused, "{roles:?}: {path}: {code:?}");
                }
                Needs::Permission(_) => assert_eq!(code, Some(Code::PermissionDenied), "{roles:?}: {path}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_in_the_table_is_made_by_nobody() {
    // The first is one of the Remote Execution API, which the service behind the gate has.
    for path in [
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/SplitBlob",
        "/bombproof.farm.v1.Series/Steal",
        "/build.bazel.remote.execution.v2.Capabilities//GetCapabilities",
        "/grpc.health.v1.Health/check",
        "/",
    ] {
        let all = server(&Role::ALL).await.channel().await;
        let status = call(&all, path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert!(status.message().contains("no such call"), "{path}: answered behind the gate: {status}");
        let nobody = server(&[]).await.channel().await;
        assert_eq!(call(&nobody, path).await.unwrap_err().code(), Code::Unauthenticated, "{path}");
    }
}
