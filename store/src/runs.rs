//! Stored runs: what was asked, how far it is, and the report.

use std::path::PathBuf;

use bombproof_core::id::RunId;
use bombproof_core::report::model::Report;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::atomic::{self, FileError};
use crate::home::Home;

/// A stored run could not be found or read.
#[derive(Debug, Error)]
pub enum RunError {
    /// There is no such run.
    #[error("there is no run '{id}'; 'bombproof list' shows those that are stored")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// There is no run at all.
    #[error("no run is stored in '{}'; 'bombproof check' makes one", folder.display())]
    Empty {
        /// Where was looked.
        folder: PathBuf,
    },
    /// The stored text is damaged, or of a newer version.
    #[error("the stored run '{id}' cannot be read: {detail}")]
    Damaged {
        /// Which run.
        id: String,
        /// What is wrong.
        detail: String,
    },
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its process works on it (or died without a word: see [`RunRecord::pid`]).
    Running,
    /// It ended, and the report is whole.
    Finished,
    /// It was stopped; the same command goes on with it.
    Interrupted,
}

/// What is known of a run while it goes on, rewritten after every settled state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// How it stands.
    pub phase: Phase,
    /// The process that works on it.
    pub pid: u32,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// The command line, for people.
    pub command: Vec<String>,
    /// The series, for people.
    pub series: String,
    /// Where the user's repository is.
    pub repo: PathBuf,
    /// The private object store with the states, for `reproduce` and `explain`.
    pub objects: PathBuf,
    /// Per target: name, digest of the target with its toolchain, settled states, failing states.
    pub targets: Vec<TargetProgress>,
    /// How many states each target has to settle.
    pub states: u32,
    /// What was asked, as the command stored it; opaque here.
    #[serde(default)]
    pub request: serde_json::Value,
}

/// How far a target is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetProgress {
    /// Its name.
    pub name: String,
    /// Digest of the target with its toolchain: with a tree, the key of a result.
    pub digest: String,
    /// States settled.
    pub settled: u32,
    /// States that fail.
    pub failing: u32,
}

/// The runs of a state folder.
#[derive(Clone, Debug)]
pub struct Runs {
    home: Home,
}

impl Runs {
    /// The runs in this state folder.
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Stores how a run stands.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, record: &RunRecord) -> Result<(), FileError> {
        self.write(&record.id, "run.json", record)
    }

    /// Stores a report.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_report(&self, report: &Report) -> Result<(), FileError> {
        self.write(&report.run.id, "report.json", report)
    }

    fn write<T: Serialize>(&self, id: &RunId, name: &str, value: &T) -> Result<(), FileError> {
        let path = self.home.run(id).join(name);
        let text = serde_json::to_vec(value).map_err(|error| FileError::new("encode", &path, error.into()))?;
        atomic::write(&path, &text)
    }

    /// Every run, oldest first (ids begin with the time). Damaged ones are left out.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<RunRecord>, FileError> {
        let folder = self.home.runs();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::new("read", &folder, error)),
        };
        let mut ids: Vec<RunId> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok().map(RunId)).collect();
        ids.sort();
        Ok(ids.iter().filter_map(|id| self.record(id).ok()).collect())
    }

    /// The run of this id, or the newest one where none is named.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn find(&self, id: Option<&str>) -> Result<RunRecord, RunError> {
        match id {
            Some(id) => self.record(&RunId::from(id)),
            None => self.list()?.pop().ok_or_else(|| RunError::Empty { folder: self.home.runs() }),
        }
    }

    fn record(&self, id: &RunId) -> Result<RunRecord, RunError> {
        self.read(id, "run.json")
    }

    /// The report of a run.
    ///
    /// # Errors
    /// When there is none (yet), or it cannot be read.
    pub fn report(&self, id: &RunId) -> Result<Report, RunError> {
        self.read(id, "report.json")
    }

    fn read<T: serde::de::DeserializeOwned>(&self, id: &RunId, name: &str) -> Result<T, RunError> {
        let unknown = || RunError::Unknown { id: id.to_string() };
        // An id is a file name: anything else would lead out of the folder.
        if id.as_str().is_empty() || id.as_str().contains(['/', '\0']) || id.as_str().starts_with('.') {
            return Err(unknown());
        }
        let bytes = atomic::read(&self.home.run(id).join(name))?.ok_or_else(unknown)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| RunError::Damaged { id: id.to_string(), detail: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> RunRecord {
        RunRecord {
            id: RunId::from(id),
            phase: Phase::Running,
            pid: 1,
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            command: vec!["bombproof".to_owned()],
            series: "s".to_owned(),
            repo: PathBuf::from("/r"),
            objects: PathBuf::from("/o"),
            targets: Vec::new(),
            states: 2,
            request: serde_json::Value::Null,
        }
    }

    #[test]
    fn runs_are_listed_in_order_and_found_by_id() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(&Home::at(folder.path()));
        assert!(matches!(runs.find(None), Err(RunError::Empty { .. })));
        for id in ["20260102-b", "20260101-a"] {
            runs.save(&record(id)).unwrap();
        }
        let ids: Vec<_> = runs.list().unwrap().into_iter().map(|run| run.id.0).collect();
        assert_eq!(ids, ["20260101-a", "20260102-b"]);
        assert_eq!(runs.find(None).unwrap().id.as_str(), "20260102-b");
        assert_eq!(runs.find(Some("20260101-a")).unwrap(), record("20260101-a"));
    }

    #[test]
    fn ids_that_lead_elsewhere_and_damaged_runs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(&Home::at(folder.path()));
        for id in ["", "../x", "a/b", ".hidden", "nothing"] {
            assert!(matches!(runs.find(Some(id)), Err(RunError::Unknown { .. })), "{id}");
        }
        runs.save(&record("x")).unwrap();
        std::fs::write(folder.path().join("runs/x/run.json"), b"{").unwrap();
        assert!(matches!(runs.find(Some("x")), Err(RunError::Damaged { .. })));
        assert_eq!(runs.list().unwrap(), []);
    }
}
