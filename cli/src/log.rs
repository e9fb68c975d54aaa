//! The log of a coordinator or a worker: an event a line, as text for people or as JSON for programs.
//!
//! The rooms say what happens as events of `tracing`: a sentence, and fields (`series`, `job`, `worker`, `attempt`) that say
//! once more what is in it. Where that goes is decided here.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use bombproof_coordinator::audit;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt as lines};

use crate::args::{LogArgs, LogFormat};
use crate::check::timestamp;
use crate::fail::Fail;
use crate::say;

/// Where a level is named for programs that are started by others.
const VARIABLE: &str = "BOMBPROOF_LOG";
/// What the targets of our own events begin with.
const OURS: &str = "bombproof";

/// How this process writes its log; nothing: it has none.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Begins the log of this process.
///
/// # Errors
/// When the level is none, or the file for the audit cannot be written.
pub(crate) fn begin(args: &LogArgs, audit_log: Option<&Path>) -> Result<(), Fail> {
    let shown = match (&args.log_level, std::env::var(VARIABLE)) {
        (Some(level), _) => levels("--log-level", level)?,
        (None, Ok(level)) if !level.is_empty() => levels(VARIABLE, &level)?,
        (None, _) => levels(VARIABLE, "info")?,
    };
    let audit_log = match audit_log {
        Some(path) => Some(AuditFile(Mutex::new(append(path)?))),
        None => None,
    };
    if let Err(error) =
        tracing::subscriber::set_global_default(subscriber(args.log_format, shown, io::stderr, audit_log))
    {
        return Err(Fail::machine(error));
    }
    // It is set once: a process is one service.
    let _ = FORMAT.set(args.log_format);
    Ok(())
}

fn append(path: &Path) -> Result<File, Fail> {
    File::options().create(true).append(true).open(path).map_err(|error| {
        Fail::request(format!("cannot write '{}', the file for the audit: {error}", path.display()))
            .hint(Some("give --audit-log a file in a folder that is there"))
    })
}

/// What is shown. A level alone is about our events: of the libraries below only what is wrong is shown.
fn levels(from: &str, text: &str) -> Result<Targets, Fail> {
    if let Ok(level) = text.parse::<LevelFilter>() {
        let others = level.min(LevelFilter::WARN);
        return Ok(Targets::new().with_default(others).with_target(OURS, level).with_target(audit::TARGET, level));
    }
    let wrong = |why: String| {
        Fail::request(format!("{from}: '{text}' is no level{why}"))
            .hint(Some("error, warn, info, debug, trace or off; or TARGET=LEVEL,TARGET=LEVEL"))
    };
    // One word would be taken for a target of which everything is shown.
    if !text.contains('=') {
        return Err(wrong(String::new()));
    }
    text.parse().map_err(|error| wrong(format!(": {error}")))
}

/// Takes events, and writes each to where it belongs. What is for the audit goes to its file whatever level is shown.
fn subscriber<W, A>(
    format: LogFormat,
    shown: Targets,
    writer: W,
    audit_log: Option<A>,
) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    A: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (mut text, mut json) = (None, None);
    match format {
        LogFormat::Text => text = Some(lines::layer().event_format(Sentences).with_writer(writer).with_filter(shown)),
        LogFormat::Json => {
            json = Some(lines::layer().json().flatten_event(true).with_writer(writer).with_filter(shown));
        }
    }
    let kept = audit_log.map(|file| {
        let only = Targets::new().with_target(audit::TARGET, LevelFilter::TRACE);
        lines::layer().json().flatten_event(true).with_writer(file).with_filter(only)
    });
    tracing_subscriber::registry().with(text).with(json).with(kept)
}

/// The file that the audit is kept in. What is written is on disk when the event is over.
struct AuditFile(Mutex<File>);

