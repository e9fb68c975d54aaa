//! `coordinator`: the services of a farm on one address.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bombproof_coordinator::farm::{Incoming, Kept, Repositories, Seat, Settings, Shelf};
use bombproof_coordinator::services::auth::Auth;
use bombproof_coordinator::services::server::{self, Security, ServerTls};
use bombproof_coordinator::services::{BlobPlane, add_farm, while_leading};
use bombproof_core::access::{ProjectId, may_listen};
use bombproof_core::farm::Config;
use bombproof_core::id::RunId;
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::quota::Quota;
use bombproof_core::reign::Terms;
use bombproof_metrics::{FarmMetrics, Page, StoreBytes};
use bombproof_store::home::Home;
use bombproof_store::register::{Place, RedisPlace};
use bombproof_worker::action;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tracing::info;

use crate::args::{CoordinatorArgs, OneArgs, ReachArgs};
use crate::check::{new_id, timestamp};
use crate::ended::Wishes;
use crate::fail::{CLEAN, Fail};
use crate::{cache, log, metrics, stored};

/// A register that does not answer when this process ends is not waited for longer.
const LEAVE: Duration = Duration::from_secs(2);

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
    let mut lenders = std::collections::BTreeMap::new();
    for (name, path) in &args.repos {
        let path = std::path::absolute(path).map_err(Fail::request)?;
        lenders.insert(name.clone(), path);
    }
    let repositories = Arc::new(Repositories::new(home.root().join("repositories"), lenders));
    for (name, _) in &args.repos {
        // A repository that is none is found out now, and not by a user.
        let shelf = Shelf { project: ProjectId::default(), name: name.clone() };
        repositories.open(&shelf).map_err(Fail::request)?;
    }
    let place = place(home, args.state.as_deref())?;
    if let Place::Redis { server, .. } = &place {
        info!("the register is in {server}");
    }
    let kept = Kept::open(home);
    let incoming = Incoming::open(home.root()).map_err(Fail::machine)?;
    let (figures, held) = (FarmMetrics::default(), StoreBytes::within(args.cache_limit.0));
    let settings = Settings {
        home: home.clone(),
        repositories,
        kept: kept.clone(),
        incoming: Arc::new(incoming),
        terms: Terms::of(args.reign_ms),
        contested: args.state.is_some(),
        queue,
        quota: Quota { open: args.max_open, a_day: args.max_a_day },
        roots: Roots { source: action::SOURCE.to_owned(), output: action::OUTPUT.to_owned() },
        timestamp,
        new_id,
        metrics: figures.clone(),
    };
    let seat = Arc::new(Seat::default());
    let plane = BlobPlane::new(Arc::clone(&kept.cas), Arc::clone(&kept.actions), home.cas().join("uploads"));
    let plane = plane.map_err(Fail::machine)?;
    let mut page = Page::default();
    plane.bytes().show(&mut page);
    let routes = while_leading(plane.add_to(Routes::default()), &seat);
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
    let routes = add_farm(routes, &seat, explain);
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| Fail::request(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr().map_err(Fail::machine)?;
    if let Some(listener) = metrics::listen(&args.metrics).await? {
        figures.show(&mut page);
        held.show(&mut page);
        let sitting = Arc::clone(&seat);
        page.look(move || sitting.measure(&figures));
        tokio::spawn(metrics::serve(listener, page));
    }
    let mut leads = seat.leads();
    let mut holding = tokio::spawn(Arc::clone(&seat).hold(place, settings));
    // One that has the register for itself leads before anybody can call.
    tokio::select! {
        held = &mut holding => return held.map_err(Fail::machine)?.map_err(Fail::machine),
        _ = leads.wait_for(|leads| *leads), if args.state.is_none() => {}
        () = std::future::ready(()), if args.state.is_some() => {}
    }
    log::listening(&address);
    tokio::spawn(cache::look_after(home.clone(), args.cache_limit, held));
    // Calls that are held back and watchers would go on for long: everybody comes again by themselves.
    let server = server::serve_farm(listener, security, routes, seat.leads(), std::future::pending());
    let mut wishes = Wishes::listen()?;
    let done = tokio::select! {
        served = server => served.map_err(Fail::machine),
        held = &mut holding => held.map_err(Fail::machine)?.map_err(Fail::machine),
        () = wishes.next() => Ok(()),
    };
    holding.abort();
    // Another one need not wait for the lease to end.
    seat.leave(LEAVE).await;
    done
}

/// Where the register is: a file of the home, or a server.
fn place(home: &Home, state: Option<&str>) -> Result<Place, Fail> {
    let Some(url) = state else { return Ok(Place::File(home.root().join("register.redb"))) };
    let password = std::env::var("BOMBPROOF_STATE_PASSWORD").ok();
    let (url, prefix) = url.split_once('#').unwrap_or((url, "bombproof"));
    let server = RedisPlace::new(url, prefix, password.as_deref());
    let server = server.map_err(|why| Fail::request(format!("--state cannot be used: {why}")))?;
    Ok(Place::Redis { server: Box::new(server), known: home.root().join("register.id") })
}
