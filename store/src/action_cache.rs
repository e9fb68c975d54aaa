//! What actions gave, by the digest of the action.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;

use crate::atomic::FileError;
use crate::table::SealedTable;

/// The kind and version of the files; changed whenever the meaning of a stored result changes.
const DOMAIN: &str = "bombproof/action-file/v1";

/// Keeps results of actions.
///
/// Laws, written once in `laws` and applied to every implementation: what was put is got, equal in every field; an action
/// that was never put gives `None`; a result that does not settle (see [`ActionResult::settles`]) is never kept; a damaged
/// entry is `None`, never an error and never another result; what was forgotten is not there.
pub trait ActionCache: Send + Sync {
    /// The result, if it is known and undamaged.
    ///
    /// # Errors
    /// When the cache cannot be read at all.
    fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, FileError>;

    /// Keeps a result; one that does not settle is not kept.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), FileError>;

    /// Drops a result that turned out to be wrong.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn forget(&self, action: &BlobDigest) -> Result<(), FileError>;
}

impl<A: ActionCache + ?Sized> ActionCache for Arc<A> {
    fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, FileError> {
        (**self).get(action)
    }

    fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), FileError> {
        (**self).put(action, result)
    }

    fn forget(&self, action: &BlobDigest) -> Result<(), FileError> {
        (**self).forget(action)
    }
}

/// Results as sealed files.
#[derive(Clone, Debug)]
pub struct FileActions(SealedTable<ActionResult>);

impl FileActions {
    /// Results in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self(SealedTable::at(folder, DOMAIN))
    }

    /// The files themselves.
    pub fn table(&self) -> &SealedTable<ActionResult> {
        &self.0
    }
}

impl ActionCache for FileActions {
    fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, FileError> {
        self.0.get(&action.hash)
    }

    fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), FileError> {
        if result.settles() { self.0.put(&action.hash, result) } else { Ok(()) }
    }

    fn forget(&self, action: &BlobDigest) -> Result<(), FileError> {
        self.0.forget(&action.hash)
    }
}

/// Results in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryActions(Mutex<HashMap<BlobDigest, ActionResult>>);

impl ActionCache for MemoryActions {
    fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, FileError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(action).cloned())
    }

    fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), FileError> {
        if result.settles() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*action, result.clone());
        }
        Ok(())
    }

    fn forget(&self, action: &BlobDigest) -> Result<(), FileError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(action);
        Ok(())
    }
}

/// The laws of every action cache. Every output is of [`laws::CONTENT`], which has to be stored before.
#[cfg(any(test, feature = "laws"))]
#[allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "these are tests, of other rooms too")]
pub mod laws {
    use bombproof_core::action::OutputFile;

    use super::*;

    /// The content of every output.
    pub const CONTENT: &[u8] = b"an object";

    /// A result with this exit code.
    pub fn result(exit: i32) -> ActionResult {
        let output =
            |path: &str, executable| OutputFile { path: path.to_owned(), blob: BlobDigest::of(CONTENT), executable };
        let outputs = vec![output("a.o", false), output("a", true)];
        ActionResult { exit, outputs, stderr: "a.c:1:1: warning: é\u{1}\n".to_owned(), cpu_us: 12, wall_us: 34 }
    }

    /// All of them.
    pub fn hold(cache: &dyn ActionCache) {
        let [one, other, killed] = ["one", "other", "killed"].map(|name| BlobDigest::of(name.as_bytes()));
        assert_eq!(cache.get(&one).unwrap(), None, "nothing was put");
        for (action, kept) in [(one, result(0)), (other, result(1))] {
            for _ in 0..2 {
                cache.put(&action, &kept).unwrap();
                assert_eq!(cache.get(&action).unwrap(), Some(kept.clone()));
            }
        }
        cache.forget(&one).unwrap();
        cache.forget(&one).unwrap();
        assert_eq!(cache.get(&one).unwrap(), None, "it was forgotten");
        assert_eq!(cache.get(&other).unwrap(), Some(result(1)), "and nothing else");
        for exit in [128, 137, 255, -1] {
            cache.put(&killed, &result(exit)).unwrap();
            assert_eq!(cache.get(&killed).unwrap(), None, "{exit} is never a result");
            cache.put(&other, &result(exit)).unwrap();
            assert_eq!(cache.get(&other).unwrap(), Some(result(1)), "and takes nothing away");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laws_hold() {
        laws::hold(&MemoryActions::default());
        let folder = tempfile::tempdir().unwrap();
        laws::hold(&FileActions::at(folder.path().to_owned()));
    }
}
