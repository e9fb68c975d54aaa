//! The register as one file: redb.
//!
//! ```text
//! about        "schema" -> SCHEMA, "epoch" -> the last epoch
//! series       id -> Entry as JSON
//! submissions  id -> what was submitted
//! ```

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use bombproof_core::id::SeriesId;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Entry, Register, RegisterError, SCHEMA};

const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const SERIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("series");
const SUBMISSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("submissions");

/// A register in a file that one coordinator at a time can open.
pub struct FileRegister {
    database: Database,
    place: String,
}

impl FileRegister {
    /// Opens the register in this file, or makes it.
    ///
    /// # Errors
    /// When another process has it open, it is damaged, or a newer program wrote it.
    pub fn open(path: &Path) -> Result<Self, RegisterError> {
        let place = path.display().to_string();
        let failed = |error: &dyn Display| RegisterError::Unusable { place: place.clone(), detail: error.to_string() };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        }
        let database = Database::create(path).map_err(|error| failed(&error))?;
        let register = Self { database, place: place.clone() };
        let theirs = register.write(|about, _, _| {
            let schema = about.get("schema")?.map(|schema| schema.value());
            if schema.is_none() {
                about.insert("schema", SCHEMA)?;
            }
            Ok(Ok(schema.unwrap_or(SCHEMA)))
        })?;
        if theirs > SCHEMA { Err(RegisterError::Newer { place, theirs }) } else { Ok(register) }
    }

    fn failed(&self, error: impl Display) -> RegisterError {
        RegisterError::Unusable { place: self.place.clone(), detail: error.to_string() }
    }

    /// Runs a change of the tables to its end, or none of it.
    fn write<T>(
        &self,
        change: impl FnOnce(
            &mut redb::Table<'_, &'static str, u64>,
            &mut redb::Table<'_, &'static str, &'static [u8]>,
            &mut redb::Table<'_, &'static str, &'static [u8]>,
        ) -> Result<Result<T, RegisterError>, redb::Error>,
    ) -> Result<T, RegisterError> {
        let transaction = self.database.begin_write().map_err(|error| self.failed(error))?;
        let done = {
            let mut about = transaction.open_table(ABOUT).map_err(|error| self.failed(error))?;
            let mut series = transaction.open_table(SERIES).map_err(|error| self.failed(error))?;
            let mut submissions = transaction.open_table(SUBMISSIONS).map_err(|error| self.failed(error))?;
            change(&mut about, &mut series, &mut submissions).map_err(|error| self.failed(error))?
        };
        match done {
            Ok(done) => {
                transaction.commit().map_err(|error| self.failed(error))?;
                Ok(done)
            }
            Err(error) => {
                transaction.abort().map_err(|error| self.failed(error))?;
                Err(error)
            }
        }
    }

    fn decode(&self, text: &[u8]) -> Result<Entry, RegisterError> {
        serde_json::from_slice(text).map_err(|error| self.failed(error))
    }
}

impl Register for FileRegister {
    fn accept(&self, entry: &Entry, submission: &[u8]) -> Result<(), RegisterError> {
        let text = serde_json::to_vec(entry).map_err(|error| self.failed(error))?;
        self.write(|_, series, submissions| {
            if let Some(there) = series.get(entry.id.as_str())? {
                let same = there.value() == text
                    && submissions.get(entry.id.as_str())?.is_some_and(|it| it.value() == submission);
                return Ok(if same { Ok(()) } else { Err(RegisterError::Taken { id: entry.id.clone() }) });
            }
            series.insert(entry.id.as_str(), text.as_slice())?;
            submissions.insert(entry.id.as_str(), submission)?;
            Ok(Ok(()))
        })
    }

    fn change(&self, id: &SeriesId, change: &mut dyn FnMut(&mut Entry)) -> Result<Entry, RegisterError> {
        self.write(|_, series, _| {
            let Some(text) = series.get(id.as_str())?.map(|text| text.value().to_vec()) else {
                return Ok(Err(RegisterError::Unknown { id: id.clone() }));
            };
            let changed = self.decode(&text).and_then(|mut entry| {
                change(&mut entry);
                let text = serde_json::to_vec(&entry).map_err(|error| self.failed(error))?;
                Ok((entry, text))
            });
            match changed {
                Ok((entry, text)) => {
                    series.insert(id.as_str(), text.as_slice())?;
                    Ok(Ok(entry))
                }
                Err(error) => Ok(Err(error)),
            }
        })
    }

