//! Settled results of states, by what was built and for what.

use std::collections::HashMap;
use std::sync::Mutex;

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::id::Oid;
use bombproof_core::outcome::{Outcome, StateResult};
use serde::{Deserialize, Serialize};

use crate::atomic::FileError;

mod files;

pub use files::FileResults;

/// Changed whenever the meaning of a stored result changes: older results are then not found.
///
/// A version of bombproof that meets results of another version ignores them and builds again.
pub const RULES_VERSION: u32 = 4;

/// Names a result: a target (with its toolchain) and a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResultKey(Digest);

impl ResultKey {
    /// The key of a target's digest and a tree, under the rules of this version.
    pub fn new(target: &Digest, tree: &Oid) -> Self {
        let builder = DigestBuilder::new("bombproof/result/v2");
        let builder = builder.field(&RULES_VERSION.to_be_bytes()).field(target.to_string().as_bytes());
        Self(builder.field(tree.as_str().as_bytes()).finish())
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

/// Keeps settled results.
///
/// Laws, written once in `laws` and applied to every implementation: what was put is got, equal in every field; a
/// key that was never put gives `None`; a result whose outcome is trouble is never kept, because it says nothing of the
/// source; a damaged entry is `None`, never an error and never another result; what was forgotten is not there.
///
/// A store may keep a result as its difference to another one. Damage to that one, a new result in its place, and
/// forgetting it may take what builds on it along: `None` then, to be built again, never another result.
pub trait ResultStore: Send + Sync {
    /// The result, if it is known and undamaged.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    fn get(&self, key: &ResultKey) -> Result<Option<StateResult>, FileError>;

    /// Keeps a result; one that is trouble is not kept. `before` names one that it is like, if any: that of the state
    /// before, on the same target. It need not be there.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    fn put_after(&self, key: &ResultKey, result: &StateResult, before: Option<&ResultKey>) -> Result<(), FileError>;

    /// Keeps a result that is like no other.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    fn put(&self, key: &ResultKey, result: &StateResult) -> Result<(), FileError> {
        self.put_after(key, result, None)
    }

    /// Drops a result that turned out to be wrong.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn forget(&self, key: &ResultKey) -> Result<(), FileError>;
}

/// Whether a result may be kept: only answers about the source are.
fn settles(result: &StateResult) -> bool {
    match &result.outcome {
        Outcome::Built | Outcome::Failed(_) | Outcome::Skipped => true,
        Outcome::Trouble(_) => false,
    }
}

/// Results in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryResults(Mutex<HashMap<ResultKey, StateResult>>);

impl ResultStore for MemoryResults {
    fn get(&self, key: &ResultKey) -> Result<Option<StateResult>, FileError> {
        Ok(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(key).cloned())
    }

    fn put_after(&self, key: &ResultKey, result: &StateResult, _: Option<&ResultKey>) -> Result<(), FileError> {
        if settles(result) {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(*key, result.clone());
        }
        Ok(())
    }

    fn forget(&self, key: &ResultKey) -> Result<(), FileError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(key);
        Ok(())
    }
}

/// The laws of every result store.
#[cfg(test)]
pub(crate) mod laws {
    use bombproof_core::outcome::{Cost, Failure, LinkCheck, Stage, Trouble, Unit};

    use super::*;

    pub(crate) fn result(outcome: Outcome) -> StateResult {
        StateResult {
            outcome,
            inputs: ["kernel/fork.c"].into(),
            config: [("SMP", "y")].into(),
            cost: Cost { compiles: 3, ..Cost::default() },
            link: LinkCheck::Symbols,
            why: "the link sees no difference".to_owned(),
            made: [(
                "a.o".to_owned(),
                bombproof_core::outcome::Asked {
                    because: "a.c".to_owned(),
                    known: bombproof_core::kbuild::record::Known::Cached,
                },
            )]
            .into(),
            ..StateResult::trouble(Trouble::Interrupted)
        }
    }

