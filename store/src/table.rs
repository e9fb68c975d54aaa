//! Tables of sealed files: values by digest, each whole and right or not there at all.
//!
//! A value is one file, `<2 hex>/<62 hex>`: a digest on the first line, then the value as JSON, deflated. The digest covers
//! the kind of table, the key and every byte that follows, so damage, a file under another name and a file of another
//! table are all told from a value. Files are written under another name and renamed: several processes may use one table
//! at once, and the last one that puts a value wins.

use std::fmt;
use std::fs::DirEntry;
use std::io::{BufWriter, ErrorKind, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bombproof_core::digest::{Digest, DigestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic::{self, FileError};

/// At most this much inflated text is read for one value: 1 GiB. A larger one is not ours.
const MAX_TEXT_BYTES: u64 = 1 << 30;
/// Text is given to the compressor in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// How much a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Values.
    pub values: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// When the oldest one was put.
    pub oldest: Option<SystemTime>,
}

/// Values by digest in one folder.
pub struct SealedTable<V> {
    folder: PathBuf,
    domain: &'static str,
    durable: bool,
    value: PhantomData<fn(V) -> V>,
}

// By hand: a table can be shown and copied whatever its values are.
impl<V> fmt::Debug for SealedTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedTable").field("folder", &self.folder).field("domain", &self.domain).finish()
    }
}

impl<V> Clone for SealedTable<V> {
    fn clone(&self) -> Self {
        Self { folder: self.folder.clone(), domain: self.domain, durable: self.durable, value: PhantomData }
    }
}

impl<V> SealedTable<V> {
    /// The table in this folder, which is made when it is needed. `domain` names the kind of value and the version of its
    /// meaning, such as `bombproof/action-file/v1`: values of another domain are not found.
    pub fn at(folder: PathBuf, domain: &'static str) -> Self {
        Self { folder, domain, durable: false, value: PhantomData }
    }

    /// Syncs every value before it gets its name: for what cannot be made again. Otherwise a value may be lost with the
    /// power, and is never damaged.
    #[must_use]
    pub fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    /// The file of a value.
    pub fn path(&self, key: &Digest) -> PathBuf {
        let mut name = key.to_string();
        name.insert(2, '/');
        self.folder.join(name)
    }

