//! What the end-to-end tests share: a repository of the mini kernel, and the real program.

#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, dead_code, reason = "part of each test program")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
