//! Takes series in: looks at what is asked for, counts what their users have asked for before, and keeps them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bombproof_core::access::ProjectId;
use bombproof_core::id::{SeriesId, UserId};
use bombproof_core::quota::Counted;
use bombproof_core::submission::{Patches, Phase, Submission, VERSION};
use bombproof_store::register::{Entry, RegisterError};
use tokio::sync::OwnedMutexGuard;

use super::repositories::{RepositoryError, Shelf};
use super::{Coordinator, SubmitError};
use crate::audit;

/// How often an id is made anew that another series got in the same moment.
const TRIES: u32 = 100;

/// The users who are handing in a series just now: of each one series at a time is counted and accepted. Who waits for the
/// register holds up nobody else.
#[derive(Default)]
pub(super) struct Counting(Mutex<HashMap<UserId, Arc<tokio::sync::Mutex<()>>>>);

impl Counting {
    /// Waits until no other series of this user is being counted.
    async fn of(&self, user: &UserId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Who is through is forgotten: there may be any number of names.
            users.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(users.entry(user.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

/// Work with files, off the threads that others wait for.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SubmitError> + Send + 'static,
) -> Result<T, SubmitError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(lost(&error)))
}

/// What was to be done came to no end.
fn lost(error: &tokio::task::JoinError) -> SubmitError {
    SubmitError::Register(RegisterError::Unusable { place: "the register".to_owned(), detail: error.to_string() })
}

impl Coordinator {
    /// Takes a series in: it is kept when this returns, and goes on whatever becomes of the caller. `bytes` is the submission as it
    /// came. What it needs of git is there already. `owner` and `project`: whose it is, whatever it says itself.
    ///
    /// # Errors
    /// When it asks for what there is not, or cannot be kept.
    pub async fn submit(
        self: &Arc<Self>,
        submission: Submission,
        bytes: Vec<u8>,
        owner: UserId,
        project: ProjectId,
    ) -> Result<SeriesId, SubmitError> {
        // A client that goes away stops its own call; a series that the register has must be begun all the same.
        let taken = tokio::spawn(Arc::clone(self).take(submission, bytes, owner, project));
        taken.await.unwrap_or_else(|error| Err(lost(&error)))
    }

    async fn take(
        self: Arc<Self>,
        submission: Submission,
        bytes: Vec<u8>,
        owner: UserId,
        project: ProjectId,
    ) -> Result<SeriesId, SubmitError> {
        let (handed_in, this) = (Instant::now(), Arc::clone(&self));
        let shelf = Shelf { project, name: submission.repository.clone() };
        let looked = blocking(move || this.look_at(&submission, &shelf).map(|()| (submission, shelf.project)));
        let (submission, project) = looked.await?;
        let patches = match &submission.patches {
            Patches::Series(series) => series.patches.len(),
            Patches::Range { .. } => 0,
        };
        // Until the series is kept, or is not: the next one of this user counts it.
        let _turn = self.counting.of(&owner).await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_s = now.map_or(0, |now| now.as_secs());
        self.count(&owner, now_s).await?;
        let entry = Entry {
            id: SeriesId::default(),
            owner,
            project,
            name: submission.name,
            submitted_at_s: now_s,
            phase: Phase::Accepted,
            targets: submission.targets.iter().map(|target| target.name.to_string()).collect(),
            toolchains: None,
            patches: u32::try_from(patches).unwrap_or(u32::MAX),
            detail: String::new(),
            hint: String::new(),
        };
        let Entry { id, owner, project, name, .. } = self.keep(entry, bytes).await?;
        let accepted = format_args!("series {id} of {owner} in project {project}: '{name}' is accepted");
        audit::record(owner.as_str(), "submit", Some(&id), accepted);
        self.settings.metrics.accepted.add(submission.priority.into(), 1);
        self.leader.expect(&id, handed_in);
        self.begin(&id);
        Ok(id)
    }

    /// Puts a series into the register, under an id that no other one has.
    async fn keep(&self, mut entry: Entry, bytes: Vec<u8>) -> Result<Entry, RegisterError> {
        let bytes: Arc<[u8]> = bytes.into();
        let mut tries = 0;
        loop {
            entry.id = SeriesId((self.settings.new_id)().0);
            // The answer may be lost: the same is said again. Should the reign end meanwhile, the next one finds out.
            let (kept, submission) = (entry.clone(), Arc::clone(&bytes));
            match self.asked(move |register| register.accept(&kept, &submission)).await {
                // Two of one moment: the next moment is another one.
                Err(RegisterError::Taken { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(()) => return Ok(entry),
            }
        }
    }

    /// Whether a user may hand in another series.
    async fn count(&self, owner: &UserId, now_s: u64) -> Result<(), SubmitError> {
        let all = self.asked(|register| register.list()).await?;
        let theirs = all.iter().filter(|entry| entry.owner == *owner);
        let counted =
            theirs.map(|entry| Counted { open: !entry.phase.is_over(), submitted_at_s: entry.submitted_at_s });
        self.settings.quota.admit(counted, now_s).map_err(SubmitError::Enough)
    }

    /// What can be seen to be wrong at once.
    fn look_at(&self, submission: &Submission, shelf: &Shelf) -> Result<(), SubmitError> {
        let wrong = |what: String| Err(SubmitError::Request(what));
        if submission.version != VERSION {
            return wrong(format!(
                "the submission has version {}, this coordinator knows {VERSION}: use the same version of bombproof",
                submission.version
            ));
        }
        if submission.targets.is_empty() {
            return wrong("no target is given".to_owned());
        }
        if matches!(&submission.patches, Patches::Series(series) if series.patches.is_empty()) {
            return wrong(format!("'{}' holds no patch", submission.name));
        }
        let depot = self.settings.repositories.open(shelf)?;
        let to = match &submission.patches {
            Patches::Range { to } => Some(to),
            Patches::Series(_) => None,
        };
        match depot.lacks(&submission.commit, to).map_err(RepositoryError::from)? {
            Some(commit) => wrong(format!("commit {commit} is neither here nor in the pack, with all of its files")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
