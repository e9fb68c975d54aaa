//! What a server says of itself, and to whom.

use std::sync::Arc;

use bombproof_coordinator::farm::Seat;
use bombproof_coordinator::services::add_farm;
use bombproof_coordinator::services::auth::{Auth, Caller};
use bombproof_coordinator::services::server::{Security, serve};
use bombproof_core::access::{CALLS, Needs, Role};
use bombproof_core::protocol;
use bombproof_proto::farm::wire;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use wire::about_client::AboutClient;

/// A farm that nobody leads here, whose callers all have these roles.
async fn farm(roles: &[Role]) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let auth = Auth::everybody_is(Caller::new("ann", roles));
    let explain = Arc::new(|_: &_, _: &_, _, _: &str| Err("not here".to_owned()));
    let routes = add_farm(Routes::default(), &Arc::new(Seat::default()), explain);
    let security = Security { auth, ..Security::loopback() };
    tokio::spawn(serve(listener, security, routes, std::future::pending()));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn asked(channel: &Channel, question: MessageRequest) -> Result<MessageResponse, Status> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(futures::stream::iter([request])).await?.into_inner();
    Ok(answers.message().await?.unwrap().message_response.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_the_version_and_who_is_not_known_nothing_else() {
    for roles in [&[][..], &[Role::Read], &[Role::Worker]] {
        let mut client = AboutClient::new(farm(roles).await);
        let told = client.version(wire::VersionRequest {}).await.unwrap().into_inner();
        assert_eq!(told, wire::VersionResponse { version: protocol::VERSION, oldest: protocol::OLDEST });
    }
    let open: Vec<&str> = CALLS.iter().filter(|(_, needs)| *needs == Needs::Nothing).map(|(path, _)| *path).collect();
    assert!(open.iter().all(|path| path.contains(".Health/") || path.ends_with(".About/Version")), "{open:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_is_told_which_services_there_are() {
    let nobody = farm(&[]).await;
    let question = || MessageRequest::ListServices(String::new());
    assert_eq!(asked(&nobody, question()).await.unwrap_err().code(), Code::Unauthenticated);
    for role in Role::ALL {
        let channel = farm(&[role]).await;
        let MessageResponse::ListServicesResponse(list) = asked(&channel, question()).await.unwrap() else { panic!() };
        let listed: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
        // What is listed can be called: every service of the table that is ours is there.
        for (path, _) in CALLS.iter().filter(|(path, _)| path.starts_with("/bombproof.") || path.contains(".Health/")) {
            let service = path.trim_start_matches('/').split('/').next().unwrap();
            assert!(listed.contains(&service), "{service}: {listed:?}");
        }
        let what = MessageRequest::FileContainingSymbol("bombproof.farm.v1.Series.Submit".into());
        let MessageResponse::FileDescriptorResponse(file) = asked(&channel, what).await.unwrap() else { panic!() };
        assert_eq!(file.file_descriptor_proto.len(), 1);
    }
}
