//! Whose failure a failing state is.
//!
//! A failure belongs to the patch whose state shows it first after a state that did not. One that is there since the base
//! blames no patch; one behind a state of which nothing is known blames nobody either.

use std::collections::BTreeMap;

use crate::id::PatchIndex;
use crate::outcome::{Failure, Outcome, Stage, StateResult};
use crate::report::model::{FailureInfo, Verdict};

/// At most this many failed things are named in a report.
const MAX_NAMED: usize = 50;

/// The verdict of a failing state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// [`Verdict::Fails`], or [`Verdict::NotJudged`] where the base is to blame.
    pub verdict: Verdict,
    /// What a reader must know.
    pub reason: Option<String>,
    /// The failure; its log is not filled in.
    pub failure: FailureInfo,
}

/// Where a failure that is still there came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Patch(PatchIndex),
    Base,
    /// The state before it gave no answer.
    Unknown,
}

/// For each state: what its failure is, and since when; `None` for states that do not fail.
pub fn history(results: &[Option<&StateResult>]) -> Vec<Option<Found>> {
    let mut origins: BTreeMap<String, Origin> = BTreeMap::new();
    // Nothing is known before the base; what a gap hides cannot be blamed on the patch after it.
    let mut before_known = true;
    // The state before failed so early that what lies behind was not looked at.
    let mut before_hidden: Option<Origin> = None;
    let mut found = Vec::with_capacity(results.len());
    for (index, result) in results.iter().enumerate() {
        let state = PatchIndex::from_usize(index);
        match result.map(|result| &result.outcome) {
            Some(Outcome::Built) => {
                (before_known, before_hidden) = (true, None);
                origins.clear();
                found.push(None);
            }
            Some(Outcome::Failed(failures)) => {
                let fresh = match (index, before_known, before_hidden) {
                    (0, _, _) => Origin::Base,
                    (_, false, _) => Origin::Unknown,
                    // Behind a broken preparation: whoever broke that answers for not knowing.
                    (_, true, Some(_)) => Origin::Unknown,
                    (_, true, None) => Origin::Patch(state),
                };
                let now: BTreeMap<String, Origin> = failures
                    .iter()
                    .map(|failure| (failure.what.clone(), origins.get(&failure.what).copied().unwrap_or(fresh)))
                    .collect();
                found.push(Some(verdict(state, failures, &now)));
                let early = failures.iter().find(|failure| failure.stage <= Stage::Prepare);
                before_hidden = early.and_then(|failure| now.get(&failure.what).copied());
                before_known = true;
                origins = now;
            }
            Some(Outcome::Skipped | Outcome::Trouble(_)) | None => {
                before_known = false;
                found.push(None);
            }
        }
    }
    found
}

fn verdict(state: PatchIndex, failures: &[Failure], origins: &BTreeMap<String, Origin>) -> Found {
    let of = |wanted: fn(Origin, PatchIndex) -> bool| -> Vec<&Failure> {
        failures.iter().filter(|it| origins.get(&it.what).is_some_and(|origin| wanted(*origin, state))).collect()
    };
    let own = of(|origin, state| origin == Origin::Patch(state));
    let older = of(|origin, state| matches!(origin, Origin::Patch(patch) if patch != state));
    let base = of(|origin, _| origin == Origin::Base);
    let unknown = of(|origin, _| origin == Origin::Unknown);
    let still = |count: usize| format!("{count} older failure{}", if count == 1 { " is" } else { "s are" });
    if !own.is_empty() {
        let rest = failures.len() - own.len();
        let reason = (rest > 0).then(|| format!("{} still there", still(rest)));
        return Found { verdict: Verdict::Fails, reason, failure: info(&own, None) };
    }
    if !older.is_empty() {
        let since = older.iter().filter_map(|it| match origins.get(&it.what) {
            Some(Origin::Patch(patch)) => Some(*patch),
            Some(Origin::Base | Origin::Unknown) | None => None,
        });
        return Found { verdict: Verdict::Fails, reason: None, failure: info(&older, since.min()) };
    }
    if !unknown.is_empty() {
        let reason = "it does not build, but the state before could not be judged: the failure may be older";
        let failure = info(&unknown, None);
        return Found { verdict: Verdict::NotJudged, reason: Some(reason.to_owned()), failure };
    }
    let failure = info(&base, None);
    if state == PatchIndex::BASE {
        let reason = "the base does not build: no patch is blamed for it".to_owned();
        return Found { verdict: Verdict::Fails, reason: Some(reason), failure };
    }
    let reason = format!("the base fails here already ({}: {})", failure.what.join(", "), failure.message);
    Found {
        verdict: Verdict::NotJudged,
        reason: Some(reason),
        failure: FailureInfo { since: Some(PatchIndex::BASE), ..failure },
    }
}

fn info(failures: &[&Failure], since: Option<PatchIndex>) -> FailureInfo {
    let first = failures.iter().min_by_key(|failure| failure.stage);
    let werror = !failures.is_empty() && failures.iter().all(|failure| failure.werror);
    let message = first.map(|failure| failure.message.clone()).unwrap_or_default();
    FailureInfo {
        stage: first.map_or(Stage::Compile, |failure| failure.stage),
        message: if werror { format!("a warning made an error: {message}") } else { message },
        log: String::new(),
        what: failures.iter().map(|failure| failure.what.clone()).take(MAX_NAMED).collect(),
        since,
        werror,
    }
}
