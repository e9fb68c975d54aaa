//! An action cache that serves only results whose outputs can be had.

use std::sync::Arc;

use bombproof_core::action::ActionResult;
use bombproof_core::digest::BlobDigest;

use crate::action_cache::ActionCache;
use crate::atomic::FileError;
use crate::cas::Cas;

/// Serves a result only when every output is in the store, and keeps it only then.
///
/// The outputs may still be evicted between the answer and their use; who cannot allow that pins them before asking again.
pub struct Complete<A> {
    actions: A,
    cas: Arc<dyn Cas>,
}

impl<A> Complete<A> {
    /// Results of `actions`, with their outputs in `cas`.
    pub fn new(actions: A, cas: Arc<dyn Cas>) -> Self {
        Self { actions, cas }
    }

    fn complete(&self, result: &ActionResult) -> bool {
        let blobs: Vec<BlobDigest> = result.outputs.iter().map(|output| output.blob).collect();
        self.cas.missing(&blobs).is_empty()
    }
}

impl<A: ActionCache> ActionCache for Complete<A> {
    fn get(&self, action: &BlobDigest) -> Result<Option<ActionResult>, FileError> {
        Ok(self.actions.get(action)?.filter(|result| self.complete(result)))
    }

    fn put(&self, action: &BlobDigest, result: &ActionResult) -> Result<(), FileError> {
        if self.complete(result) { self.actions.put(action, result) } else { Ok(()) }
    }

    fn forget(&self, action: &BlobDigest) -> Result<(), FileError> {
        self.actions.forget(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action_cache::{FileActions, MemoryActions, laws};
    use crate::cas::{DiskCas, MemoryCas};

    #[test]
    fn the_laws_hold() {
        let folder = tempfile::tempdir().unwrap();
        let stores: [Arc<dyn Cas>; 2] =
            [Arc::new(MemoryCas::default()), Arc::new(DiskCas::at(folder.path().join("cas")))];
        for (number, cas) in stores.into_iter().enumerate() {
            cas.put(laws::CONTENT).unwrap();
            laws::hold(&Complete::new(MemoryActions::default(), Arc::clone(&cas)));
            laws::hold(&Complete::new(FileActions::at(folder.path().join(number.to_string())), cas));
        }
    }

    #[test]
    fn a_result_without_its_outputs_is_neither_kept_nor_served() {
        let cas: Arc<dyn Cas> = Arc::new(MemoryCas::default());
        let actions = Complete::new(MemoryActions::default(), Arc::clone(&cas));
        let action = BlobDigest::of(b"action");
        actions.put(&action, &laws::result(0)).unwrap();
        cas.put(laws::CONTENT).unwrap();
        assert_eq!(actions.get(&action).unwrap(), None, "it was not kept");
        actions.put(&action, &laws::result(0)).unwrap();
        assert_eq!(actions.get(&action).unwrap(), Some(laws::result(0)));
        cas.gc(0).unwrap();
        assert_eq!(actions.get(&action).unwrap(), None, "it is not served");
        cas.put(laws::CONTENT).unwrap();
        assert_eq!(actions.get(&action).unwrap(), Some(laws::result(0)), "what it gave was made again");
    }
}
