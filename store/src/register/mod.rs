//! The register of a farm: every series that was accepted, whose it is and how it stands.
//!
//! A series is in the register before its user is told that it was accepted, and stays there; what a coordinator was doing when
//! it died is begun again by the next one from what the register says. What single states and actions gave is not kept here
//! but where results are.

use std::time::Duration;

use bombproof_core::access::ProjectId;
use bombproof_core::id::{SeriesId, UserId};
use bombproof_core::submission::Phase;
use bombproof_core::target::Toolchain;
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod file;
mod place;
mod redis;

pub use self::redis::{RedisPlace, RedisRegister};
pub use file::FileRegister;
pub use place::Place;

/// The version of what is stored. An older program does not open the register of a newer one, so that it cannot lose what it
/// does not know. One that is opened and reigned over is of the schema of who reigns from then on.
///
/// 2: series are of projects. Those of 1 are of the default one.
pub const SCHEMA: u64 = 2;

/// The register could not be read or written.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// The disk, or the file is damaged.
    #[error("the register of series '{place}' cannot be used: {detail}")]
    Unusable {
        /// Where it is.
        place: String,
        /// The store's words.
        detail: String,
    },
    /// A newer program wrote it.
    #[error(
        "the register of series '{place}' has schema {theirs}, and this program knows {SCHEMA}: use the newer program"
    )]
    Newer {
        /// Where it is.
        place: String,
        /// Its schema.
        theirs: u64,
    },
    /// A server that keeps it gives no answer, or cannot do anything now. What was asked for may have happened or happen yet.
    #[error("the register of series '{place}' does not answer: {detail}")]
    Away {
        /// Where it is.
        place: String,
        /// The server's words.
        detail: String,
    },
    /// Another coordinator leads, or did.
    #[error("this coordinator does not lead")]
    Deposed,
    /// What was in it is gone.
    #[error(
        "the register of series '{place}' is not the one that this farm has used: its data are lost, or it is another server; series \
         that were accepted are not known there"
    )]
    Emptied {
        /// Where it is.
        place: String,
    },
    /// There is a series of that id already.
    #[error("there is a series '{id}' already")]
    Taken {
        /// Which.
        id: SeriesId,
    },
    /// There is no such series.
    #[error("there is no series '{id}' here; 'bombproof list --coordinator URL' shows those that are")]
    Unknown {
        /// Which.
        id: SeriesId,
    },
}

/// A series in the register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id; its run has the same.
    pub id: SeriesId,
    /// Whose it is.
    pub owner: UserId,
    /// The project that it is of: to others it does not exist.
    #[serde(default)]
    pub project: ProjectId,
    /// What the user calls it.
    pub name: String,
    /// When it was accepted, in seconds since 1970.
    pub submitted_at_s: u64,
    /// How it stands.
    pub phase: Phase,
    /// The names of its targets.
    pub targets: Vec<String>,
    /// The compilers of its targets, once they are chosen: they stay, whatever workers come later.
    pub toolchains: Option<Vec<Toolchain>>,
    /// How many patches it has; 0: not known yet.
    pub patches: u32,
    /// Why there is no report.
    pub detail: String,
    /// What the user may do about that.
    pub hint: String,
}

/// Keeps accepted series.
///
/// Laws, written once in `laws` and applied to every implementation: what was accepted is there, with its submission, also for who
/// opens the register later; an id is accepted once; a change of an entry is seen by all that come later; series are listed
/// in the order of their ids; each epoch is larger than all before; once a reign has begun, nothing is written in the name of an earlier one.
pub trait Register: Send + Sync {
    /// Keeps a series and its submission (bytes that only the coordinator understands); both are safe when this returns. The same
    /// entry with the same submission may come again: who did not hear the answer tries it anew.
    ///
    /// # Errors
    /// When the id is taken, or it cannot be written.
    fn accept(&self, entry: &Entry, submission: &[u8]) -> Result<(), RegisterError>;

    /// Changes an entry; gives it as it is then.
    ///
    /// # Errors
    /// When there is no such series, or it cannot be written.
    fn change(&self, id: &SeriesId, change: &mut dyn FnMut(&mut Entry)) -> Result<Entry, RegisterError>;

    /// The entry of a series.
    ///
    /// # Errors
    /// When the register cannot be read.
    fn entry(&self, id: &SeriesId) -> Result<Option<Entry>, RegisterError>;

