//! A register whose troubles are counted.

use std::sync::Arc;
use std::time::Duration;

use bombproof_core::id::SeriesId;
use bombproof_metrics::{Counts, labels};
use bombproof_store::register::{Entry, Register, RegisterError};

/// Asks another register, and counts what goes wrong with it.
pub(super) struct Counted {
    pub(super) register: Arc<dyn Register>,
    pub(super) errors: Counts<labels::RegisterError>,
}

/// Counts an error, if it is one of the register and not of who asked.
pub(super) fn count(errors: &Counts<labels::RegisterError>, error: &RegisterError) {
    let label = match error {
        RegisterError::Away { .. } => labels::RegisterError::Away,
        RegisterError::Deposed => labels::RegisterError::Deposed,
        RegisterError::Emptied { .. } => labels::RegisterError::Emptied,
        RegisterError::Newer { .. } => labels::RegisterError::Newer,
        RegisterError::Unusable { .. } => labels::RegisterError::Unusable,
        RegisterError::Taken { .. } | RegisterError::Unknown { .. } => return,
    };
    errors.add(label, 1);
}

impl Counted {
    fn counted<T>(&self, said: Result<T, RegisterError>) -> Result<T, RegisterError> {
        said.inspect_err(|error| count(&self.errors, error))
    }
}

impl Register for Counted {
    fn accept(&self, entry: &Entry, submission: &[u8]) -> Result<(), RegisterError> {
        self.counted(self.register.accept(entry, submission))
    }

    fn change(&self, id: &SeriesId, change: &mut dyn FnMut(&mut Entry)) -> Result<Entry, RegisterError> {
        self.counted(self.register.change(id, change))
    }

    fn entry(&self, id: &SeriesId) -> Result<Option<Entry>, RegisterError> {
        self.counted(self.register.entry(id))
    }

    fn list(&self) -> Result<Vec<Entry>, RegisterError> {
        self.counted(self.register.list())
    }

    fn submission(&self, id: &SeriesId) -> Result<Option<Vec<u8>>, RegisterError> {
        self.counted(self.register.submission(id))
    }

    fn begin(&self, lease: Duration) -> Result<Option<u64>, RegisterError> {
        self.counted(self.register.begin(lease))
    }

    fn renew(&self, lease: Duration) -> Result<(), RegisterError> {
        self.counted(self.register.renew(lease))
    }

    fn end(&self) -> Result<(), RegisterError> {
        self.counted(self.register.end())
    }
}
