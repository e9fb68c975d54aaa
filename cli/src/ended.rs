//! That the user, or the system, wants the program to end.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::fail::Fail;

/// Listens to Ctrl-C and SIGTERM.
pub(crate) struct Wishes(Signal);

impl Wishes {
    /// Begins to listen: from now on SIGTERM does not end the program by itself.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub(crate) fn listen() -> Result<Self, Fail> {
        signal(SignalKind::terminate()).map(Self).map_err(Fail::machine)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = self.0.recv() => {}
        }
    }
}

/// Does something each time that Ctrl-C or SIGTERM comes, until the task is aborted.
///
/// # Errors
/// When signals cannot be listened to.
pub(crate) fn each_time(mut act: impl FnMut() + Send + 'static) -> Result<JoinHandle<()>, Fail> {
    let mut wishes = Wishes::listen()?;
    Ok(tokio::spawn(async move {
        loop {
            wishes.next().await;
            act();
        }
    }))
}
