//! When a command has to be stopped: its time, the user, the disk. And whether the disk had little room while it ran.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::statvfs::statvfs;
use tokio::sync::watch;

use super::{End, Resource, Spec};

/// How often the disk is looked at.
const TICK: Duration = Duration::from_millis(250);
/// What a command must leave free for others, in bytes, where there is that much.
const LEAVE_FREE_BYTES: u64 = 4 << 30;
/// Where this little is left, in bytes, everything stops: who took it cannot always be seen.
const LOW_BYTES: u64 = 256 << 20;
/// Where this little is left, in bytes, a disk may have been full between two looks.
const CRAMPED_BYTES: u64 = 1 << 30;
/// Where this little is left, in bytes, a disk counts as full however small it is.
const FULL_BYTES: u64 = 8 << 20;
/// The same of files that can be made, which some file systems count.
const CRAMPED_FILES: u64 = 1 << 16;

/// When each file system, by device, was last seen with little room, whoever looked: one that fills it and is stopped for that gives the room
/// back at once, and the next look of another one may come too late.
static CRAMPED: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());

fn noted() -> MutexGuard<'static, BTreeMap<u64, Instant>> {
    CRAMPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a file system has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    bytes: u64,
    /// Files that can be made; `None`: any number.
    files: Option<u64>,
}

impl Room {
    fn of(folder: &Path) -> Option<Self> {
        let found = statvfs(folder).ok()?;
        let files = (found.files() > 0).then(|| found.files_available());
        Some(Self { bytes: found.blocks_available().saturating_mul(found.fragment_size()), files })
    }

    /// How much of the disk a command may take that finds this, in bytes.
    fn allowed(self, limit: u64) -> u64 {
        limit.min((self.bytes / 2).max(self.bytes.saturating_sub(LEAVE_FREE_BYTES)))
    }

    /// Whether everything has to stop, where there was this much at the start.
    fn is_low(self, start: Self) -> bool {
        let files = self.files.zip(start.files).is_some_and(|(now, start)| now < (CRAMPED_FILES / 4).min(start / 16));
        files || self.bytes < LOW_BYTES.min(start.bytes / 16)
    }

    /// Whether there may have been nothing left a moment ago, where there was this much at the start.
    fn is_cramped(self, start: Self) -> bool {
        let files = self.files.zip(start.files).is_some_and(|(now, start)| now < CRAMPED_FILES.min(start / 4).max(64));
        files || self.bytes < CRAMPED_BYTES.min(start.bytes / 4).max(FULL_BYTES)
    }
}

/// Looks at the disk while a command runs.
pub(super) struct Watch {
    /// What the command may write.
    folders: Vec<PathBuf>,
    /// The first of them, its device and its room at the start; `None`: it writes nothing.
    disk: Option<(PathBuf, u64, Room)>,
    begin: (SystemTime, Instant),
}

impl Watch {
    /// A command is about to run.
    pub(super) fn begin(spec: &Spec) -> Self {
        let overlays = spec.overlays.iter().map(|overlay| overlay.upper.clone());
        let folders: Vec<PathBuf> =
            spec.binds.iter().filter(|bind| bind.writable).map(|bind| bind.host.clone()).chain(overlays).collect();
        let disk = folders.first().and_then(|first| {
            let device = std::fs::metadata(first).ok()?.dev();
            Some((first.clone(), device, Room::of(first)?))
        });
        Self { folders, disk, begin: (SystemTime::now(), Instant::now()) }
    }