impl<'a> MakeWriter<'a> for AuditFile {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &AuditFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let done = file.write_all(line).and_then(|()| file.sync_data());
        if let Err(error) = &done {
            // Whoever looks after the farm has to hear of it: the event itself is in the log.
            say(&format!("error: the audit cannot be written: {error}"));
        }
        done.map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line for people: a time and the sentence, with what is wrong marked as that. Fields of ours say what is in the sentence;
/// those of libraries do not, and are shown.
struct Sentences;

impl<S, N> FormatEvent<S, N> for Sentences
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        let ours = about.target().starts_with(OURS) || about.target() == audit::TARGET;
        let mut sentence = Sentence { text: String::new(), fields: String::new() };
        event.record(&mut sentence);
        write!(out, "{} ", timestamp(SystemTime::now()))?;
        match *about.level() {
            Level::ERROR => out.write_str("error: ")?,
            Level::WARN => out.write_str("warning: ")?,
            _ => {}
        }
        if !ours {
            write!(out, "{}: ", about.target())?;
        }
        one_line(&mut out, &sentence.text)?;
        if !ours {
            one_line(&mut out, &sentence.fields)?;
        }
        writeln!(out)
    }
}

/// What users named may hold anything: nothing of it begins a line of its own.
fn one_line(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() { write!(out, "{}", c.escape_default())? } else { out.write_char(c)? }
    }
    Ok(())
}

struct Sentence {
    text: String,
    fields: String,
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes everything.
        let _ = if field.name() == "message" {
            write!(self.text, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

/// Says where a service listens: whoever started it may wait for this line.
pub(crate) fn listening(address: &SocketAddr) {
    match FORMAT.get() {
        Some(LogFormat::Json) => tracing::info!(%address, "listening on {address}"),
        Some(LogFormat::Text) | None => say(&format!("listening on {address}")),
    }
}

/// Says why this process ends.
pub(crate) fn fail(fail: &Fail) {
    match FORMAT.get() {
        Some(LogFormat::Json) => {
            let (message, hint) = fail.parts();
            tracing::error!(hint, "{message}");
        }
        Some(LogFormat::Text) | None => say(&fail.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing::{debug, error, info, warn};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(format: LogFormat, level: &str) -> (String, String) {
        let (log, audited) = (Kept::default(), Kept::default());
        let subscriber = subscriber(format, levels("--log-level", level).unwrap(), log.clone(), Some(audited.clone()));
        tracing::subscriber::with_default(subscriber, || {
            info!(series = "s1", "series s1 goes on");
            debug!("attempt 1 begins");
            warn!(worker = "w", "worker 'w' is not heard any more");
            error!(target: "h2::proto", code = 7, "broken\nframe");
            info!(target: "h2::proto", "chatter");
            audit::record("ann", "submit", Some(&"s2".into()), format_args!("series s2 of ann: 'a\nb' is accepted"));
        });
        let text = |kept: &Kept| String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        (text(&log), text(&audited))
    }

    #[test]
    fn text_is_a_sentence_a_line() {
        let (log, _) = said(LogFormat::Text, "info");
        let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        let want = [
            "series s1 goes on",
            "warning: worker 'w' is not heard any more",
            r"error: h2::proto: broken\nframe code=7",
            r"series s2 of ann: 'a\nb' is accepted",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn json_is_an_object_a_line_with_the_fields_in_it() {
        let (log, _) = said(LogFormat::Json, "debug");
        let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), 5);
        assert_eq!((&events[0]["series"], &events[0]["level"]), (&"s1".into(), &"INFO".into()));
        assert_eq!(events[0]["message"], "series s1 goes on");
        assert_eq!(events[1]["level"], "DEBUG");
        assert_eq!((&events[4]["target"], &events[4]["who"]), (&"audit".into(), &"ann".into()));
        for event in &events {
            assert!(event["timestamp"].as_str().unwrap().ends_with('Z') && event["target"].is_string(), "{event}");
        }
    }

    #[test]
    fn the_audit_is_kept_whatever_is_shown() {
        for level in ["info", "off", "audit=off,bombproof=debug"] {
            let (log, audited) = said(LogFormat::Text, level);
            let events: Vec<serde_json::Value> =
                audited.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(events.len(), 1, "{audited}");
            assert_eq!((&events[0]["what"], &events[0]["series"]), (&"submit".into(), &"s2".into()));
            assert_eq!(log.is_empty(), level == "off", "{log}");
        }
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        for (text, good) in [("info", true), ("bombproof_worker=trace,warn", true), ("loud", false), ("a=b", false)] {
            let levels = levels("--log-level", text);
            assert_eq!(levels.is_ok(), good, "{text}");
            if let Err(fail) = levels {
                assert_eq!(fail.code, crate::fail::WRONG_REQUEST);
            }
        }
    }
}
