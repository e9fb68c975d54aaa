//! A farm as its users see it: `check`, `submit`, `watch`, `cancel`, `status`, `list` with --coordinator.

mod ask;
mod submit;
mod version;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use bombproof_core::submission::Seen;
use bombproof_proto::farm::{MESSAGE_BYTES, wire};
use bombproof_store::remote::{Channel, Connection, RemoteError, Tls};
use tonic::{Code, Status};
use wire::series_client::SeriesClient;

use crate::args::{CheckArgs, ReachArgs, WatchArgs};
use crate::check::{deliver, exit_code};
use crate::fail::{CLEAN, Fail};
use crate::say;

pub(crate) use ask::{cancel, explain, list, report, status};
pub(crate) use version::protocol;

/// When one of several coordinators ends, another one leads within this time.
const FIND_LEADER: Duration = Duration::from_secs(30);
/// The pause between two questions who leads.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A client of the coordinator.
pub(crate) struct Farm {
    client: SeriesClient<Channel>,
    url: String,
}

/// A runtime for a client.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().map_err(Fail::machine)?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// How the coordinator is reached.
pub(crate) fn connection(reach: &ReachArgs) -> Result<Connection, Fail> {
    let url = reach
        .coordinator
        .as_deref()
        .ok_or_else(|| Fail::request("no coordinator is named").hint(Some("give --coordinator http://HOST:PORT")))?;
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Fail::request(format!("cannot read '{}': {error}", path.display())))
    };
    let token = match &reach.token_file {
        Some(path) => Some(String::from_utf8_lossy(&read(path)?).trim().to_owned()),
        None => None,
    };
    let tls = match &reach.ca {
        Some(ca) => {
            let identity = match (&reach.cert, &reach.key) {
                (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
                (Some(_), None) | (None, _) => None,
            };
            Some(Tls { ca: read(ca)?, identity, name: None })
        }
        None => None,
    };
    Ok(Connection::to(url).token(token).tls(tls))
}

pub(crate) fn unreachable(error: &RemoteError) -> Fail {
    if error.is_trouble() { Fail::machine(error) } else { Fail::request(error) }
}

impl Farm {
    /// A client of the coordinator; of several, of the one that leads.
    pub(crate) async fn connect(reach: &ReachArgs) -> Result<Self, Fail> {
        let connection = connection(reach)?;
        let channel = connection.channel().map_err(|error| unreachable(&error))?;
        let client = SeriesClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let farm = Self { client, url: connection.url().to_owned() };
        if connection.servers() > 1 {
            farm.find_leader().await;
        }
        Ok(farm)
    }

    /// Asks one after the other until one leads, or it takes too long: what is asked then says what is wrong.
    async fn find_leader(&self) {
        let begin = Instant::now();
        let ask = async || {
            let mut client = self.client.clone();
            client.status(wire::StatusRequest { series: String::new() }).await
        };
        while let Err(status) = ask().await {
            // Whatever else one says, it leads.
            if status.code() != Code::Unavailable || begin.elapsed() > FIND_LEADER {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What a refusal means for the user.
    fn failed(&self, status: &Status) -> Fail {
        let message = status.message();
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated => Fail::request(message),
            Code::Unavailable => Fail::machine(format!("the coordinator at {} does not answer: {message}", self.url))
                .hint(Some("is it running, and does it lead? of several, name all: --coordinator URL,URL")),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Fail::machine(format!("the coordinator at {}: {message}", self.url)),
        }
    }
}

/// Who asks, where nobody has to prove it.
pub(crate) fn user() -> String {
    let named = std::env::var("USER").ok().filter(|name| !name.is_empty());
    named.or_else(|| std::env::var("LOGNAME").ok().filter(|name| !name.is_empty())).unwrap_or_else(|| "user".to_owned())
}

/// Hands a series in, watches it, and gives its report as a run on this machine would.
pub(crate) fn check(args: &CheckArgs) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(&args.reach).await?;
        let series = farm.submit(args).await?;
        say(&format!("  series {series} at {}\n", farm.url));
        farm.watch(&series, true).await?;
        let report = farm.fetch_report(&series).await?;
        deliver(&report, args.format, args.output.as_deref())?;
        Ok(exit_code(&report, &args.fail_on))
    })
}

/// Hands a series in.
pub(crate) fn submit(args: &CheckArgs) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(&args.reach).await?;
        let series = farm.submit(args).await?;
        crate::print(&format!("{series}\n"));
        say(&format!("'bombproof watch {series} --coordinator {}' shows how far it is", farm.url));
        Ok(CLEAN)
    })
}

/// Watches a series.
pub(crate) fn watch(args: &WatchArgs) -> Result<u8, Fail> {
    block_on(async {
        let farm = Farm::connect(&args.reach).await?;
        farm.watch(&args.series, true).await?;
        let report = farm.fetch_report(&args.series).await?;
        deliver(&report, args.format, args.output.as_deref())?;
        Ok(exit_code(&report, &args.fail_on))
    })
}

/// What happened, as it is on the wire.
fn seen(text: &[u8]) -> Option<Seen> {
    // An event of a newer coordinator is not for us.
    bombproof_proto::farm::from_json("event", text).ok()
}