    /// Drops a value.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, key: &Digest) -> Result<(), FileError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::new("remove", &path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// How much there is.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn stats(&self) -> Result<TableStats, FileError> {
        let mut stats = TableStats::default();
        for (key, _) in self.keys()? {
            let Ok(meta) = self.path(&key).metadata() else { continue };
            stats.values += 1;
            stats.bytes += meta.len();
            if let Ok(put) = meta.modified() {
                stats.oldest = Some(stats.oldest.map_or(put, |oldest| oldest.min(put)));
            }
        }
        Ok(stats)
    }

    /// Reads every value and drops those that are damaged; gives their keys, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn verify(&self) -> Result<Vec<Digest>, FileError> {
        let mut damaged = Vec::new();
        for (key, path) in self.keys()? {
            // What cannot be read is lost like what is read wrong.
            match atomic::read(&path) {
                Ok(Some(bytes)) if self.open(&key, &bytes).is_some() => {}
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => {
                    self.forget(&key)?;
                    damaged.push(key);
                }
            }
        }
        damaged.sort_unstable();
        Ok(damaged)
    }

    /// Removes what writers that died left; gives how many files that were.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn sweep(&self) -> Result<u64, FileError> {
        let now = SystemTime::now();
        let mut gone = 0;
        for entry in self.entries()? {
            let is_new = entry.file_name().to_str().is_some_and(|name| name.starts_with(atomic::NEW));
            let changed = entry.metadata().ok().and_then(|meta| meta.modified().ok());
            let age = changed.and_then(|changed| now.duration_since(changed).ok()).unwrap_or_default();
            gone += u64::from(is_new && age >= atomic::LEFTOVER && std::fs::remove_file(entry.path()).is_ok());
        }
        Ok(gone)
    }

    /// Drops the values that were put before a time; gives how many.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn expire(&self, before: SystemTime) -> Result<u64, FileError> {
        let mut gone = 0;
        for (_, path) in self.keys()? {
            let put = path.metadata().ok().and_then(|meta| meta.modified().ok());
            gone += u64::from(put.is_some_and(|put| put < before) && std::fs::remove_file(&path).is_ok());
        }
        Ok(gone)
    }

    fn keys(&self) -> Result<Vec<(Digest, PathBuf)>, FileError> {
        let key = |path: &Path| {
            let head = path.parent()?.file_name()?.to_str()?;
            format!("{head}{}", path.file_name()?.to_str()?).parse().ok()
        };
        let paths = self.entries()?.into_iter().map(|entry| entry.path());
        Ok(paths.filter_map(|path| Some((key(&path)?, path))).collect())
    }

    fn entries(&self) -> Result<Vec<DirEntry>, FileError> {
        let mut all = Vec::new();
        for head in 0..=u8::MAX {
            let folder = self.folder.join(format!("{head:02x}"));
            let failed = |error| FileError::new("read", &folder, error);
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.map_err(failed)?,
            };
            for entry in entries {
                all.push(entry.map_err(failed)?);
            }
        }
        Ok(all)
    }

    fn seal(&self, key: &Digest, deflated: &[u8]) -> String {
        DigestBuilder::new(self.domain).field(key.to_string().as_bytes()).field(deflated).finish().to_string()
    }

    /// The deflated text of a file that is whole and of this key.
    fn open<'a>(&self, key: &Digest, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (head, deflated) = bytes.split_at_checked(65)?;
        (head.split_last()? == (&b'\n', self.seal(key, deflated).as_bytes())).then_some(deflated)
    }
}

impl<V: Serialize + DeserializeOwned> SealedTable<V> {
    /// The value, if it was put and is undamaged.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn get(&self, key: &Digest) -> Result<Option<V>, FileError> {
        Ok(atomic::read(&self.path(key))?.and_then(|bytes| inflate(self.open(key, &bytes)?)))
    }

    /// Keeps a value.
    ///
    /// # Errors
    /// When it cannot be written; nothing is half-written then.
    pub fn put(&self, key: &Digest, value: &V) -> Result<(), FileError> {
        let path = self.path(key);
        let deflated = deflate(value).map_err(|error| FileError::new("encode", &path, error))?;
        let seal = format!("{}\n", self.seal(key, &deflated));
        atomic::replace(&path, &[seal.as_bytes(), &deflated], self.durable)
    }
}

fn deflate<V: Serialize>(value: &V) -> std::io::Result<Vec<u8>> {
    let encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut writer = BufWriter::with_capacity(PIECE_BYTES, encoder);
    serde_json::to_writer(&mut writer, value)?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
}