    /// Every series, by id.
    ///
    /// # Errors
    /// When the register cannot be read.
    fn list(&self) -> Result<Vec<Entry>, RegisterError>;

    /// The submission of a series.
    ///
    /// # Errors
    /// When the register cannot be read.
    fn submission(&self, id: &SeriesId) -> Result<Option<Vec<u8>>, RegisterError>;

    /// Begins a reign, if nobody else leads: gives a number that is larger than that of every one before. Where others may want to
    /// lead, they may after `lease` unless it is renewed.
    ///
    /// # Errors
    /// When it cannot be written.
    fn begin(&self, lease: Duration) -> Result<Option<u64>, RegisterError>;

    /// Goes on with the reign for `lease` from now on.
    ///
    /// # Errors
    /// `Deposed` when another one has begun; when it cannot be written.
    fn renew(&self, lease: Duration) -> Result<(), RegisterError>;

    /// Ends the reign: another one may begin at once.
    ///
    /// # Errors
    /// When it cannot be written: others may begin when the lease has run out.
    fn end(&self) -> Result<(), RegisterError>;
}

/// The laws of every register. `open` opens the same one again.
#[cfg(test)]
pub(crate) mod laws {
    use super::*;

    pub(crate) fn entry(id: &str) -> Entry {
        Entry {
            id: SeriesId::from(id),
            owner: UserId::from("ann"),
            project: "net".parse().unwrap(),
            name: "sched".to_owned(),
            submitted_at_s: 7,
            phase: Phase::Accepted,
            targets: vec!["x86_64-defconfig".to_owned()],
            toolchains: None,
            patches: 0,
            detail: String::new(),
            hint: String::new(),
        }
    }

    /// An entry as it was before series were of projects.
    pub(crate) const OF_SCHEMA_1: &str = r#"{"id":"old","owner":"ann","name":"sched","submitted_at_s":7,"phase":"accepted",
        "targets":[],"toolchains":null,"patches":0,"detail":"","hint":""}"#;

    /// What is to be made of it.
    pub(crate) fn of_schema_1() -> Entry {
        Entry { targets: Vec::new(), project: ProjectId::default(), ..entry("old") }
    }

    pub(crate) fn hold(open: &dyn Fn() -> Box<dyn Register>) {
        let [one, other] = ["a", "b"].map(entry);
        let lease = Duration::from_secs(60);
        let first = {
            let register = open();
            let first = register.begin(lease).unwrap().unwrap();
            assert_eq!(register.list().unwrap(), []);
            assert_eq!(register.entry(&one.id).unwrap(), None);
            assert!(matches!(register.change(&one.id, &mut |_| {}), Err(RegisterError::Unknown { .. })));
            register.accept(&other, b"second").unwrap();
            register.accept(&one, b"first").unwrap();
            register.accept(&one, b"first").unwrap();
            assert!(matches!(register.accept(&one, b"again"), Err(RegisterError::Taken { .. })));
            let bobs = Entry { owner: UserId::from("bob"), ..one.clone() };
            assert!(matches!(register.accept(&bobs, b"first"), Err(RegisterError::Taken { .. })));
            let elsewhere = Entry { project: ProjectId::default(), ..one.clone() };
            assert!(matches!(register.accept(&elsewhere, b"first"), Err(RegisterError::Taken { .. })));
            register.renew(lease).unwrap();
            let changed = register.change(&one.id, &mut |entry| entry.phase = Phase::Running).unwrap();
            assert_eq!(changed, Entry { phase: Phase::Running, ..one.clone() });
            register.end().unwrap();
            first
        };
        let register = open();
        let second = register.begin(lease).unwrap().unwrap();
        assert!(second > first);
        assert_eq!(register.submission(&one.id).unwrap().as_deref(), Some(&b"first"[..]), "it was not replaced");
        assert_eq!(register.submission(&SeriesId::from("c")).unwrap(), None);
        let all = [Entry { phase: Phase::Running, ..one.clone() }, other];
        assert_eq!(register.list().unwrap(), all);
        assert_eq!(register.entry(&one.id).unwrap().as_ref(), Some(&all[0]));
        assert!(register.begin(lease).unwrap().unwrap() > second);
    }
}
