//! What the end-to-end tests share: a repository of the mini kernel, and the real program.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "part of each test program"
)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The top of the source.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A folder with a repository of the mini kernel (`repo`, tag `base`) and a state folder (`home`).
pub struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    /// Makes one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ground = Self { folder };
        run(Command::new("cp").arg("-r").arg(top().join("fixtures/mini-kernel")).arg(ground.repo()));
        for args in
            [&["init", "-q", "-b", "main"][..], &["add", "-A"], &["commit", "-q", "-m", "base"], &["tag", "base"]]
        {
            ground.git(args);
        }
        ground
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The repository.
    pub fn repo(&self) -> PathBuf {
        self.path().join("repo")
    }

    /// Runs git in the repository.
    pub fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]).args(args).current_dir(self.repo());
        String::from_utf8(run(&mut command).stdout).unwrap()
    }

    /// The program, with a state folder of its own.
    pub fn bombproof(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bombproof"));
        command
            .args(args)
            .current_dir(self.path())
            .env("BOMBPROOF_HOME", self.path().join("home"))
            .env("COLUMNS", "100");
        command
    }

    /// A file in the folder.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Long enough for everything on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(240);

/// Waits until something is so.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < LONG, "it did not come to that: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process whose words go to a file; it is killed when this goes.
pub struct Process {
    pub child: Child,
    pub log: PathBuf,
}

impl Process {
    /// Starts it; its words are appended to the file.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    /// What it said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it says this.
    pub fn says(&self, words: &str) {
        until(&format!("'{words}' in {}: {}", self.log.display(), self.said()), || {
            self.said().contains(words).then_some(())
        });
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()));
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; gives its exit code.
    pub fn ends(&mut self) -> Option<i32> {
        until("a process ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file system of its own, in memory, so that what fills it disturbs nobody; unmounted at the end.
pub struct Small(PathBuf);

impl Small {
    /// `None`, with a word: only root may mount.
    pub fn mount(place: &Path, options: &str) -> Option<Self> {
        if run(Command::new("id").arg("-u")).stdout != b"0\n" {
            eprintln!("NOT TESTED: only root may mount a file system for it");
            return None;
        }
        std::fs::create_dir_all(place).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(place));
        Some(Self(place.to_owned()))
    }

    /// Takes what is left of it.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        let mut size = 1 << 20;
        // The last blocks as well.
        while size >= 1 {
            if file.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    /// Gives back what [`Small::fill`] took.
    pub fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
