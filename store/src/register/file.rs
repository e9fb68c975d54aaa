//! The register as one file: redb.
//!
//! ```text
//! about        "schema" -> SCHEMA, "epoch" -> the last epoch
//! series       id -> Entry as JSON
//! submissions  id -> what was submitted
//! ```

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bombproof_core::id::SeriesId;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::{Entry, Register, RegisterError, SCHEMA};

const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const SERIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("series");
const SUBMISSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("submissions");

type Opener = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

/// A register in a file that one coordinator at a time can open.
pub struct FileRegister {
    open: Box<Opener>,
    /// `None` after the disk failed: what is in memory is no use any more, and the file is opened anew when it is needed next.
    database: Mutex<Option<Arc<Database>>>,
    place: String,
}

impl FileRegister {
    /// Opens the register in this file, or makes it.
    ///
    /// # Errors
    /// When another process has it open, it is damaged, the disk is full, or a newer program wrote it.
    pub fn open(path: &Path) -> Result<Self, RegisterError> {
        let file = path.to_owned();
        let open = move || {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder).map_err(StorageError::Io)?;
            }
            Database::create(&file)
        };
        Self::open_by(path.display().to_string(), Box::new(open))
    }

    fn open_by(place: String, open: Box<Opener>) -> Result<Self, RegisterError> {
        let register = Self { open, database: Mutex::new(None), place: place.clone() };
        let database = (register.open)().map_err(|error| register.failed(error))?;
        *register.held() = Some(Arc::new(database));
        let theirs = register.write(|about, _, _| {
            let schema = about.get("schema")?.map(|schema| schema.value());
            if schema.is_none() {
                about.insert("schema", SCHEMA)?;
            }
            Ok(Ok(schema.unwrap_or(SCHEMA)))
        })?;
        if theirs > SCHEMA { Err(RegisterError::Newer { place, theirs }) } else { Ok(register) }
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file; it is opened again where the disk failed before.
    fn database(&self) -> Result<Arc<Database>, RegisterError> {
        let mut held = self.held();
        if let Some(database) = &*held {
            return Ok(Arc::clone(database));
        }
        let database = match (self.open)() {
            Ok(database) => Arc::new(database),
            // Somebody here is still at it.
            Err(error @ DatabaseError::DatabaseAlreadyOpen) => return Err(self.away(error)),
            Err(error) => return Err(self.failed(error)),
        };
        *held = Some(Arc::clone(&database));
        Ok(database)
    }

    /// Does something with the open file.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<Result<T, RegisterError>, redb::Error>,
    ) -> Result<T, RegisterError> {
        let database = self.database()?;
        match work(&database) {
            Ok(done) => done,
            Err(error) => {
                if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                    *self.held() = None;
                }
                Err(self.failed(error))
            }
        }
    }

    fn away(&self, error: impl Display) -> RegisterError {
        RegisterError::Away { place: self.place.clone(), detail: error.to_string() }
    }

    fn damaged(&self, error: impl Display) -> RegisterError {
        RegisterError::Unusable { place: self.place.clone(), detail: error.to_string() }
    }

    fn failed(&self, error: impl Into<redb::Error>) -> RegisterError {
        let error: redb::Error = error.into();
        // After the first error of a disk it fails for everybody, and is opened again next time.
        let may_pass = matches!(&error, redb::Error::Io(io) if waiting_helps(io.kind()))
            || matches!(error, redb::Error::PreviousIo);
        if may_pass { self.away(error) } else { self.damaged(error) }
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
        self.with(|database| {
            let transaction = database.begin_write()?;
            let done = {
                let mut about = transaction.open_table(ABOUT)?;
                let mut series = transaction.open_table(SERIES)?;
                let mut submissions = transaction.open_table(SUBMISSIONS)?;
                change(&mut about, &mut series, &mut submissions)?
            };
            match done {
                Ok(done) => transaction.commit().map(|()| Ok(done)).map_err(redb::Error::from),
                Err(error) => transaction.abort().map(|()| Err(error)).map_err(redb::Error::from),
            }
        })
    }

    fn decode(&self, text: &[u8]) -> Result<Entry, RegisterError> {
        serde_json::from_slice(text).map_err(|error| self.damaged(error))
    }

    fn encode(&self, entry: &Entry) -> Result<Vec<u8>, RegisterError> {
        serde_json::to_vec(entry).map_err(|error| self.damaged(error))
    }
}

/// A full disk is seen to by somebody. Everything else that a disk says may be for ever.
fn waiting_helps(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
}

impl Register for FileRegister {
    fn accept(&self, entry: &Entry, submission: &[u8]) -> Result<(), RegisterError> {
        let text = self.encode(entry)?;
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
                let text = self.encode(&entry)?;
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
        self.with(|database| {
            let series = database.begin_read()?.open_table(SERIES)?;
            let text = series.get(id.as_str())?;
            Ok(text.map(|text| self.decode(text.value())).transpose())
        })
    }

    fn list(&self) -> Result<Vec<Entry>, RegisterError> {
        self.with(|database| {
            let series = database.begin_read()?.open_table(SERIES)?;
            let texts = series.iter()?.map(|one| one.map(|(_, text)| self.decode(text.value())));
            let entries: Result<Vec<_>, StorageError> = texts.collect();
            Ok(entries?.into_iter().collect())
        })
    }

    fn submission(&self, id: &SeriesId) -> Result<Option<Vec<u8>>, RegisterError> {
        self.with(|database| {
            let submissions = database.begin_read()?.open_table(SUBMISSIONS)?;
            Ok(Ok(submissions.get(id.as_str())?.map(|bytes| bytes.value().to_vec())))
        })
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
    use std::fs::File;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::StorageBackend;
    use redb::backends::FileBackend;

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

    /// A file on a disk that is full when it is told to be.
    #[derive(Debug)]
    struct Disk {
        file: FileBackend,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn has_room(&self) -> std::io::Result<()> {
            if self.full.load(Ordering::Relaxed) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> std::io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.has_room().and_then(|()| self.file.set_len(len))
        }

        fn sync_data(&self) -> std::io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.has_room().and_then(|()| self.file.write(offset, data))
        }
    }

    #[test]
    fn a_disk_that_was_full_is_written_again_when_it_has_room() {
        let folder = tempfile::tempdir().unwrap();
        let (path, full) = (folder.path().join("register.redb"), Arc::new(AtomicBool::new(false)));
        let seen = Arc::clone(&full);
        let open = move || {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            Database::builder().create_with_backend(Disk { file: FileBackend::new(file)?, full: Arc::clone(&seen) })
        };
        let register = FileRegister::open_by("here".to_owned(), Box::new(open)).unwrap();
        let (one, other) = (laws::entry("a"), laws::entry("b"));
        register.accept(&one, b"first").unwrap();
        full.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let said = register.accept(&other, b"second");
            assert!(matches!(said, Err(RegisterError::Away { .. })), "{said:?}");
        }
        full.store(false, Ordering::Relaxed);
        assert_eq!(register.list().unwrap(), std::slice::from_ref(&one), "all of it or nothing");
        register.accept(&other, b"second").unwrap();
        assert_eq!(register.list().unwrap(), [one, other]);
    }
}
