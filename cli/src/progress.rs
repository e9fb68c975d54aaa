//! What the user sees while it runs: one line for each target on a terminal, plain lines elsewhere, and bad news at once.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bombproof_core::id::PatchIndex;
use bombproof_core::outcome::{Audited, Outcome};
use bombproof_core::submission::Seen;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

/// Plain lines come at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(20);

/// A target on the screen.
struct Line {
    name: String,
    bar: ProgressBar,
    settled: usize,
    built: usize,
    broken: usize,
    started: Option<Instant>,
    failing: Vec<Vec<String>>,
}

/// Keeps the terminal from writing `^C` into the bars, which would then be cleared a line off; put back at the end.
struct NoEcho(Option<Termios>);

impl NoEcho {
    fn new() -> Self {
        let before = tcgetattr(std::io::stderr()).ok().filter(|_| in_foreground());
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_flags.remove(LocalFlags::ECHOCTL);
            let _ = tcsetattr(std::io::stderr(), SetArg::TCSADRAIN, &quiet);
        }
        Self(before)
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(before) = self.0.as_ref().filter(|_| in_foreground()) {
            let _ = tcsetattr(std::io::stderr(), SetArg::TCSADRAIN, before);
        }
    }
}

/// A process that is not in the foreground is stopped when it changes the terminal.
fn in_foreground() -> bool {
    tcgetpgrp(std::io::stderr()).is_ok_and(|group| group == getpgrp())
}

/// The screen.
pub(crate) struct Progress {
    subjects: Vec<String>,
    lines: Vec<Line>,
    screen: Option<MultiProgress>,
    total: usize,
    said: Instant,
    colour: bool,
    told: BTreeSet<(PatchIndex, String)>,
    _no_echo: Option<NoEcho>,
}

impl Progress {
    pub(crate) fn new(subjects: Vec<String>, names: Vec<String>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let screen = terminal.then(MultiProgress::new);
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let states = subjects.len();
        let style = ProgressStyle::with_template("  {prefix}  {bar:32.green/dim} {pos:>4}/{len:<4} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸━");
        let lines = names
            .into_iter()
            .map(|name| {
                let bar = match &screen {
                    Some(screen) => screen.add(ProgressBar::new(0).with_style(style.clone())),
                    None => ProgressBar::hidden(),
                };
                bar.set_prefix(format!("{name:width$}"));
                if terminal {
                    bar.enable_steady_tick(Duration::from_millis(500));
                }
                Line { name, bar, settled: 0, built: 0, broken: 0, started: None, failing: vec![Vec::new(); states] }
            })
            .collect();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self {
            subjects,
            lines,
            screen,
            total: 0,
            said: Instant::now(),
            colour,
            told: BTreeSet::new(),
            _no_echo: terminal.then(NoEcho::new),
        }
    }

    /// Takes an event in.
    pub(crate) fn show(&mut self, event: &Seen) {
        match event {
            Seen::Planned { states } => {
                self.total = *states;
                for line in &self.lines {
                    line.bar.set_length(u64::try_from(*states).unwrap_or(0));
                }
            }
            Seen::Started { target, state } => {
                let subject = self.subjects.get(state.as_usize()).cloned().unwrap_or_default();
                if let Some(line) = self.lines.get_mut(*target) {
                    line.started.get_or_insert_with(Instant::now);
                    let left = line.left(self.total);
                    line.bar.set_message(format!("{}{left}  {subject}", line.found()));
                }
            }
            Seen::Settled { target, state, outcome, cached } => self.settled(*target, *state, outcome, *cached),
            Seen::Audited { target, state, audited } => {
                let name = self.lines.get(*target).map(|line| line.name.clone()).unwrap_or_default();
                match audited {
                    Audited::Equal => self.say(&format!("  {name}: state {state} audited, plain make agrees"), false),
                    Audited::Different(what) => {
                        self.say(
                            &format!("! {name}: state {state}: plain make does NOT agree: {}", what.join("; ")),
                            true,
                        );
                    }
                    Audited::NotDone(why) => {
                        self.say(&format!("! {name}: state {state} not audited: {}", why.describe()), true);
                    }
                }
            }
        }
    }

    fn settled(&mut self, target: usize, state: PatchIndex, outcome: &Outcome, cached: bool) {
        let total = self.total;
        let patches = self.subjects.len().saturating_sub(1);
        let subject = self.subjects.get(state.as_usize()).cloned().unwrap_or_default();
        let Some(line) = self.lines.get_mut(target) else { return };
        line.settled += 1;
        line.built += usize::from(!cached);
        line.bar.inc(1);
        let mut news = None;
        match outcome {
            Outcome::Failed(failures) => {
                line.broken += 1;
                let before = state.previous().and_then(|before| line.failing.get(before.as_usize())).cloned();
                let before = before.unwrap_or_default();
                if let Some(first) = failures.iter().find(|failure| !before.contains(&failure.what)) {
                    let place =
                        if state == PatchIndex::BASE { "the base".to_owned() } else { format!("{state}/{patches}") };
                    // The same news of another target needs no second telling.
                    let words = if self.told.insert((state, first.message.clone())) {
                        format!(": {}", first.message)
                    } else {
                        " too".to_owned()
                    };
                    news = Some(format!("x {place} fails on {}{words}", line.name));
                }
                if let Some(slot) = line.failing.get_mut(state.as_usize()) {
                    *slot = failures.iter().map(|failure| failure.what.clone()).collect();
                }
            }
            Outcome::Trouble(trouble) => {
                news = Some(format!("! {state}/{patches} not judged on {}: {}", line.name, trouble.describe()));
            }
            Outcome::Built | Outcome::Skipped => {}
        }
        let left = line.left(total);
        line.bar.set_message(format!("{}{left}  {subject}", line.found()));
        if line.settled == total {
            line.bar.finish_with_message(format!("{}done", line.found()));
        }
        let name = line.name.clone();
        let settled = line.settled;
        let plain = format!("  {name}: {settled}/{total} {}{}", self.lines[target].found(), left.trim());
        if let Some(news) = news {
            self.say(&news, true);
        }
        if self.screen.is_none() && (self.said.elapsed() > PLAIN_EVERY || settled == total) {
            self.said = Instant::now();
            self.say(plain.trim_end(), false);
        }
    }

    fn say(&self, text: &str, bad: bool) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let shown = if bad && self.colour {
            format!("  \u{1b}[1;31m{text}\u{1b}[0m")
        } else if bad {
            format!("  {text}")
        } else {
            text
        };
        match &self.screen {
            // Above the bars, where it stays.
            Some(screen) => {
                let _ = screen.println(shown);
            }
            None => crate::say(&shown),
        }
    }

    /// Takes the bars off the screen.
    pub(crate) fn end(self) {
        for line in &self.lines {
            line.bar.finish_and_clear();
        }
    }
}

impl Line {
    fn found(&self) -> String {
        if self.broken == 0 { String::new() } else { format!("{} broken  ", self.broken) }
    }

    /// Time left, from the time of the states so far; the first one (a whole build) tells nothing of the others.
    fn left(&self, total: usize) -> String {
        let Some(started) = self.started.filter(|_| self.built > 2 && self.settled < total) else {
            return String::new();
        };
        let each = started.elapsed().as_secs_f64() / f64::from(u32::try_from(self.built).unwrap_or(1));
        let left = each * f64::from(u32::try_from(total - self.settled).unwrap_or(0));
        let ms = Duration::from_secs_f64(left).as_millis();
        format!("{} left", bombproof_core::report::text::clock(u64::try_from(ms).unwrap_or(0)))
    }
}
