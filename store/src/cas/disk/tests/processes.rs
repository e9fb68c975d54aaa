//! Several processes in one folder, and a disk without room. The other process is this program again, with the one test
//! that it is to run.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

/// Names the folder to the other process.
const FOLDER: &str = "BOMBPROOF_TEST_FOLDER";
/// What the other process says when it is as far as it shall go.
const READY: &str = "ready";

fn folder_from_parent() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

fn arguments(test: &str) -> [String; 4] {
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    [name, "--exact".to_owned(), "--nocapture".to_owned(), "--include-ignored".to_owned()]
}

/// Another process, killed at the end.
struct Other(Child);

impl Other {
    fn start(test: &str, folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments(test)).env(FOLDER, folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn wait_until_ready(&mut self) {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.ends_with(READY)), "it ended early");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "run by others in a process of its own"]
fn holds_a_blob() {
    let Some(folder) = folder_from_parent() else { return };
    let _held = again(&folder).pin(&[BlobDigest::of(b"held")]).unwrap();
    println!("{READY}");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn pins_of_another_process_hold_as_long_as_it_lives() {
    let (folder, cas) = store();
    let mut other = Other::start("holds_a_blob", folder.path());
    other.wait_until_ready();
    let (held, free) = (cas.put(b"held").unwrap(), cas.put(b"free").unwrap());
    pass(&cas, Duration::from_secs(7200));
    cas.gc(0).unwrap();
    assert_eq!(cas.missing(&[held, free]), [free]);
    assert_eq!(names(&cas.folder().join("pins")), 1);
    drop(other);
    assert_eq!(names(&cas.folder().join("pins")), 1, "it was killed, and could not remove it");
    cas.gc(0).unwrap();
    assert_eq!(cas.missing(&[held]), [held]);
    assert_eq!(names(&cas.folder().join("pins")), 0);
}

const ROUNDS: u32 = 300;

fn content(round: u32) -> Vec<u8> {
    format!("content {}", round % 40).repeat(50).into_bytes()
}

#[test]
#[ignore = "run by others in a process of its own"]
fn puts_and_evicts() {
    let Some(folder) = folder_from_parent() else { return };
    let cas = again(&folder);
    let to = folder.join(format!("link-{}", std::process::id()));
    for round in 0..ROUNDS {
        let blob = BlobDigest::of(&content(round));
        let pin = cas.pin(&[blob]).unwrap();
        cas.put(&content(round)).unwrap();
        if round % 7 == 0 {
            cas.gc(0).unwrap();
        }
        // Held, it stays whatever the others do.
        assert_eq!(cas.get(&blob).unwrap(), Some(content(round)), "round {round}");
        for executable in [false, true] {
            assert!(cas.link(&blob, &to, executable).unwrap(), "round {round}");
            assert_eq!(std::fs::read(&to).unwrap(), content(round));
            std::fs::remove_file(&to).unwrap();
        }
        drop(pin);
        // Not held, it is there whole or not at all.
        let other = content(round + 13);
        if let Some(bytes) = cas.get(&BlobDigest::of(&other)).unwrap() {
            assert_eq!(bytes, other);
        }
    }
    assert_eq!(cas.damaged(), 0);
}

#[test]
fn processes_that_put_and_evict_at_once_lose_nothing_that_is_held() {
    let (folder, cas) = store();
    let mut others = [(); 3].map(|()| Other::start("puts_and_evicts", folder.path()));
    for other in &mut others {
        assert!(other.0.wait().unwrap().success());
    }
    assert_eq!(cas.verify().unwrap().damaged, []);
    assert_eq!(names(&cas.folder().join("tmp")), 0);
    assert_eq!(names(&cas.folder().join("pins")), 0);
}

#[test]
#[ignore = "run by others in a process of its own"]
fn fills_the_disk() {
    let Some(folder) = folder_from_parent() else { return };
    let cas = again(&folder);
    let kept = cas.put(b"kept").unwrap();
    let large = vec![1; 2 << 20];
    assert!(matches!(cas.put(&large), Err(CasError::Full(_))));
    let error = cas.put(&large).unwrap_err().to_string();
    assert!(error.contains("no room") && error.contains("No space left on device"), "{error}");
    assert_eq!(cas.missing(&[BlobDigest::of(&large)]), [BlobDigest::of(&large)]);
    assert_eq!(names(&cas.folder().join("tmp")), 0, "nothing is half-written");
    // From another file system, where there is room for it.
    let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = elsewhere.path().join("file");
    std::fs::write(&file, &large).unwrap();
    assert!(matches!(cas.put_file(&file), Err(CasError::Full(_))));
    assert_eq!(std::fs::read(&file).unwrap(), large, "the only copy is not lost");
    assert_eq!(names(&cas.folder().join("tmp")), 0, "nothing is half-written");
    let half = cas.put(&vec![2; 600 << 10]).unwrap();
    let to = folder.join("copy");
    assert!(matches!(cas.copy(&half, &to, false), Err(CasError::Full(_))));
    assert!(!to.exists());
    assert!(matches!(cas.link(&half, &to, true), Err(CasError::Full(_))), "that takes a second file");
    assert!(!to.exists());
    assert!(cas.link(&half, &to, false).unwrap(), "that takes no room");
    std::fs::remove_file(&to).unwrap();
    assert_eq!(cas.get(&kept).unwrap().as_deref(), Some(&b"kept"[..]));
    pass(&cas, Duration::from_secs(7200));
    assert_eq!(cas.gc(0).unwrap().kept, 0);
    cas.put(&vec![3; 600 << 10]).unwrap();
    println!("{READY}");
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-ec", script, "sh"]).env(FOLDER, folder.path());
        command
    };
    let mount = format!("mount -t tmpfs -o size=1m none \"${FOLDER}\"");
    // Where there are no namespaces for users there is no small disk.
    if !in_namespace(&mount).output().is_ok_and(|output| output.status.success()) {
        return;
    }
    let mut command = in_namespace(&format!("{mount}; exec \"$@\""));
    let output = command.arg(std::env::current_exe().unwrap()).args(arguments("fills_the_disk")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(READY), "{said} {}", String::from_utf8_lossy(&output.stderr));
}
