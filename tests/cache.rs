//! What is kept of builds, as `bombproof cache` shows it and looks after it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use bombproof_core::action::{ActionResult, OutputFile};
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_store::action_cache::{ActionCache, FileActions};
use bombproof_store::cas::{Cas, DiskCas};
use bombproof_store::home::Home;
use bombproof_store::manifests::{DependencySet, FileManifests, ManifestKey, Manifests};

struct State {
    folder: tempfile::TempDir,
    home: Home,
    cas: DiskCas,
}

impl State {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let cas = DiskCas::at(home.cas());
        Self { folder, home, cas }
    }

    /// One of everything, with two blobs.
    fn filled() -> (Self, [BlobDigest; 2]) {
        let state = Self::new();
        let blobs = [&vec![b'a'; 3 << 20], &vec![b'b'; 1 << 20]].map(|bytes| state.cas.put(bytes).unwrap());
        let outputs = vec![OutputFile { path: "a.o".to_owned(), blob: blobs[0], executable: false }];
        let result = ActionResult { exit: 0, outputs, stderr: String::new(), cpu_us: 1, wall_us: 2 };
        FileActions::at(state.home.actions()).put(&BlobDigest::of(b"action"), &result).unwrap();
        let set = DependencySet { inputs: Vec::new(), symbols: Vec::new(), resolution: Digest::of(b"") };
        FileManifests::at(state.home.manifests()).add(&ManifestKey(Digest::of(b"key")), &set).unwrap();
        (state, blobs)
    }

    fn bombproof(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bombproof"));
        let output = command.arg("cache").args(args).env("BOMBPROOF_HOME", self.folder.path()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    /// All files below a folder of the state folder.
    fn files(&self, folder: &Path) -> BTreeSet<std::path::PathBuf> {
        let mut files = BTreeSet::new();
        for shard in std::fs::read_dir(folder).unwrap().flatten().filter(|shard| shard.path().is_dir()) {
            files.extend(std::fs::read_dir(shard.path()).unwrap().flatten().map(|file| file.path()));
        }
        files
    }

    fn use_at(&self, blob: &BlobDigest, time: SystemTime) {
        let hash = blob.hash.to_string();
        let path = self.files(&self.home.cas()).into_iter().find(|path| hash.ends_with(name(path))).unwrap();
        File::open(path).unwrap().set_modified(time).unwrap();
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn damage(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_empty_cache_is_no_error() {
    let state = State::new();
    for args in [&["stats"][..], &["gc"], &["verify"]] {
        let (code, said) = state.bombproof(args);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn stats_say_what_is_kept() {
    let (state, [large, small]) = State::filled();
    state.use_at(&large, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    state.use_at(&small, SystemTime::UNIX_EPOCH + Duration::from_secs(1_710_000_000));
    let (code, said) = state.bombproof(&["stats"]);
    assert_eq!(code, Some(0));
    // How small a result gets is the compressor's affair.
    let said = said.lines().map(|line| match line.get(..20) {
        Some(head) if !line.starts_with("blobs") && line.ends_with(" B") && !line.ends_with(" 0 B") => {
            format!("{head}  [bytes]\n")
        }
        Some(_) | None => format!("{line}\n"),
    });
    let said: String = said.collect();
    insta::assert_snapshot!(said, @"
    blobs              2       4.0 MiB
    actions            1  [bytes]
    manifests          1  [bytes]
    graphs             0           0 B
    oldest use 2023-11-14T22:13:20Z
    ");
}

#[test]
fn gc_evicts_what_was_used_longest_ago_down_to_the_limit() {
    let (state, [large, small]) = State::filled();
    let hours_ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3600);
    let (_, said) = state.bombproof(&["gc", "--limit", "1MiB"]);
    insta::assert_snapshot!(said, @"
    evicted 0 blobs, 0 B
    kept    2 blobs, 4.0 MiB
    that is more than 1.0 MiB: the rest is in use, or was so in the last minutes
    ");
    state.use_at(&large, hours_ago(3));
    state.use_at(&small, hours_ago(2));
    let (_, said) = state.bombproof(&["gc"]);
    insta::assert_snapshot!(said, @"
    evicted 0 blobs, 0 B
    kept    2 blobs, 4.0 MiB
    ");
    let pin = state.cas.pin(&[large]).unwrap();
    let (_, said) = state.bombproof(&["gc", "--limit", "3 MiB"]);
    insta::assert_snapshot!(said, @"
    evicted 1 blob, 1.0 MiB
    kept    1 blob, 3.0 MiB
    ");
    drop(pin);
    let (code, said) = state.bombproof(&["gc", "--limit", "0"]);
    insta::assert_snapshot!(said, @"
    evicted 1 blob, 3.0 MiB
    kept    0 blobs, 0 B
    ");
    assert_eq!(code, Some(0));
    assert_eq!(state.cas.missing(&[large, small]), [large, small]);
}

#[test]
fn a_limit_that_is_no_size_is_a_wrong_request() {
    let (code, said) = State::new().bombproof(&["gc", "--limit", "much"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("'much' is not a size"), "{said}");
}

#[test]
fn verify_names_what_is_damaged_and_drops_it() {
    let (state, [_, small]) = State::filled();
    let (code, said) = state.bombproof(&["verify"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(said, @"2 blobs right, 4.0 MiB");
    let hash = small.hash.to_string();
    damage(state.files(&state.home.cas()).iter().find(|path| hash.ends_with(name(path))).unwrap());
    for folder in [state.home.actions(), state.home.manifests()] {
        damage(state.files(&folder).first().unwrap());
    }
    let (code, said) = state.bombproof(&["verify"]);
    assert_eq!(code, Some(2));
    insta::assert_snapshot!(said, @"
    damaged blob e56ec8dc1862be6c09c53620cbc0f00f639de2a51c882745fbbc4e144714b3c2
    damaged result of an action bd938c688f49b77c7fc537c6b9222e2c97ebddd63076b87f2feaec66fb9c05d0
    damaged manifest 2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683
    1 blob right, 3.0 MiB
    3 damaged, dropped; what is needed of it will be made again
    ");
    let (code, said) = state.bombproof(&["verify"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(said, @"1 blob right, 3.0 MiB");
}
