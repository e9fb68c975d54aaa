//! An opaque command in a state's tree: `sh -c COMMAND`.
//!
//! The tree may be written; after the command every tracked file is as the state says again, untracked ones stay, as they
//! would in a work tree. Exit code 125 means that the state cannot be tested.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use bombproof_core::kbuild::log::machine_trouble;
use bombproof_core::outcome::{Failure, Outcome, Stage, StateResult, Trouble};
use tokio::sync::watch;

use crate::kbuild::build_environment;
use crate::sandbox::{Bind, Limits, Spec};
use crate::toolchain::SYSTEM_PATH;
use crate::tree::SourceTree;
use crate::{Attempt, Worker, disk_seen, full_disk};

/// Exit code by which a command says that a state cannot be tested, as `git bisect run` has it.
const SKIP: i32 = 125;

pub(crate) async fn build(
    worker: &Worker,
    command: &str,
    lease: &Path,
    attempt: &Attempt,
    cancel: watch::Receiver<bool>,
) -> Result<StateResult, Trouble> {
    let start = Instant::now();
    let disk = |error: std::io::Error| Trouble::Disk { detail: error.to_string() };
    let (root, source, to) = (lease.join("src"), worker.source.clone(), attempt.tree.clone());
    let clean = attempt.clean;
    std::fs::create_dir_all(lease.join("root")).map_err(disk)?;
    let dirty = lease.join("dirty");
    let moved = {
        let (root, dirty) = (root.clone(), dirty.clone());
        tokio::task::spawn_blocking(move || -> Result<(), Trouble> {
            let tree = SourceTree::at(&root);
            // What a command did to tracked files is only known by looking at them.
            if clean || dirty.exists() {
                let _ = std::fs::remove_file(root.with_extension("at"));
                let _ = std::fs::remove_file(&dirty);
            }
            tree.move_to(source.as_ref(), &to)?;
            Ok(())
        })
    };
    moved.await.map_err(|error| Trouble::Internal { detail: error.to_string() })??;
    File::create(&dirty).map_err(disk)?;
    let guest =
        if worker.launcher.level().has_own_paths() { "/bombproof/src".to_owned() } else { root.display().to_string() };
    let mut env = build_environment();
    env.push(("PATH".to_owned(), SYSTEM_PATH.to_owned()));
    env.push(("BOMBPROOF_STATE".to_owned(), attempt.state.to_string()));
    let spec = Spec {
        argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        cwd: guest.clone(),
        env,
        binds: vec![Bind { host: root.clone(), guest, writable: true }],
        overlays: Vec::new(),
        limits: Limits::for_builds(attempt.timeout_s),
        mount_point: lease.join("root"),
    };
    let before = fingerprints(&root);
    let log = File::options().create(true).append(true).open(&attempt.log).map_err(disk)?;
    let Some(job) = worker.jobs.take(cancel.clone()).await else { return Err(Trouble::Interrupted) };
    let end = worker.launcher.run(&spec, &log, Some(job.tokens()), cancel).await;
    let (code, usage) = match end?.exited(attempt.timeout_s) {
        Ok(ended) => ended,
        Err(trouble) => {
            job.lost();
            return Err(trouble);
        }
    };
    drop(job);
    restore(worker, &root, attempt, &before).await?;
    std::fs::remove_file(&dirty).map_err(disk)?;
    let mut result = StateResult::trouble(Trouble::Interrupted);
    result.cost.wall_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    result.outcome = match code {
        0 => Outcome::Built,
        SKIP => Outcome::Skipped,
        137 => return Err(Trouble::Killed { detail: "the command".to_owned() }),
        126 | 127 => {
            let said = last_line(&attempt.log);
            return Err(Trouble::Request { detail: format!("the command cannot be run (exit code {code}): {said}") });
        }
        code => {
            if let Some(full) = full_disk(lease) {
                return Err(full);
            }
            // In doubt it was the machine.
            let text = std::fs::read(&attempt.log).unwrap_or_default();
            if let Some(trouble) = machine_trouble(&String::from_utf8_lossy(&text), disk_seen(lease, usage.cramped)) {
                return Err(trouble.into());
            }
            let said = last_line(&attempt.log);
            let message =
                if said.is_empty() { format!("exit code {code}") } else { format!("exit code {code}: {said}") };
            Outcome::Failed(vec![Failure { stage: Stage::Command, what: command.to_owned(), message, werror: false }])
        }
    };
    Ok(result)
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(300).collect()
}

type Fingerprint = (u64, std::time::SystemTime);

/// Size and time of every file.
fn fingerprints(root: &Path) -> std::collections::BTreeMap<String, Fingerprint> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.metadata() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if let (Ok(path), Ok(time)) = (entry.path().strip_prefix(root), kind.modified()) {
                found.insert(path.to_string_lossy().into_owned(), (kind.len(), time));
            }
        }
    }
    found
}

async fn restore(
    worker: &Worker,
    root: &Path,
    attempt: &Attempt,
    before: &std::collections::BTreeMap<String, Fingerprint>,
) -> Result<(), Trouble> {
    let after = fingerprints(root);
    let touched: Vec<String> =
        before.iter().filter(|(path, print)| after.get(*path) != Some(print)).map(|(path, _)| path.clone()).collect();
    if touched.is_empty() {
        return Ok(());
    }
    let (root, source, tree) = (root.to_owned(), worker.source.clone(), attempt.tree.clone());
    let restored = tokio::task::spawn_blocking(move || SourceTree::at(&root).restore(source.as_ref(), &tree, &touched));
    Ok(restored.await.map_err(|error| Trouble::Internal { detail: error.to_string() })??)
}
