//! Who did what: events of the log with a target of their own, which an operator may keep in a file apart.
//!
//! Such an event is at the same time the line of the log that says what happened. Fields are for programs: `who`, `what`
//! and `series`; the sentence is for people. No event holds a token or the text of a patch.

use std::fmt::Arguments;

use bombproof_core::id::SeriesId;
use tracing::info;

/// The target of these events.
pub const TARGET: &str = "audit";

/// Writes down that somebody did something: `what` is a verb, `sentence` says it in words.
pub fn record(who: &str, what: &str, series: Option<&SeriesId>, sentence: Arguments<'_>) {
    let series = series.map(SeriesId::as_str);
    info!(target: TARGET, who, what, series, "{sentence}");
}
