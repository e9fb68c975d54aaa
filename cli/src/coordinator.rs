//! `coordinator`: the services of a farm on one address.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bombproof_coordinator::farm::{Coordinator, Settings};
use bombproof_coordinator::services::auth::Auth;
use bombproof_coordinator::services::server::{self, Security, ServerTls};
use bombproof_coordinator::services::{BlobPlane, add_farm};
use bombproof_core::access::may_listen;
use bombproof_core::farm::Config;
use bombproof_core::id::RunId;
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::quota::Quota;
use bombproof_store::home::Home;
use bombproof_worker::action;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tracing::info;

use crate::args::{CoordinatorArgs, OneArgs, ReachArgs};
use crate::check::{new_id, timestamp};
use crate::ended::Wishes;
use crate::fail::{CLEAN, Fail};
use crate::{cache, log, stored};

/// Runs a coordinator until it is told to end.
pub(crate) fn run(home: &Home, args: &CoordinatorArgs) -> Result<u8, Fail> {
    log::begin(&args.log, args.audit_log.as_deref())?;
    let security = security(args)?;
    let (encrypted, known) = (security.tls.is_some(), security.auth.knows_callers());
    may_listen(args.listen.ip(), encrypted, known, args.insecure).map_err(|error| {
        Fail::request(error).hint(Some("listen on 127.0.0.1; or 'bombproof pki init DIR' makes what --pki DIR needs"))
    })?;
    let home = args.home.as_deref().map_or_else(|| home.clone(), Home::at);
    home.prepare().map_err(Fail::request)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(std::thread::available_parallelism().map_or(4, usize::from).max(4))
        .build()
        .map_err(Fail::machine)?;
    let done = runtime.block_on(serve(&home, args, security));
    // What is in the middle of something is begun again: it is all in the register.
    runtime.shutdown_timeout(Duration::from_millis(500));
    done.map(|()| CLEAN)
}

/// Who may call, and how.
fn security(args: &CoordinatorArgs) -> Result<Security, Fail> {
    let below = |name: &str| args.pki.as_ref().map(|pki| pki.join(name));
    let (cert, key) = (args.tls_cert.clone().or(below("server.pem")), args.tls_key.clone().or(below("server.key")));
    let callers = args.tls_callers.clone().or(below("ca.pem"));
    let access = args.access.clone().or(below("access"));
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Fail::request(format!("cannot read '{}': {error}", path.display())))
    };
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(ServerTls {
            certificate: read(&cert)?,
            key: read(&key)?,
            callers: callers.as_deref().map(read).transpose()?,
        }),
        (Some(_), None) | (None, _) => None,
    };
    let auth = match access {
        Some(access) => Auth::listed(&access).map_err(Fail::request)?,
        None => Auth::open(),
    };
    Ok(Security { auth, tls, open_to_network: args.insecure })
}

async fn serve(home: &Home, args: &CoordinatorArgs, security: Security) -> Result<(), Fail> {
    let defaults = Config::default();
    let queue = match args.lease_ms {
        Some(lease_ms) => Config { lease_ms, call_ms: defaults.call_ms.min(lease_ms / 2), ..defaults },
        None => defaults,
    };
    let mut repositories = std::collections::BTreeMap::new();
    for (name, path) in &args.repos {
        let path = std::path::absolute(path).map_err(Fail::request)?;
        repositories.insert(name.clone(), path);
    }
    let coordinator = Coordinator::open(Settings {
        home: home.clone(),
        repositories,
        queue,
        quota: Quota { open: args.max_open, a_day: args.max_a_day },
        roots: Roots { source: action::SOURCE.to_owned(), output: action::OUTPUT.to_owned() },
        timestamp,
        new_id,
    })
    .map_err(Fail::machine)?;
    for (name, _) in &args.repos {
        // A repository that is none is found out now, and not by a user.
        coordinator.repositories().open(name).map_err(Fail::request)?;
    }
    let kept = coordinator.kept();
    let plane = BlobPlane::new(Arc::clone(&kept.cas), Arc::clone(&kept.actions), home.cas().join("uploads"));
    let plane = plane.map_err(Fail::machine)?;
    let routes = plane.add_to(Routes::default());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            plane.sweep();
        }
    });
    let explain = Arc::new(|home: &Home, run: &RunId, patch: u32, target: &str| {
        let args = OneArgs {
            patch,
            target: target.to_owned(),
            run: Some(run.0.clone()),
            reach: ReachArgs { coordinator: None, ca: None, cert: None, key: None, token_file: None },
        };
        stored::explanation(home, &args).map_err(|fail| fail.to_string())
    });
    let routes = add_farm(routes, &coordinator, explain);
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| Fail::request(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr().map_err(Fail::machine)?;
    let taken_up = coordinator.take_up().map_err(Fail::machine)?;
    log::listening(&address);
    let (folder, epoch) = (home.root().display(), coordinator.leader().epoch());
    info!(epoch, taken_up, "state in '{folder}', reign {epoch}, {taken_up} series to go on with");
    tokio::spawn(cache::look_after(home.clone(), args.cache_limit));
    // Calls that are held back and watchers would go on for long: everybody comes again by themselves.
    let server = server::serve(listener, security, routes, std::future::pending());
    let mut wishes = Wishes::listen()?;
    tokio::select! {
        served = server => served.map_err(Fail::machine),
        () = wishes.next() => Ok(()),
    }
}
