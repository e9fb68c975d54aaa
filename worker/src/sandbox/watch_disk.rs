//! When a command has to be stopped: its time, the user, the disk.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;
use tokio::sync::watch;

use super::{End, Resource, Spec};

/// How often the disk is looked at.
const TICK: Duration = Duration::from_millis(250);
/// What a command must leave free for others, in bytes, where there is that much.
const LEAVE_FREE_BYTES: u64 = 4 << 30;
/// Where this little is left, in bytes, everything stops: who took it cannot always be seen.
const LOW_BYTES: u64 = 256 << 20;

/// Waits until a command has to be stopped, and says why.
pub(super) async fn stop(spec: &Spec, mut cancel: watch::Receiver<bool>) -> End {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(spec.limits.time_s)) => End::TimedOut,
        () = async { let _ = cancel.wait_for(|stop| *stop).await; } => End::Cancelled,
        limit_bytes = disk(spec) => End::Exhausted { resource: Resource::Disk, limit_bytes },
    }
}

/// How much of the disk a command may take, in bytes.
fn allowed(free_at_start: u64, limit: u64) -> u64 {
    limit.min((free_at_start / 2).max(free_at_start.saturating_sub(LEAVE_FREE_BYTES)))
}

/// Below this, in bytes, everything stops.
fn low(free_at_start: u64) -> u64 {
    LOW_BYTES.min(free_at_start / 16)
}

fn free(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    Some(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Ends when the command has taken more of the disk than it may; gives how much that is, in bytes.
async fn disk(spec: &Spec) -> u64 {
    let overlays = spec.overlays.iter().map(|overlay| overlay.upper.clone());
    let folders: Vec<PathBuf> =
        spec.binds.iter().filter(|bind| bind.writable).map(|bind| bind.host.clone()).chain(overlays).collect();
    let Some((first, at_start)) = folders.first().and_then(|first| Some((first.clone(), free(first)?))) else {
        return std::future::pending().await;
    };
    let (begin, allowed, low) = (SystemTime::now(), allowed(at_start, spec.limits.disk_bytes), low(at_start));
    let mut look_at = allowed;
    loop {
        tokio::time::sleep(TICK).await;
        let Some(now) = free(&first) else { continue };
        if now < low {
            return allowed;
        }
        let gone = at_start.saturating_sub(now);
        if gone <= look_at {
            continue;
        }
        // Others write too: what this one wrote has to be counted.
        let mine = folders.clone();
        let counted =
            tokio::task::spawn_blocking(move || mine.iter().map(|folder| written(folder, begin)).sum::<u64>());
        if counted.await.unwrap_or(0) > allowed {
            return allowed;
        }
        look_at = gone.saturating_add(allowed / 8);
    }
}

/// The size on disk, in bytes, of what was changed below a folder since a time. Who can write a file can set every time of it but
/// that of the change of its status.
fn written(folder: &Path, since: SystemTime) -> u64 {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut sum = 0_u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            // `DirEntry::metadata` does not follow links.
            let Ok(kind) = entry.metadata() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if u64::try_from(kind.ctime()).unwrap_or(0) >= since {
                sum = sum.saturating_add(kind.blocks().saturating_mul(512));
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_leaves_others_something() {
        let gib = 1 << 30;
        for (free, limit, want) in
            [(100 * gib, 64 * gib, 64 * gib), (50 * gib, 64 * gib, 46 * gib), (4 * gib, 64 * gib, 2 * gib), (0, gib, 0)]
        {
            assert_eq!(allowed(free, limit), want, "{free}");
        }
        assert_eq!(low(100 * gib), LOW_BYTES);
        assert_eq!(low(32 << 20), 2 << 20);
    }

    #[test]
    fn what_was_written_is_counted_whatever_time_it_claims() {
        let folder = tempfile::tempdir().unwrap();
        let begin = SystemTime::now();
        let file = folder.path().join("sub/big");
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(written(folder.path(), begin) >= 1 << 20);
        assert_eq!(written(folder.path(), begin + Duration::from_secs(5)), 0);
    }
}
