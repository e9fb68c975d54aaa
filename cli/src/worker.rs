//! `worker`: builds what a coordinator says.

use std::path::Path;
use std::time::Duration;

use bombproof_core::digest::Digest;
use bombproof_core::id::WorkerId;
use bombproof_metrics::{BlobBytes, Page, StoreBytes, WorkerMetrics};
use bombproof_store::home::Home;
use bombproof_worker::remote::{self, RemoteWorkerError, Settings};
use bombproof_worker::sandbox::Launcher;
use tokio::sync::watch;
use tracing::info;

use crate::args::{SandboxArg, WorkerArgs};
use crate::check::{containers, level};
use crate::fail::{CLEAN, Fail};
use crate::{cache, ended, farm, log, metrics};

/// Runs a worker until it is told to end and everything is given back.
pub(crate) fn run(home: &Home, args: &WorkerArgs) -> Result<u8, Fail> {
    log::begin(&args.log, None)?;
    let home = args.home.as_deref().map_or_else(|| home.clone(), Home::at);
    home.prepare().map_err(Fail::request)?;
    let own = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = args.slots.map_or(own, usize::from);
    // Threads wait for the coordinator in the middle of a step.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(4 + 2 * slots.min(64))
        .build()
        .map_err(Fail::machine)?;
    let done = runtime.block_on(serve(&home, args, slots));
    runtime.shutdown_timeout(Duration::from_secs(2));
    done.map(|()| CLEAN)
}

/// The machine's name, and a few digits of its state folder.
fn default_name(home: &Home) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let place: &Path = home.root();
    let digits: String = Digest::of(place.as_os_str().as_encoded_bytes()).short().chars().take(6).collect();
    format!("{}-{digits}", host.unwrap_or_else(|| "worker".to_owned()))
}

async fn serve(home: &Home, args: &WorkerArgs, slots: usize) -> Result<(), Fail> {
    let connection = farm::connection(&args.reach)?;
    let launcher = match args.sandbox.sandbox {
        SandboxArg::Container => Launcher::Containers(containers(home, &args.sandbox, slots).await?),
        SandboxArg::Auto | SandboxArg::Namespaces | SandboxArg::Bubblewrap | SandboxArg::Landlock => {
            Launcher::Here(level(home, &args.sandbox).await?)
        }
    };
    let name = args.name.clone().unwrap_or_else(|| default_name(home));
    let (sandbox, url) = (launcher.level().name(), connection.url());
    info!(worker = name, slots, sandbox, "worker '{name}', {slots} slots, sandbox {sandbox}, for {url}");
    let (drain, drained) = watch::channel(0_u32);
    let signals = ended::each_time(move || drain.send_modify(|times| *times += 1))?;
    let (figures, bytes, held) =
        (WorkerMetrics::default(), BlobBytes::default(), StoreBytes::within(args.cache_limit.0));
    if let Some(listener) = metrics::listen(&args.metrics).await? {
        let mut page = Page::default();
        figures.show(&mut page);
        bytes.show(&mut page);
        held.show(&mut page);
        tokio::spawn(metrics::serve(listener, page));
    }
    let settings = Settings {
        name: WorkerId(name),
        connection,
        home: home.clone(),
        launcher: launcher.clone(),
        slots,
        grace: Duration::from_secs(args.grace),
        metrics: figures,
        bytes,
    };
    tokio::spawn(cache::look_after(home.clone(), args.cache_limit, held));
    let served = remote::serve(settings, drained).await;
    signals.abort();
    if let Launcher::Containers(containers) = &launcher {
        containers.close().await;
    }
    served.map_err(|error| match error {
        error @ (RemoteWorkerError::Sandbox(_) | RemoteWorkerError::Refused(_) | RemoteWorkerError::Replaced(_)) => {
            Fail::request(error)
        }
        error @ (RemoteWorkerError::Remote(_)
        | RemoteWorkerError::Unfit(_)
        | RemoteWorkerError::Wire(_)
        | RemoteWorkerError::Machine(_)) => Fail::machine(error),
    })
}
