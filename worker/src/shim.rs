//! The compiler shim: this program under a compiler's name, in front of the real one on the `PATH` of a build.
//!
//! A compile is run as a child, so that its command, standard error, dependency list, time and exit are known exactly and
//! nothing has to be guessed from an interleaved log; everything else (probes, links) is replaced by the real program at
//! once. What the caller sees is the same in every case.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use bombproof_core::kbuild::invocation::{self, Invocation};
use bombproof_core::kbuild::record::{Known, Record};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// Where the journal is.
pub const JOURNAL: &str = "BOMBPROOF_JOURNAL";
/// The socket of who runs the compiles of this step; without it they are run here.
pub const AGENT: &str = "BOMBPROOF_AGENT";
/// The `PATH` without the shims.
pub const REAL_PATH: &str = "BOMBPROOF_REAL_PATH";
/// Variables that change what a compiler does; a compile under one of them is run here.
const CHANGES_COMPILERS: &[&str] = &[
    "CCC_OVERRIDE_OPTIONS",
    "COMPILER_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "C_INCLUDE_PATH",
    "DEPENDENCIES_OUTPUT",
    "GCC_COLORS",
    "GCC_COMPARE_DEBUG",
    "GCC_EXEC_PREFIX",
    "GCC_SPECS",
    "LIBRARY_PATH",
    "LD_PRELOAD",
    "SUNPRO_DEPENDENCIES",
];

/// A compile, as the shim hands it over: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The working folder.
    pub(crate) cwd: String,
    /// The command; `argv[0]` is the compiler's name.
    pub(crate) argv: Vec<String>,
}

/// What became of it: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// The shim is to run it itself.
    Local,
    /// It ran, or was known; its outputs are there.
    Done {
        /// Exit code.
        exit: i32,
        /// Standard error.
        stderr: String,
    },
}

/// At most this much of a standard error is kept, in bytes.
const MAX_STDERR_BYTES: usize = 1 << 20;

/// Exit code where the real compiler cannot be run, as a shell gives it.
const NOT_FOUND: i32 = 127;

/// Runs as the compiler that `argv[0]` names; gives the exit code.
pub fn run(argv: &[OsString]) -> i32 {
    let Some(name) = argv.first().and_then(|name| Path::new(name).file_name()) else { return NOT_FOUND };
    let real_path = std::env::var_os(REAL_PATH).unwrap_or_default();
    let Some(program) = find(name, &real_path) else {
        let _ = writeln!(std::io::stderr(), "{}: command not found", name.to_string_lossy());
        return NOT_FOUND;
    };
    let words: Vec<String> = argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = Command::new(&program);
    if let Invocation::Compile { .. } = invocation::read(&words)
        && argv.iter().all(|word| word.to_str().is_some())
        && let Some(code) = handed_over(&words)
    {
        return code;
    }
    command.args(argv.iter().skip(1)).env("PATH", &real_path);
    for name in [REAL_PATH, JOURNAL, AGENT] {
        command.env_remove(name);
    }
    let journal = std::env::var_os(JOURNAL).map(PathBuf::from);
    match (invocation::read(&words), journal) {
        (Invocation::Compile { .. } | Invocation::Check { .. }, Some(journal)) => recorded(command, words, &journal)
            .unwrap_or_else(|error| {
                let _ = writeln!(std::io::stderr(), "bombproof: the compile could not be recorded: {error}");
                NOT_FOUND
            }),
        (Invocation::Compile { .. } | Invocation::Check { .. } | Invocation::Other, _) => {
            let error = command.exec();
            let _ = writeln!(std::io::stderr(), "{}: {error}", program.display());
            NOT_FOUND
        }
    }
}

/// Hands a compile over to the agent; `None`: it has to be run here.
fn handed_over(argv: &[String]) -> Option<i32> {
    let agent = std::env::var_os(AGENT)?;
    if CHANGES_COMPILERS.iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    let cwd = std::env::current_dir().ok()?.to_str()?.to_owned();
    let question = serde_json::to_string(&Question { cwd, argv: argv.to_vec() }).ok()?;
    let mut stream = UnixStream::connect(agent).ok()?;
    stream.write_all(format!("{question}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    match serde_json::from_str(&answer).ok()? {
        Answer::Local => None,
        Answer::Done { exit, stderr } => {
            let _ = std::io::stderr().write_all(stderr.as_bytes());
            Some(exit)
        }
    }
}

/// The first program of that name on a `PATH`.
pub fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|file| std::fs::metadata(file).is_ok_and(|kind| kind.is_file() && kind.permissions().mode() & 0o111 != 0))
}

fn recorded(mut command: Command, argv: Vec<String>, journal: &Path) -> std::io::Result<i32> {
    let start = Instant::now();
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut stderr = Vec::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut stderr)?;
    }
    let status = child.wait()?;
    let exit = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(NOT_FOUND);
    // The caller reads it as it would have, whatever becomes of the record.
    std::io::stderr().write_all(&stderr)?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(std::io::Error::from)?;
    let micros = |time: nix::sys::time::TimeVal| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0);
    let depfile = depfile_of(&argv).and_then(|path| std::fs::read(path).ok());
    let record = Record {
        id: format!("{}", std::process::id()),
        cwd: std::env::current_dir()?.to_string_lossy().into_owned(),
        argv,
        exit: Some(exit),
        cpu_us: micros(usage.user_time()) + micros(usage.system_time()),
        wall_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        max_rss_kib: u64::try_from(usage.max_rss()).unwrap_or(0),
        stderr: cut(&stderr),
        depfile: depfile.map(|text| String::from_utf8_lossy(&text).into_owned()),
        known: Known::Ran,
    };
    let mut line = serde_json::to_vec(&record)?;
    line.push(b'\n');
    // One write at the end of the file: lines of compiles that end at the same time do not mix.
    std::fs::File::options().append(true).create(true).open(journal)?.write_all(&line)?;
    Ok(exit)
}

/// Keeps both ends of a long text.
fn cut(text: &[u8]) -> String {
    if text.len() <= MAX_STDERR_BYTES {
        return String::from_utf8_lossy(text).into_owned();
    }
    let half = MAX_STDERR_BYTES / 2;
    let (head, tail) = (&text[..half], &text[text.len() - half..]);
    format!("{}\n[cut]\n{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
}

/// The dependency file that a command writes: `-Wp,-MMD,FILE`, `-MF FILE`.
fn depfile_of(argv: &[String]) -> Option<PathBuf> {
    let mut words = argv.iter();
    while let Some(word) = words.next() {
        for head in ["-Wp,-MMD,", "-Wp,-MD,", "-Wp,-MF,"] {
            if let Some(file) = word.strip_prefix(head) {
                return Some(PathBuf::from(file));
            }
        }
        if word == "-MF" {
            return words.next().map(PathBuf::from);
        }
    }
    None
}

/// Makes the folder of shims: this program under each compiler's name.
///
/// # Errors
/// When it cannot be written.
pub fn install<'a>(folder: &Path, program: &str, names: impl Iterator<Item = &'a str>) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for name in names {
        let link = folder.join(OsStr::from_bytes(name.as_bytes()));
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::os::unix::fs::symlink(program, &link)?;
    }
    Ok(())
}
