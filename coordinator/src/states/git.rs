//! Runs git: the only place that does.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};

use super::StatesError;

/// Largest object that is read into memory, in bytes.
const MAX_OBJECT_BYTES: u64 = 512 << 20;
/// How much waits between git and us.
const PIPE_BYTES: i32 = 1 << 20;

/// A git folder to run git in.
#[derive(Clone, Debug)]
pub(super) struct Git {
    folder: PathBuf,
}

impl Git {
    /// Git in this folder: a work tree, or a bare repository.
    pub(super) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A command that asks nothing, fetches nothing, and does not listen to the caller's `GIT_*` variables.
    pub(super) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .arg("-C")
            .arg(&self.folder)
            .args(["-c", "gc.auto=0", "-c", "core.quotePath=true"])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs git to its end and gives what it printed.
    pub(super) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Vec<u8>, StatesError> {
        let mut command = self.command(args);
        let what = words(&command);
        let output = command.output().map_err(|error| StatesError::start(&what, &error))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(StatesError::Git { what, detail: said.trim().lines().last().unwrap_or("it failed").to_owned() })
    }

    /// Like [`Git::run`], as text without the last line end.
    pub(super) fn text<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String, StatesError> {
        Ok(String::from_utf8_lossy(&self.run(args)?).trim_end_matches('\n').to_owned())
    }

    /// Starts git with a pipe on both sides.
    pub(super) fn talk<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Talk, StatesError> {
        let mut command = self.command(args);
        let what = words(&command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| StatesError::start(&what, &error))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(StatesError::Git { what, detail: "its pipes are not there".to_owned() });
        };
        // Fewer changes between the two processes. A pipe that cannot grow is only slower.
        let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let _ = fcntl(&output, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Ok(Talk { what, child, input: Some(input), output: BufReader::with_capacity(1 << 16, output) })
    }
}

fn words(command: &Command) -> String {
    let words = command.get_args().skip(6).take(2).map(|word| word.to_string_lossy().into_owned());
    format!("git {}", words.collect::<Vec<_>>().join(" "))
}

/// A running git.
pub(super) struct Talk {
    what: String,
    child: Child,
    pub(super) input: Option<ChildStdin>,
    pub(super) output: BufReader<ChildStdout>,
}

/// An object as `git cat-file --batch` gives it.
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) bytes: Vec<u8>,
}

impl Talk {
    /// The error of this process: what it printed, if it ended.
    pub(super) fn failed(&mut self, detail: &str) -> StatesError {
        self.input = None;
        let mut said = String::new();
        let _ = self.child.kill();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        let _ = self.child.wait();
        let said = said.trim().lines().last().unwrap_or_default();
        let detail = if said.is_empty() { detail.to_owned() } else { said.to_owned() };
        StatesError::Git { what: self.what.clone(), detail }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StatesError> {
        let written = match self.input.as_mut() {
            Some(input) => input.write_all(bytes),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|error| self.failed(&error.to_string()))
    }

    /// Reads one answer of `cat-file --batch` or `--batch-check` (`with_content` false); `None`: there is no such object.
    pub(super) fn object(&mut self, with_content: bool) -> Result<Option<Object>, StatesError> {
        let mut head = String::new();
        let read = self.output.read_line(&mut head);
        if !matches!(read, Ok(1..)) {
            return Err(self.failed("it ended too early"));
        }
        let head = head.trim_end();
        let parts: Vec<&str> = head.rsplitn(3, ' ').collect();
        if parts.first().is_some_and(|word| matches!(*word, "missing" | "ambiguous" | "submodule")) {
            return Ok(None);
        }
        let [size, kind, _] = parts[..] else { return Err(self.failed("its answer cannot be read")) };
        let Ok(size) = size.parse::<u64>() else { return Err(self.failed("its answer cannot be read")) };
        let kind = kind.to_owned();
        let mut bytes = Vec::new();
        if with_content {
            if size > MAX_OBJECT_BYTES {
                return Err(self.failed(&format!("an object has {size} bytes: too large")));
            }
            bytes = vec![0; usize::try_from(size).unwrap_or(0) + 1];
            if self.output.read_exact(&mut bytes).is_err() {
                return Err(self.failed("it ended too early"));
            }
            bytes.pop();
        }
        Ok(Some(Object { kind, bytes }))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
