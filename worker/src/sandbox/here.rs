//! Runs a command on this host: this program, started again as the helper.

use std::fs::File;
use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{End, Level, SandboxError, Spec, Word};
use crate::jobs::Tokens;

/// Runs a command at a level until it ends or `stop` does.
///
/// # Errors
/// When the sandbox cannot be set up.
pub(super) async fn run(
    level: Level,
    spec: &Spec,
    log: &File,
    jobs: Option<&Tokens>,
    stop: impl Future<Output = End>,
) -> Result<End, SandboxError> {
    let failed = |what: &str, error: std::io::Error| SandboxError::Failed(format!("{what}: {error}"));
    let own = std::env::current_exe().map_err(|error| failed("own program", error))?;
    let mut command = std::process::Command::new(&own);
    command.arg("__sandbox").arg(level.name());
    command.env_clear();
    match jobs {
        Some(Tokens::Pipe(pipe)) => pipe.configure_make(&mut command),
        Some(Tokens::Named(named)) => {
            command.arg(named.path());
        }
        None => {}
    }
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().map_err(|error| failed("log", error))?)
        // A group of its own: what the terminal sends at Ctrl-C is for us, and we stop the build in our order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("helper", error))?;
    let text = serde_json::to_string(spec).map_err(|error| SandboxError::Failed(error.to_string()))?;
    // Stays open while it runs: its end tells the helper to stop.
    let mut input = child.stdin.take();
    if let Some(input) = input.as_mut() {
        // A helper that is gone already says why on its output.
        let _ = input.write_all(format!("{text}\n").as_bytes()).await;
    }
    let mut said = String::new();
    let talk = async {
        if let Some(mut output) = child.stdout.take() {
            let _ = output.read_to_string(&mut said).await;
        }
        child.wait().await
    };
    let status = tokio::select! {
        status = talk => status.map_err(|error| failed("helper", error))?,
        end = stop => {
            kill(&mut child, input.take(), level).await;
            return Ok(end);
        }
    };
    match said.lines().last().and_then(|line| serde_json::from_str::<Word>(line).ok()) {
        Some(Word::Ended(code, usage)) => Ok(End::Exited(code, usage)),
        Some(Word::Refused(why)) => Err(SandboxError::Failed(why)),
        // Nobody but the machine kills it: the memory is full, or somebody at a terminal.
        None if status.signal().is_some() => Err(SandboxError::Killed(format!("the helper of the sandbox, {status}"))),
        None => Err(SandboxError::Failed(format!("the helper ended without a word ({status})"))),
    }
}

/// Stops the helper: with its own name spaces it is killed, and the first process in there goes with it; without them it
/// kills the process group when its input ends.
async fn kill(child: &mut tokio::process::Child, input: Option<tokio::process::ChildStdin>, level: Level) {
    drop(input);
    if level.has_own_paths() {
        let _ = child.start_kill();
    }
    let _ = child.wait().await;
}