fn inflate<V: DeserializeOwned>(deflated: &[u8]) -> Option<V> {
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(deflated).take(MAX_TEXT_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Table = SealedTable<Vec<String>>;

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn value() -> Vec<String> {
        vec!["a".to_owned(), "\u{1}é".to_owned()]
    }

    #[test]
    fn what_is_old_goes_and_what_is_new_stays() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::at(folder.path().to_owned(), "test/v1");
        for name in ["old", "new"] {
            table.put(&key(name), &value()).unwrap();
        }
        let day = std::time::Duration::from_secs(86_400);
        let now = SystemTime::now();
        let old = std::fs::File::options().write(true).open(table.path(&key("old"))).unwrap();
        old.set_modified(now - 3 * day).unwrap();
        assert_eq!(table.expire(now - 2 * day).unwrap(), 1);
        assert_eq!(table.get(&key("old")).unwrap(), None);
        assert_eq!(table.get(&key("new")).unwrap(), Some(value()));
    }

    #[test]
    fn what_was_put_is_got_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        for table in
            [Table::at(folder.path().join("a"), "test/v1"), Table::at(folder.path().join("b"), "test/v1").durable()]
        {
            assert_eq!(table.get(&key("k")).unwrap(), None);
            assert_eq!(table.stats().unwrap(), TableStats::default());
            table.put(&key("k"), &value()).unwrap();
            table.put(&key("k"), &value()).unwrap();
            assert_eq!(table.get(&key("k")).unwrap(), Some(value()));
            table.put(&key("k"), &Vec::new()).unwrap();
            assert_eq!(table.get(&key("k")).unwrap(), Some(Vec::new()), "the last one wins");
            assert_eq!(table.get(&key("other")).unwrap(), None);
            assert_eq!(table.stats().unwrap().values, 1);
            table.forget(&key("k")).unwrap();
            table.forget(&key("k")).unwrap();
            assert_eq!(table.get(&key("k")).unwrap(), None);
        }
    }

    #[test]
    fn damage_of_any_byte_is_found_and_never_served() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::at(folder.path().to_owned(), "test/v1");
        table.put(&key("k"), &value()).unwrap();
        assert_eq!(table.verify().unwrap(), []);
        let path = table.path(&key("k"));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            for damaged in [&bytes, &whole[..at]] {
                std::fs::write(&path, damaged).unwrap();
                assert_eq!(table.get(&key("k")).unwrap(), None, "byte {at}");
                assert_eq!(table.verify().unwrap(), [key("k")], "byte {at}");
                assert!(!path.exists(), "it was dropped");
            }
        }
    }

    #[test]
    fn a_value_of_another_key_or_kind_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::at(folder.path().to_owned(), "test/v1");
        table.put(&key("k"), &value()).unwrap();
        let other = table.path(&key("other"));
        std::fs::create_dir_all(other.parent().unwrap()).unwrap();
        std::fs::copy(table.path(&key("k")), other).unwrap();
        assert_eq!(table.get(&key("other")).unwrap(), None);
        assert_eq!(Table::at(folder.path().to_owned(), "test/v2").get(&key("k")).unwrap(), None);
        let numbers: SealedTable<Vec<u32>> = SealedTable::at(folder.path().to_owned(), "test/v1");
        assert_eq!(numbers.get(&key("k")).unwrap(), None, "sealed, and not what was expected");
    }

    #[test]
    fn what_a_killed_writer_left_is_ignored_and_removed_later() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::at(folder.path().to_owned(), "test/v1");
        table.put(&key("k"), &value()).unwrap();
        let left = table.path(&key("k")).with_file_name(".new-left");
        std::fs::write(&left, "half").unwrap();
        assert_eq!(table.stats().unwrap().values, 1);
        assert_eq!(table.verify().unwrap(), []);
        assert_eq!(table.sweep().unwrap(), 0, "its writer may be alive");
        let old = SystemTime::now() - std::time::Duration::from_secs(3700);
        for path in [&left, &table.path(&key("k"))] {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(table.sweep().unwrap(), 1);
        assert_eq!(table.get(&key("k")).unwrap(), Some(value()));
    }

    #[test]
    fn values_of_many_megabytes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::at(folder.path().to_owned(), "test/v1");
        let large: Vec<String> =
            (0..500_000).map(|number| format!("include/linux/header-{number}.h and more")).collect();
        table.put(&key("k"), &large).unwrap();
        assert!(table.get(&key("k")).unwrap() == Some(large));
    }

    #[test]
    fn writers_and_readers_at_once_see_whole_values() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::at(folder.path().to_owned(), "test/v1");
        std::thread::scope(|scope| {
            for writer in 0..3_usize {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..50 {
                        table.put(&key("k"), &vec![writer.to_string(); round * 100 + 1]).unwrap();
                        let got = table.get(&key("k")).unwrap().unwrap();
                        assert!(got.iter().all(|item| item == &got[0]));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(table.path(&key("k")).parent().unwrap()).unwrap().count(), 1);
    }
}
