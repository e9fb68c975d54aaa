//! Which versions of the protocol coordinators take: what is asked before a farm is upgraded.

use std::fmt::Write;
use std::time::Duration;

use bombproof_core::protocol::{OLDEST, VERSION, goes_with};
use bombproof_proto::farm::wire;
use bombproof_store::remote::Connection;
use tonic::{Code, Status};
use wire::about_client::AboutClient;

use super::{block_on, connection, unreachable};
use crate::args::ReachArgs;
use crate::fail::{CLEAN, FINDINGS, Fail, UNDECIDED};

/// A coordinator that says nothing for so long is taken for one that is not there.
const ANSWER: Duration = Duration::from_secs(10);

async fn ask(connection: &Connection) -> Result<Result<wire::VersionResponse, Status>, Fail> {
    let channel = connection.channel().map_err(|error| unreachable(&error))?;
    let mut client = AboutClient::new(channel);
    let asked = tokio::time::timeout(ANSWER, client.version(wire::VersionRequest {}));
    let answer = asked.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("it says nothing")));
    Ok(answer.map(tonic::Response::into_inner))
}

/// Which versions this program speaks and each of the coordinators takes, and whether they go together.
pub(crate) fn protocol(reach: &ReachArgs) -> Result<u8, Fail> {
    let mut out = format!("this program: protocol {VERSION}; as a coordinator it takes {OLDEST} to {VERSION}\n");
    if reach.coordinator.is_none() {
        crate::print(&out);
        return Ok(CLEAN);
    }
    block_on(async {
        let mut code = CLEAN;
        for one in connection(reach)?.each() {
            let url = one.url().to_owned();
            let said = match ask(&one).await? {
                Ok(told) => match goes_with(told.version, told.oldest) {
                    Ok(()) => format!("takes {} to {}", told.oldest, told.version),
                    Err(why) => {
                        code = code.max(FINDINGS);
                        format!("takes {} to {}: {why}", told.oldest, told.version)
                    }
                },
                // One that is older than the question.
                Err(status) if matches!(status.code(), Code::Unimplemented | Code::Unauthenticated) => {
                    code = code.max(FINDINGS);
                    "does not say: it is older than this program".to_owned()
                }
                Err(status) => {
                    code = UNDECIDED;
                    format!("does not answer: {}", status.message())
                }
            };
            let _ = writeln!(out, "{url}: {said}");
        }
        crate::print(&out);
        Ok(code)
    })
}