    /// As [`result`], with so many units that a difference is worth it; `changed` names the ones that are otherwise.
    pub(crate) fn large(outcome: Outcome, changed: &[u8]) -> StateResult {
        let mut large = result(outcome);
        for number in 0..200 {
            let object = Some(Digest::of(&[number, u8::from(changed.contains(&number))]));
            let source = format!("drivers/{number}.c");
            let unit = Unit { source, command: Digest::of(b"cc"), ok: true, diagnostics: Vec::new(), object };
            large.units.insert(format!("drivers/{number}.o").into(), unit);
        }
        large
    }

    pub(crate) fn key(tree: char) -> ResultKey {
        ResultKey::new(&Digest::of(b"target"), &Oid::parse(&tree.to_string().repeat(40)).unwrap())
    }

    pub(crate) fn hold(store: &dyn ResultStore) {
        assert_eq!(store.get(&key('a')).unwrap(), None, "nothing was put");
        let failure =
            Failure { stage: Stage::Compile, what: "a.o".to_owned(), message: "é\u{1}".to_owned(), werror: true };
        let failed = result(Outcome::Failed(vec![failure]));
        for (tree, kept) in [('a', result(Outcome::Built)), ('b', failed), ('c', result(Outcome::Skipped))] {
            store.put(&key(tree), &kept).unwrap();
            assert_eq!(store.get(&key(tree)).unwrap(), Some(kept.clone()));
            store.put(&key(tree), &kept).unwrap();
            assert_eq!(store.get(&key(tree)).unwrap(), Some(kept), "putting again changes nothing");
        }
        store.forget(&key('a')).unwrap();
        store.forget(&key('a')).unwrap();
        assert_eq!(store.get(&key('a')).unwrap(), None, "it was forgotten");
        assert!(store.get(&key('b')).unwrap().is_some(), "and nothing else");
        for trouble in [Trouble::Interrupted, Trouble::Timeout { limit_s: 1 }] {
            store.put(&key('d'), &result(Outcome::Trouble(trouble))).unwrap();
            assert_eq!(store.get(&key('d')).unwrap(), None, "trouble is never a result");
        }
        like_others(store);
    }

    /// What was put after another one is got like any other, whatever became of that one.
    fn like_others(store: &dyn ResultStore) {
        let chain: Vec<(char, StateResult)> =
            ('4'..='9').zip(0..).map(|(tree, number)| (tree, large(Outcome::Built, &[number, number + 1]))).collect();
        let mut before = key('f');
        for (tree, kept) in &chain {
            store.put_after(&key(*tree), kept, Some(&before)).unwrap();
            before = key(*tree);
        }
        for (tree, kept) in chain.iter().chain(chain.iter().rev()) {
            assert_eq!(store.get(&key(*tree)).unwrap().as_ref(), Some(kept));
        }
        let right_or_gone = || {
            for (tree, kept) in &chain[3..] {
                assert!(store.get(&key(*tree)).unwrap().is_none_or(|found| found == *kept), "{tree}");
            }
        };
        store.put_after(&key('6'), &large(Outcome::Skipped, &[77]), Some(&key('9'))).unwrap();
        assert_eq!(store.get(&key('6')).unwrap(), Some(large(Outcome::Skipped, &[77])), "after what was built on it");
        right_or_gone();
        store.put_after(&key('6'), &chain[2].1, Some(&key('6'))).unwrap();
        assert_eq!(store.get(&key('6')).unwrap().as_ref(), Some(&chain[2].1), "after itself");
        right_or_gone();
        store.forget(&key('6')).unwrap();
        assert_eq!(store.get(&key('6')).unwrap(), None);
        right_or_gone();
        store.put_after(&key('6'), &large(Outcome::Built, &[99]), Some(&key('5'))).unwrap();
        right_or_gone();
        for (tree, kept) in &chain[3..] {
            store.put_after(&key(*tree), kept, Some(&key('6'))).unwrap();
            assert_eq!(store.get(&key(*tree)).unwrap().as_ref(), Some(kept), "built again it is there again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laws_hold_in_memory() {
        laws::hold(&MemoryResults::default());
    }
}
