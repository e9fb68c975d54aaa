//! A series of a farm on the screen, like a run on this machine.

use std::time::Duration;

use bombproof_proto::farm::wire;
use tonic::{Code, Status};
use wire::watch_response::What;

use super::{Farm, seen};
use crate::fail::Fail;
use crate::progress::Progress;
use crate::say;

/// A coordinator that is away for so many tries (some minutes) is given up.
const TRIES: u32 = 60;
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a watcher has seen and said so far.
#[derive(Default)]
struct Watching {
    progress: Option<Progress>,
    outlined: bool,
    waits: String,
}

impl Watching {
    /// Takes a message in; gives how the series ended, if it did.
    fn take(&mut self, what: What) -> Option<wire::Ended> {
        match what {
            What::Outline(outline) => {
                if !std::mem::replace(&mut self.outlined, true) {
                    outline.lines.iter().for_each(|line| say(line));
                }
                self.end();
                self.progress = Some(Progress::new(outline.subjects, outline.targets));
            }
            What::Event(text) => {
                if let (Some(progress), Some(seen)) = (&mut self.progress, seen(&text)) {
                    progress.show(&seen);
                }
            }
            What::Alive(wire::Alive { why }) => {
                if !why.is_empty() && why != self.waits {
                    say(&format!("  {why}"));
                    self.waits = why;
                }
            }
            What::Ended(ended) => return Some(ended),
        }
        None
    }

    fn end(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.end();
        }
    }
}

impl Farm {
    /// Watches a series until it is over; fails where it came to no report. A coordinator that goes away meanwhile is waited for.
    /// `detach`: Ctrl-C leaves the series to itself.
    pub(super) async fn watch(&self, series: &str, detach: bool) -> Result<(), Fail> {
        let mut watching = Watching::default();
        let mut tries = 0;
        let ended = loop {
            let heard = tokio::select! {
                heard = self.listen(series, &mut watching) => heard,
                _ = tokio::signal::ctrl_c(), if detach => {
                    watching.end();
                    return Err(Fail::machine(format!("the series {series} goes on without you")).hint(Some(format!(
                        "'bombproof watch {series} --coordinator {0}' shows it again, 'bombproof cancel {series} --coordinator {0}' stops it",
                        self.url
                    ))));
                }
            };
            match heard {
                Ok(Some(ended)) => break ended,
                // It broke off.
                Ok(None) => tries = 0,
                Err(status) if may_pass(&status) && tries < TRIES => {}
                Err(status) => {
                    watching.end();
                    return Err(self.failed(&status));
                }
            }
            if tries == 0 {
                watching.end();
                say("  the coordinator does not answer: waiting for it");
            }
            tries += 1;
            tokio::time::sleep((Duration::from_millis(200) * tries).min(LONGEST_PAUSE)).await;
        };
        watching.end();
        let no_report = |fail: Fail| fail.hint(Some(ended.hint.clone()).filter(|hint| !hint.is_empty()));
        match ended.state() {
            wire::State::Finished => Ok(()),
            wire::State::Cancelled => {
                say(&format!("  the series was stopped: {}", ended.detail));
                Ok(())
            }
            wire::State::Refused => Err(no_report(Fail::request(&ended.detail))),
            wire::State::Failed | wire::State::Unspecified | wire::State::Accepted | wire::State::Running => {
                Err(no_report(Fail::machine(format!("the farm could not carry it out: {}", ended.detail))))
            }
        }
    }

    /// Listens to one answer to its end; `None`: it ended before the series did.
    async fn listen(&self, series: &str, watching: &mut Watching) -> Result<Option<wire::Ended>, Status> {
        let request = wire::WatchRequest { series: series.to_owned() };
        let mut stream = self.client.clone().watch(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            if let Some(ended) = message.what.and_then(|what| watching.take(what)) {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }
}

fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Aborted | Code::DeadlineExceeded | Code::Internal
    )
}
