//! Results by what a compiler sees of its files: a second chance where the digest of the action is not known.

use std::path::PathBuf;

use bombproof_core::action::ActionResult;
use bombproof_core::digest::Digest;

use crate::atomic::FileError;
use crate::table::SealedTable;

/// The kind and version of the files; changed whenever the meaning of a stored result, or of its key, changes.
const DOMAIN: &str = "bombproof/token-file/v1";

/// Results by the digest of a compile's tokens, as sealed files. Like an action cache, it never keeps a result that does not
/// settle.
#[derive(Clone, Debug)]
pub struct TokenResults(SealedTable<ActionResult>);

impl TokenResults {
    /// Results in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self(SealedTable::at(folder, DOMAIN))
    }

    /// The files themselves.
    pub fn table(&self) -> &SealedTable<ActionResult> {
        &self.0
    }

    /// The result, if it is known and undamaged.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn get(&self, tokens: &Digest) -> Result<Option<ActionResult>, FileError> {
        self.0.get(tokens)
    }

    /// Keeps a result; one that does not settle is not kept.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    pub fn put(&self, tokens: &Digest, result: &ActionResult) -> Result<(), FileError> {
        if result.settles() { self.0.put(tokens, result) } else { Ok(()) }
    }

    /// Drops a result that turned out to be wrong.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, tokens: &Digest) -> Result<(), FileError> {
        self.0.forget(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action_cache::laws::result;

    #[test]
    fn what_settles_is_kept_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = TokenResults::at(folder.path().to_owned());
        let key = Digest::of(b"tokens");
        tokens.put(&key, &result(137)).unwrap();
        assert_eq!(tokens.get(&key).unwrap(), None);
        tokens.put(&key, &result(1)).unwrap();
        assert_eq!(tokens.get(&key).unwrap(), Some(result(1)));
        tokens.forget(&key).unwrap();
        assert_eq!(tokens.get(&key).unwrap(), None);
    }
}