    fn entry(&self, id: &SeriesId) -> Result<Option<Entry>, RegisterError> {
        let reading = self.database.begin_read().map_err(|error| self.failed(error))?;
        let series = reading.open_table(SERIES).map_err(|error| self.failed(error))?;
        let text = series.get(id.as_str()).map_err(|error| self.failed(error))?;
        text.map(|text| self.decode(text.value())).transpose()
    }

    fn list(&self) -> Result<Vec<Entry>, RegisterError> {
        let reading = self.database.begin_read().map_err(|error| self.failed(error))?;
        let series = reading.open_table(SERIES).map_err(|error| self.failed(error))?;
        let mut entries = Vec::new();
        for one in series.iter().map_err(|error| self.failed(error))? {
            let (_, text) = one.map_err(|error| self.failed(error))?;
            entries.push(self.decode(text.value())?);
        }
        Ok(entries)
    }

    fn submission(&self, id: &SeriesId) -> Result<Option<Vec<u8>>, RegisterError> {
        let reading = self.database.begin_read().map_err(|error| self.failed(error))?;
        let submissions = reading.open_table(SUBMISSIONS).map_err(|error| self.failed(error))?;
        let found = submissions.get(id.as_str()).map_err(|error| self.failed(error))?;
        Ok(found.map(|bytes| bytes.value().to_vec()))
    }

    /// Nobody contests it: the file is open here.
    fn begin(&self, _lease: Duration) -> Result<Option<u64>, RegisterError> {
        self.write(|about, _, _| {
            about.insert("schema", SCHEMA)?;
            let epoch = about.get("epoch")?.map_or(0, |epoch| epoch.value()).saturating_add(1);
            about.insert("epoch", epoch)?;
            Ok(Ok(Some(epoch)))
        })
    }

    fn renew(&self, _lease: Duration) -> Result<(), RegisterError> {
        Ok(())
    }

    fn end(&self) -> Result<(), RegisterError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws;
    use super::*;

    #[test]
    fn the_laws_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/register.redb");
        laws::hold(&|| Box::new(FileRegister::open(&path).unwrap()));
    }

    #[test]
    fn a_register_of_a_newer_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("register.redb");
        let register = FileRegister::open(&path).unwrap();
        register
            .write(|about, _, _| {
                about.insert("schema", SCHEMA + 1)?;
                Ok(Ok(()))
            })
            .unwrap();
        drop(register);
        assert!(matches!(FileRegister::open(&path), Err(RegisterError::Newer { .. })));
    }

    #[test]
    fn a_register_of_an_older_program_is_read_and_then_left_alone_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let register = FileRegister::open(&folder.path().join("register.redb")).unwrap();
        register
            .write(|about, series, _| {
                about.insert("schema", 1)?;
                series.insert("old", laws::OF_SCHEMA_1.as_bytes())?;
                Ok(Ok(()))
            })
            .unwrap();
        drop(register);
        let register = FileRegister::open(&folder.path().join("register.redb")).unwrap();
        assert_eq!(register.list().unwrap(), [laws::of_schema_1()]);
        let schema = || register.write(|about, _, _| Ok(Ok(about.get("schema")?.map(|it| it.value())))).unwrap();
        assert_eq!(schema(), Some(1), "nothing was written yet");
        register.begin(Duration::from_secs(1)).unwrap();
        assert_eq!(schema(), Some(SCHEMA));
    }

    #[test]
    fn two_cannot_have_one_register() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("register.redb");
        let first = FileRegister::open(&path).unwrap();
        assert!(matches!(FileRegister::open(&path), Err(RegisterError::Unusable { .. })));
        drop(first);
        FileRegister::open(&path).unwrap();
    }
}
