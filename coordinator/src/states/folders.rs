//! The tree of a state as folders in memory: those that a series reaches are read once, and written where they changed.
//!
//! Format: a tree object is `<mode> <name> NUL <raw id>`, sorted as if names of folders ended with a slash.

use std::cmp::Ordering;
use std::sync::Arc;

use super::StatesError;
use super::pack::{Change, Kind, Pack};

/// The mode of folders.
const FOLDER: &[u8] = b"40000";

/// Reads the tree object of this raw id.
pub(super) type Read<'a> = dyn FnMut(&[u8]) -> Result<Vec<u8>, StatesError> + 'a;

/// A folder and what was read of it.
pub(super) struct Folder {
    entries: Vec<Entry>,
    /// Its id, where nothing changed since it was read or written.
    id: Option<Vec<u8>>,
}

struct Entry {
    name: Vec<u8>,
    mode: Vec<u8>,
    what: What,
}

enum What {
    /// A file, a link, a submodule, or a folder that was not read.
    Id(Vec<u8>),
    Folder(Folder),
}

impl Folder {
    /// The folder of this raw id.
    pub(super) fn read(id: &[u8], read: &mut Read<'_>) -> Result<Self, StatesError> {
        let text = read(id)?;
        let bad = || StatesError::damaged("a tree of the base cannot be read".to_owned());
        let mut entries = Vec::new();
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let space = memchr::memchr(b' ', rest).ok_or_else(bad)?;
            let end = memchr::memchr(0, rest).filter(|end| *end > space).ok_or_else(bad)?;
            let of = rest.get(end + 1..end + 1 + id.len()).ok_or_else(bad)?;
            entries.push(Entry {
                mode: rest[..space].to_vec(),
                name: rest[space + 1..end].to_vec(),
                what: What::Id(of.to_vec()),
            });
            rest = &rest[end + 1 + id.len()..];
        }
        Ok(Self { entries, id: Some(id.to_vec()) })
    }

    /// Puts a file, by its mode and raw id (`None`: removes it). Folders come and go with their files.
    pub(super) fn put(
        &mut self,
        path: &[u8],
        file: Option<(&[u8], &[u8])>,
        read: &mut Read<'_>,
    ) -> Result<(), StatesError> {
        self.id = None;
        let Some(slash) = memchr::memchr(b'/', path) else {
            let place = self.place(path, false);
            match (place, file) {
                (Ok(at), Some((mode, id))) => {
                    let entry = &mut self.entries[at];
                    (entry.mode, entry.what) = (mode.to_vec(), What::Id(id.to_vec()));
                }
                (Ok(at), None) => drop(self.entries.remove(at)),
                (Err(_), None) => {}
                (Err(_), Some((mode, id))) => self.insert(path, mode, What::Id(id.to_vec())),
            }
            return Ok(());
        };
        let (name, rest) = (&path[..slash], &path[slash + 1..]);
        let at = match self.place(name, true) {
            Ok(at) => at,
            Err(_) if file.is_none() => return Ok(()),
            Err(_) => {
                self.insert(name, FOLDER, What::Folder(Self { entries: Vec::new(), id: None }));
                self.place(name, true).unwrap_or_default()
            }
        };
        let entry = &mut self.entries[at];
        if let What::Id(id) = &entry.what {
            entry.what = What::Folder(Self::read(id, read)?);
        }
        if let What::Folder(folder) = &mut entry.what {
            folder.put(rest, file, read)?;
            if folder.entries.is_empty() {
                self.entries.remove(at);
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: &[u8], mode: &[u8], what: What) {
        // A folder takes the place of a file, and the other way round.
        let other = mode != FOLDER;
        if let Ok(at) = self.place(name, other) {
            self.entries.remove(at);
        }
        let at = self.place(name, !other).unwrap_or_else(|at| at);
        self.entries.insert(at, Entry { name: name.to_vec(), mode: mode.to_vec(), what });
    }

    fn place(&self, name: &[u8], folder: bool) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| order((&entry.name, entry.is_folder()), (name, folder)))
    }

    /// Writes what changed; gives the raw id. `path` is that of this folder, with a slash at its end, or empty.
    pub(super) fn write(&mut self, path: &str, pack: &mut Pack) -> Result<Vec<u8>, StatesError> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let mut text = Vec::with_capacity(self.entries.len() * 48);
        for entry in &mut self.entries {
            text.extend_from_slice(&entry.mode);
            text.push(b' ');
            text.extend_from_slice(&entry.name);
            text.push(0);
            match &mut entry.what {
                What::Id(id) => text.extend_from_slice(id),
                What::Folder(folder) => {
                    let below = format!("{path}{}/", String::from_utf8_lossy(&entry.name));
                    text.extend_from_slice(&folder.write(&below, pack)?);
                }
            }
        }
        // No file has such a name.
        let id = pack.add(Kind::Tree, &format!("{path}/"), &Arc::new(text), Change::OnePlace)?;
        self.id = Some(id.clone());
        Ok(id)
    }
}

impl Entry {
    fn is_folder(&self) -> bool {
        // Old tools wrote a leading zero.
        matches!(self.what, What::Folder(_)) || self.mode.strip_prefix(b"0").unwrap_or(&self.mode) == FOLDER
    }
}

/// Git's order of the entries of a tree.
fn order((a, a_folder): (&[u8], bool), (b, b_folder): (&[u8], bool)) -> Ordering {
    let end = |name: &[u8], folder: bool, at: usize| match name.get(at) {
        Some(byte) => u16::from(*byte) + 1,
        None if folder => u16::from(b'/') + 1,
        None => 0,
    };
    let common = a.len().min(b.len());
    a[..common]
        .cmp(&b[..common])
        .then_with(|| end(a, a_folder, common).cmp(&end(b, b_folder, common)).then_with(|| a.len().cmp(&b.len())))
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering::{Equal, Greater, Less};

    use super::order;

    #[test]
    fn folders_are_sorted_as_if_their_names_ended_with_a_slash() {
        for (a, b, want) in [
            (("a", false), ("a", false), Equal),
            (("a", true), ("a", true), Equal),
            (("a", false), ("a", true), Less),
            (("a", true), ("a.c", false), Greater),
            (("a", false), ("a.c", false), Less),
            (("a", true), ("a-b", true), Greater),
            (("a", true), ("a0", false), Less),
            (("b", false), ("ab", false), Greater),
            (("a", true), ("a/", false), Less),
        ] {
            let words = |(name, folder): (&'static str, bool)| (name.as_bytes(), folder);
            assert_eq!(order(words(a), words(b)), want, "{a:?} {b:?}");
            assert_eq!(order(words(b), words(a)), want.reverse(), "{b:?} {a:?}");
        }
    }
}