    /// Waits until the command has to be stopped, and says why.
    pub(super) async fn stop(&self, spec: &Spec, mut cancel: watch::Receiver<bool>) -> End {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(spec.limits.time_s)) => End::TimedOut,
            () = async { let _ = cancel.wait_for(|stop| *stop).await; } => End::Cancelled,
            limit_bytes = self.taken(spec.limits.disk_bytes) => {
                End::Exhausted { resource: Resource::Disk, limit_bytes }
            }
        }
    }

    /// Whether anybody saw little room on the disk since the command was begun.
    pub(super) fn was_cramped(&self) -> bool {
        self.look();
        let Some((_, device, _)) = &self.disk else { return false };
        noted().get(device).is_some_and(|last| *last >= self.begin.1)
    }

    /// What is left, which others are told too.
    fn look(&self) -> Option<Room> {
        let (folder, device, start) = self.disk.as_ref()?;
        let now = Room::of(folder)?;
        if now.is_cramped(*start) {
            noted().insert(*device, Instant::now());
        }
        Some(now)
    }

    /// Ends when the command has taken more of the disk than it may; gives how much that is, in bytes.
    async fn taken(&self, limit_bytes: u64) -> u64 {
        let Some((_, _, start)) = self.disk else { return std::future::pending().await };
        let allowed = start.allowed(limit_bytes);
        let mut look_at = allowed;
        loop {
            tokio::time::sleep(TICK).await;
            let Some(now) = self.look() else { continue };
            if now.is_low(start) {
                return allowed;
            }
            let gone = start.bytes.saturating_sub(now.bytes);
            if gone <= look_at {
                continue;
            }
            // Others write too: what this one wrote has to be counted.
            let (mine, begin) = (self.folders.clone(), self.begin.0);
            let counted =
                tokio::task::spawn_blocking(move || mine.iter().map(|folder| written(folder, begin)).sum::<u64>());
            if counted.await.unwrap_or(0) > allowed {
                return allowed;
            }
            look_at = gone.saturating_add(allowed / 8);
        }
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

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn room(bytes: u64) -> Room {
        Room { bytes, files: None }
    }

    #[test]
    fn a_command_leaves_others_something() {
        for (free, limit, want) in
            [(100 * GIB, 64 * GIB, 64 * GIB), (50 * GIB, 64 * GIB, 46 * GIB), (4 * GIB, 64 * GIB, 2 * GIB), (0, GIB, 0)]
        {
            assert_eq!(room(free).allowed(limit), want, "{free}");
        }
    }

    #[test]
    fn a_disk_has_little_room_before_it_has_none() {
        for (start, now, cramped, low) in [
            (100 * GIB, 2 * GIB, false, false),
            (100 * GIB, GIB - 1, true, false),
            (100 * GIB, LOW_BYTES - 1, true, true),
            // Half of a small disk is no little room yet.
            (32 * MIB, 16 * MIB, false, false),
            (32 * MIB, 7 * MIB, true, false),
            (32 * MIB, MIB, true, true),
            // It was full before.
            (MIB, MIB, true, false),
        ] {
            let found = (room(now).is_cramped(room(start)), room(now).is_low(room(start)));
            assert_eq!(found, (cramped, low), "{start} {now}");
        }
        let files = |files| Room { bytes: 100 * GIB, files: Some(files) };
        for (start, now, cramped, low) in [
            (16_000_000, 15_000_000, false, false),
            (16_000_000, 60_000, true, false),
            (16_000_000, 16_000, true, true),
            (1_000, 500, false, false),
            (1_000, 50, true, true),
        ] {
            let found = (files(now).is_cramped(files(start)), files(now).is_low(files(start)));
            assert_eq!(found, (cramped, low), "{start} {now}");
        }
    }

    #[test]
    fn what_one_saw_of_a_disk_counts_for_all_that_ran_then() {
        let folder = tempfile::tempdir().unwrap();
        let spec = Spec {
            argv: Vec::new(),
            cwd: String::new(),
            env: Vec::new(),
            binds: vec![crate::sandbox::Bind {
                host: folder.path().to_owned(),
                guest: "/x".to_owned(),
                writable: true,
            }],
            overlays: Vec::new(),
            limits: crate::sandbox::Limits::for_builds(1),
            mount_point: PathBuf::new(),
        };
        let (one, other) = (Watch::begin(&spec), Watch::begin(&spec));
        assert!(!one.was_cramped(), "this test needs room");
        noted().insert(other.disk.as_ref().unwrap().1, Instant::now());
        assert!(one.was_cramped());
        assert!(!Watch::begin(&spec).was_cramped(), "who came later had room");
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
