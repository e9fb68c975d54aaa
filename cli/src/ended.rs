//! That the user, or the system, wants the program to end.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::fail::Fail;

/// Does something each time that Ctrl-C or SIGTERM comes, until the task is aborted.
///
/// # Errors
/// When signals cannot be listened to.
pub(crate) fn each_time(mut act: impl FnMut() + Send + 'static) -> Result<JoinHandle<()>, Fail> {
    let mut terminated = signal(SignalKind::terminate()).map_err(Fail::machine)?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            act();
        }
    }))
}
