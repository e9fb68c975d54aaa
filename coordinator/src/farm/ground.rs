//! What tests of a coordinator stand on: a home, a repository of the operator's, and a series to hand in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bombproof_core::digest::Digest;
use bombproof_core::farm::{Capabilities, Config, Platform, Priority, Report};
use bombproof_core::id::{Oid, RunId};
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::order::Call;
use bombproof_core::quota::Quota;
use bombproof_core::reign::Terms;
use bombproof_core::submission::{Mode, Patches, Submission, VERSION};
use bombproof_core::target::{Build, TargetSpec};
use bombproof_metrics::FarmMetrics;
use bombproof_store::home::Home;
use bombproof_store::register::FileRegister;
use tempfile::TempDir;

use super::{Incoming, Kept, Repositories, Settings};
use crate::states::depot_tests::repository;

/// A home, and a repository of four commits that the farm calls `linux`.
pub(crate) struct Ground {
    folder: TempDir,
    /// The commits, the oldest first.
    pub(crate) commits: Vec<Oid>,
}

static IDS: AtomicU64 = AtomicU64::new(0);

fn new_id() -> RunId {
    RunId(format!("s{:04}", IDS.fetch_add(1, Ordering::Relaxed)))
}

impl Ground {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let upstream = folder.path().join("upstream");
        std::fs::create_dir(&upstream).unwrap();
        let commits = repository(&upstream);
        Self { folder, commits }
    }

    /// A folder in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The register of the home.
    pub(crate) fn register(&self) -> FileRegister {
        FileRegister::open(&self.at("home/register.redb")).unwrap()
    }

    /// What a coordinator is started with.
    pub(crate) fn settings(&self) -> Settings {
        let home = Home::at(&self.at("home"));
        home.prepare().unwrap();
        let lenders = BTreeMap::from([("linux".to_owned(), self.at("upstream"))]);
        Settings {
            repositories: Arc::new(Repositories::new(home.root().join("repositories"), lenders)),
            kept: Kept::open(&home),
            incoming: Arc::new(Incoming::open(home.root()).unwrap()),
            terms: Terms::of(10_000),
            contested: false,
            queue: Config::default(),
            quota: Quota::default(),
            roots: Roots { source: "/src".to_owned(), output: "/out".to_owned() },
            timestamp: |_| "2026-01-01T00:00:00Z".to_owned(),
            new_id,
            metrics: FarmMetrics::default(),
            home,
        }
    }

    /// A range of commits of the operator's repository, for a command.
    pub(crate) fn submission(&self) -> Submission {
        let build = Build::Command { command: "true".to_owned() };
        Submission {
            version: VERSION,
            project: None,
            repository: "linux".to_owned(),
            name: "a..b".to_owned(),
            base: "a".to_owned(),
            commit: self.commits[1].clone(),
            patches: Patches::Range { to: self.commits[3].clone() },
            targets: vec![TargetSpec { name: "command".into(), build, timeout_s: 60 }],
            mode: Mode::Every,
            audit: None,
            reuse: true,
            user: "somebody".into(),
            priority: Priority::Normal,
            command: Vec::new(),
        }
    }
}

/// The call of a worker that has come and does nothing yet.
pub(crate) fn idle_worker() -> Call {
    let toolchain = Digest::of(b"command");
    let platforms = BTreeSet::from([Platform { arch: None, toolchain }]);
    let report = Report {
        worker: "w".into(),
        session: 1,
        call: 1,
        capabilities: Capabilities { platforms, slots: 1, step_slots: 1 },
        lanes: Vec::new(),
        running: Vec::new(),
        finished: Vec::new(),
        draining: false,
    };
    Call { report, results: BTreeMap::new(), offers: Vec::new(), sandbox: "namespaces".to_owned() }
}
