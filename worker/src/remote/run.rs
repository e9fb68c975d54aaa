//! Carries one order out: what it needs is fetched, what it made is given back before anybody is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bombproof_core::action::Action;
use bombproof_core::digest::{BlobDigest, DigestBuilder};
use bombproof_core::farm::{Assignment, JobId};
use bombproof_core::order::{Done, Order, Purpose, Step, action_job};
use bombproof_core::outcome::{Audited, Outcome, StateResult, Trouble};
use bombproof_core::plan::alike::{Alike, Parts};
use bombproof_core::target::Build;
use bombproof_metrics::WorkerMetrics;
use bombproof_metrics::labels::Kind;
use bombproof_proto::farm::{MAX_JSON_BYTES, MESSAGE_BYTES, from_json, to_json, wire};
use bombproof_store::cas::PinGuard;
use bombproof_store::home::Home;
use bombproof_store::remote::{Channel, Transfer, TransferError};
use bombproof_store::trees::TreeSource;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::{Code, Status};
use wire::workers_client::WorkersClient;

use super::board::Ending;
use super::link::{patiently, pause};
use super::offers;
use super::trees::{Names, RemoteTrees};
use crate::jobs::Jobs;
use crate::kbuild::Compiles;
use crate::sandbox::{self, Launcher};
use crate::{Order as Local, Target, Worker};

/// What was made is offered to the coordinator so often: a result that took minutes is worth waiting for.
const OFFERS: u32 = 60;

/// What a look at the disk writes, in MiB: more than a disk has left that is called full.
const LOOK_MIB: u32 = 16;

/// What all orders share.
pub(super) struct Runner {
    pub(super) channel: Channel,
    pub(super) transfer: Transfer,
    pub(super) compiles: Arc<Compiles>,
    pub(super) launcher: Launcher,
    pub(super) jobs: Arc<Jobs>,
    pub(super) home: Home,
    pub(super) names: Arc<Names>,
    pub(super) runtime: Handle,
    pub(super) metrics: WorkerMetrics,
}

fn internal(error: impl std::fmt::Display) -> Trouble {
    Trouble::Internal { detail: error.to_string() }
}

fn disk(error: impl std::fmt::Display) -> Trouble {
    Trouble::Disk { detail: error.to_string() }
}

/// Blobs that cannot be had are like a tree that cannot be laid out: neither the machine nor the patch.
fn not_had(error: TransferError) -> Trouble {
    match error {
        TransferError::Local(error) => disk(error),
        error @ (TransferError::Remote(_)
        | TransferError::Gone { .. }
        | TransferError::NotHere { .. }
        | TransferError::Lost) => Trouble::Tree { detail: error.to_string() },
    }
}

impl Runner {
    /// Carries out what is assigned.
    pub(super) async fn run(&self, assignment: &Assignment, cancel: watch::Receiver<bool>) -> Ending {
        match self.carry_out(assignment, cancel.clone()).await {
            Ok(blob) => Ending::Result(blob),
            // What comes to grief while it is being stopped was stopped.
            Err(_) if *cancel.borrow() => Ending::Trouble(Trouble::Interrupted),
            Err(trouble) => Ending::Trouble(trouble),
        }
    }

    /// Whether this machine can do what every job needs: write to its disk, and run a command in its sandbox.
    pub(super) async fn look(&self) -> Result<(), String> {
        let home = self.home.clone();
        let written = tokio::task::spawn_blocking(move || home.try_disk(LOOK_MIB));
        written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let tried = sandbox::try_out(&self.launcher, &self.home.trees()).await;
        tried.map_err(|error| format!("running a command: {error}"))
    }

    async fn carry_out(&self, assignment: &Assignment, cancel: watch::Receiver<bool>) -> Result<BlobDigest, Trouble> {
        let begin = Instant::now();
        let order = self.order(assignment.job).await?;
        let kind = match &order {
            Order::Action(_) => Kind::Action,
            Order::Step(_) => Kind::Step,
        };
        let done = match order {
            Order::Action(action) => {
                let _held = self.fetch_inputs(&action).await?;
                Done::Action(self.compiles.actions.run(&action, cancel.clone()).await?)
            }
            Order::Step(step) => self.step(&step, assignment, cancel.clone()).await?,
        };
        let given = self.give(&done, cancel).await?;
        self.metrics.answered.add((kind, (&done).into()), 1);
        self.metrics.took.observe(kind, begin.elapsed().as_secs_f64());
        Ok(given)
    }

    /// What a job is.
    async fn order(&self, job: JobId) -> Result<Order, Trouble> {
        let client = WorkersClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let text = patiently(|| {
            let mut client = client.clone();
            async move {
                let request = wire::FetchRequest { job: job.0.to_string() };
                let mut stream = client.fetch(request).await?.into_inner();
                let mut text = Vec::new();
                while let Some(chunk) = stream.message().await? {
                    if text.len() + chunk.data.len() > MAX_JSON_BYTES {
                        return Err(Status::out_of_range("the order is too large"));
                    }
                    text.extend_from_slice(&chunk.data);
                }
                Ok(text)
            }
        });
        // Where nobody wants it any more there is no order.
        let text = text.await.map_err(|status| {
            if status.code() == Code::NotFound {
                return Trouble::Interrupted;
            }
            Trouble::Tree { detail: format!("the order cannot be had: {}", status.message()) }
        })?;
        let order: Order = from_json("order", &text).map_err(internal)?;
        let own = match &order {
            Order::Action(action) => action_job(&bombproof_proto::reapi::digest(action)),
            Order::Step(step) => step.job(),
        };
        if own == job { Ok(order) } else { Err(internal("the order is that of another job")) }
    }

