//! What is kept of builds: `cache stats`, `cache gc`, `cache verify`.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use bombproof_core::digest::Digest;
use bombproof_core::size::Bytes;
use bombproof_metrics::StoreBytes;
use bombproof_store::action_cache::FileActions;
use bombproof_store::atomic::FileError;
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::graphs::FileGraphs;
use bombproof_store::home::Home;
use bombproof_store::manifests::FileManifests;
use bombproof_store::table::{SealedTable, TableStats};

use crate::args::CacheCommand;
use crate::fail::{CLEAN, Fail, UNDECIDED};

pub(crate) fn run(home: &Home, command: &CacheCommand) -> Result<u8, Fail> {
    match command {
        CacheCommand::Stats => stats(home),
        CacheCommand::Gc { limit, keep_days } => gc(home, *limit, *keep_days),
        CacheCommand::Verify => verify(home),
    }
}

/// What can be done with a table whatever its values are.
trait Table {
    fn stats(&self) -> Result<TableStats, FileError>;
    fn verify(&self) -> Result<Vec<Digest>, FileError>;
    fn sweep(&self) -> Result<u64, FileError>;
    fn expire(&self, before: SystemTime) -> Result<u64, FileError>;
}

impl<V> Table for SealedTable<V> {
    fn stats(&self) -> Result<TableStats, FileError> {
        self.stats()
    }

    fn verify(&self) -> Result<Vec<Digest>, FileError> {
        self.verify()
    }

    fn sweep(&self) -> Result<u64, FileError> {
        self.sweep()
    }

    fn expire(&self, before: SystemTime) -> Result<u64, FileError> {
        self.expire(before)
    }
}

/// The tables, each with its name and what one value of it is called.
fn tables(home: &Home) -> [(&'static str, &'static str, Box<dyn Table>); 3] {
    [
        ("actions", "result of an action", Box::new(FileActions::at(home.actions()).table().clone())),
        ("manifests", "manifest", Box::new(FileManifests::at(home.manifests()).table().clone())),
        ("graphs", "action graph", Box::new(FileGraphs::at(home.graphs()).table().clone())),
    ]
}

fn stats(home: &Home) -> Result<u8, Fail> {
    let cas = DiskCas::at(home.cas()).stats().map_err(Fail::machine)?;
    let mut out = String::new();
    let _ = writeln!(out, "{:10} {:>9}  {:>12}", "blobs", cas.blobs, Bytes(cas.bytes).to_string());
    for (name, _, table) in tables(home) {
        let stats = table.stats().map_err(Fail::machine)?;
        let _ = writeln!(out, "{name:10} {:>9}  {:>12}", stats.values, Bytes(stats.bytes).to_string());
    }
    if let Some(oldest) = cas.oldest_use {
        let _ = writeln!(out, "oldest use {}", humantime::format_rfc3339_seconds(oldest));
    }
    crate::print(&out);
    Ok(CLEAN)
}

/// Keeps the store within its limit after a check that added to it; gives how many bytes it holds then. What goes wrong here is for
/// `cache gc` to say.
pub(crate) fn keep_within(home: &Home, limit: Bytes) -> Option<u64> {
    let cas = DiskCas::at(home.cas());
    let bytes = cas.stats().ok()?.bytes;
    if bytes <= limit.0 {
        return Some(bytes);
    }
    cas.gc(limit.0).ok().map(|report| report.kept_bytes)
}

/// How often a process that goes on for ever looks after its store.
const LOOKED_AFTER_EVERY: Duration = Duration::from_secs(600);

/// Keeps the store within its limit for ever, and tells how much it holds.
pub(crate) async fn look_after(home: Home, limit: Bytes, held: StoreBytes) {
    let cas = DiskCas::at(home.cas());
    let mut found = tokio::task::spawn_blocking(move || cas.stats().ok().map(|stats| stats.bytes)).await;
    loop {
        // What cannot be found out now is the next time.
        if let Ok(Some(bytes)) = found {
            held.set(bytes);
        }
        tokio::time::sleep(LOOKED_AFTER_EVERY).await;
        let home = home.clone();
        found = tokio::task::spawn_blocking(move || keep_within(&home, limit)).await;
    }
}

fn gc(home: &Home, limit: Bytes, keep_days: u32) -> Result<u8, Fail> {
    let report = DiskCas::at(home.cas()).gc(limit.0).map_err(Fail::machine)?;
    let mut leftovers = report.leftovers;
    let before = SystemTime::now().checked_sub(Duration::from_secs(u64::from(keep_days) * 86_400));
    let mut out = String::new();
    for (name, _, table) in tables(home) {
        leftovers += table.sweep().map_err(Fail::machine)?;
        let gone = before.map_or(Ok(0), |before| table.expire(before)).map_err(Fail::machine)?;
        if gone > 0 {
            let _ = writeln!(out, "dropped {gone} {name} that are older than {keep_days} days");
        }
    }
    let _ = writeln!(out, "evicted {}, {}", blobs(report.evicted), Bytes(report.evicted_bytes));
    let _ = writeln!(out, "kept    {}, {}", blobs(report.kept), Bytes(report.kept_bytes));
    if leftovers > 0 {
        let _ = writeln!(out, "removed {leftovers} unfinished file{}", if leftovers == 1 { "" } else { "s" });
    }
    if report.kept_bytes > limit.0 {
        let _ = writeln!(out, "that is more than {limit}: the rest is in use, or was so in the last minutes");
    }
    crate::print(&out);
    Ok(CLEAN)
}

fn verify(home: &Home) -> Result<u8, Fail> {
    let mut out = String::new();
    let report = DiskCas::at(home.cas()).verify().map_err(Fail::machine)?;
    let mut damaged = report.damaged.len();
    for hash in &report.damaged {
        let _ = writeln!(out, "damaged blob {hash}");
    }
    for (_, what, table) in tables(home) {
        let keys = table.verify().map_err(Fail::machine)?;
        damaged += keys.len();
        for key in keys {
            let _ = writeln!(out, "damaged {what} {key}");
        }
    }
    let _ = writeln!(out, "{} right, {}", blobs(report.blobs), Bytes(report.bytes));
    if damaged > 0 {
        let _ = writeln!(out, "{damaged} damaged, dropped; what is needed of it will be made again");
    }
    crate::print(&out);
    Ok(if damaged > 0 { UNDECIDED } else { CLEAN })
}

fn blobs(count: u64) -> String {
    format!("{count} blob{}", if count == 1 { "" } else { "s" })
}