    async fn fetch_inputs(&self, action: &Action) -> Result<PinGuard, Trouble> {
        let inputs: Vec<BlobDigest> = action.inputs.values().map(|file| file.blob).collect();
        self.transfer.fetch(&inputs).await.map_err(not_had)
    }

    /// A blob, from wherever it is.
    async fn blob(&self, blob: BlobDigest) -> Result<Vec<u8>, Trouble> {
        let _held = self.transfer.fetch(&[blob]).await.map_err(not_had)?;
        let found = self.transfer.local().get(&blob).map_err(disk)?;
        found.ok_or_else(|| Trouble::Tree { detail: format!("blob {blob} is gone from the store") })
    }

    /// Versions of files that are the same to compilers. Without them everything is only done anew.
    async fn alike(&self, parts: BlobDigest) -> Option<Arc<Alike>> {
        let text = self.blob(parts).await.ok()?;
        let parts: Parts = from_json("alike", &text).ok()?;
        let firsts: Vec<BlobDigest> = parts.first.values().copied().collect();
        let _held = self.transfer.fetch(&firsts).await.ok()?;
        let local = Arc::clone(self.transfer.local());
        let read = move || Alike::from_parts(&parts, |blob| local.get(blob).ok().flatten()).map(Arc::new);
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    async fn step(&self, step: &Step, assignment: &Assignment, cancel: watch::Receiver<bool>) -> Result<Done, Trouble> {
        let command = matches!(step.target.build, Build::Command { .. });
        if !command {
            // A package may have been upgraded since this worker was started.
            let now = offers::toolchain(&self.launcher, &self.home, &step.target).await;
            if now.as_ref().map(|toolchain| toolchain.digest) != Some(step.toolchain) {
                let detail = format!("the compiler of '{}' is not the one that was asked for", step.target.name);
                return Err(Trouble::Toolchain { detail });
            }
        }
        let logs = super::logs(&self.home).join(assignment.attempt.to_string());
        let worker = self.worker(step, logs.clone(), !command);
        let order = Local {
            target: 0,
            lane: 0,
            state: step.state,
            tree: step.tree.clone(),
            clean: step.clean,
            alike: match step.alike {
                Some(parts) => self.alike(parts).await,
                None => None,
            },
        };
        let log = logs.join(step.target.log_name(step.state));
        let done = match step.purpose {
            Purpose::Build => {
                let built = worker.build(order, cancel).await;
                match built.result.outcome {
                    Outcome::Trouble(trouble) => Err(trouble),
                    Outcome::Built | Outcome::Failed(_) | Outcome::Skipped => {
                        let log = self.keep_log(log.with_extension("log")).await;
                        Ok(Done::Built { built: Box::new(built), log })
                    }
                }
            }
            Purpose::Configure => worker.configure(order, cancel).await.map(Done::Configured),
            Purpose::Audit(expected) => {
                let expected: StateResult = from_json("expected", &self.blob(expected).await?).map_err(internal)?;
                match worker.audit(order, &expected, cancel).await {
                    Audited::NotDone(trouble) => Err(trouble),
                    audited @ (Audited::Equal | Audited::Different(_)) => {
                        let log = self.keep_log(log.with_extension("audit.log")).await;
                        Ok(Done::Audited { audited, log })
                    }
                }
            }
        };
        // What is left of it is in the store, or of no use.
        let _ = std::fs::remove_dir_all(&logs);
        done
    }

    /// A worker for one step; its folders are those of the lane, which nobody else has meanwhile.
    fn worker(&self, step: &Step, logs: PathBuf, compiles: bool) -> Worker {
        let level = self.launcher.level();
        let folder_key = DigestBuilder::new("bombproof/farm-folder/v1")
            .field(step.target.digest(&step.toolchain).to_string().as_bytes())
            .field(step.repository.as_bytes())
            .field(level.name().as_bytes())
            .finish();
        let names = Arc::clone(&self.names);
        let trees = RemoteTrees::new(self.channel.clone(), &step.repository, names, self.runtime.clone());
        let source: Arc<dyn TreeSource> = Arc::new(trees);
        Worker {
            launcher: self.launcher.clone(),
            jobs: Arc::clone(&self.jobs),
            home: self.home.clone(),
            source,
            targets: vec![Target { spec: step.target.clone(), folder_key, toolchain: step.toolchain }],
            logs,
            lanes: tokio::sync::Mutex::default(),
            compiles: compiles.then(|| Arc::clone(&self.compiles)),
        }
    }

    /// A log that cannot be kept is no reason to build again.
    async fn keep_log(&self, log: PathBuf) -> Option<BlobDigest> {
        let local = Arc::clone(self.transfer.local());
        tokio::task::spawn_blocking(move || local.put_file(&log).ok()).await.ok().flatten()
    }

    /// Gives what was done to the coordinator, with everything that it names; gives the blob that it is.
    async fn give(&self, done: &Done, mut cancel: watch::Receiver<bool>) -> Result<BlobDigest, Trouble> {
        let text = to_json("result", done).map_err(internal)?;
        let named = self.transfer.local().put(&text).map_err(disk)?;
        let mut blobs = done.blobs();
        blobs.push(named);
        let _held = self.transfer.local().pin(&blobs).map_err(disk)?;
        let mut tries = 0;
        loop {
            match self.transfer.push(&blobs).await {
                Ok(_) => return Ok(named),
                Err(TransferError::Remote(error)) if error.is_trouble() && tries < OFFERS => {
                    let stopped = cancel.wait_for(|stop| *stop);
                    if tokio::time::timeout(pause(tries), stopped).await.is_ok_and(|stopped| stopped.is_ok()) {
                        return Err(Trouble::Interrupted);
                    }
                    tries += 1;
                }
                Err(error) => return Err(not_had(error)),
            }
        }
    }
}
