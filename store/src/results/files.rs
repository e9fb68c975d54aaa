//! Results as files, each as its difference to another one where that is small.
//!
//! A file is a line with the digest of its key and the rest, then, deflated, two lines of JSON: what depends on another
//! result, with the name of that one, and what does not. The digest of key and first line is the *content*. As the
//! first line names the content of the result that it builds on, one digest stands for all that a result is made of: a
//! result that was damaged, or is another one now, is found out by whatever builds on it, and a result that is put again
//! with nothing new but its cost takes nothing along.
//!
//! What was read or put last stays in memory by content, so that reading a series in order costs what changed, and
//! neighbours hold in common what is equal.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bombproof_core::digest::{Digest, DigestBuilder};
use bombproof_core::outcome::{Changes, Delta, Own, StateResult};
use serde::{Deserialize, Serialize};

use super::{ResultKey, ResultStore, settles};
use crate::atomic::{self, FileError};

/// At most this much inflated text is read for one result: 1 GiB. A larger one is not ours.
const MAX_RESULT_BYTES: u64 = 1 << 30;

/// At most this many others are read for one result. The next one builds on the first of the chain again.
const LONGEST_CHAIN: usize = 32;

/// A result with fewer entries is kept whole: a difference would save nothing.
const WORTH_A_DIFFERENCE: usize = 64;

/// How many results stay in memory. They are nearly equal, and hold in common what is equal.
const HELD: usize = 256;

/// Results as files.
#[derive(Clone, Debug)]
pub struct FileResults {
    folder: PathBuf,
    held: Arc<Mutex<HeldResults>>,
}

/// One result by name and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Link {
    key: ResultKey,
    content: Digest,
}

/// The first line of a file.
#[derive(Debug, Deserialize)]
struct Head {
    /// What it builds on; none: it is whole.
    base: Option<Link>,
    changes: Changes,
}

/// A result with what it is made of.
#[derive(Clone, Debug)]
struct Held {
    result: StateResult,
    /// Those that it builds on, the whole one first; then itself.
    chain: Arc<[Link]>,
}

impl Held {
    fn content(&self) -> Option<Digest> {
        self.chain.last().map(|link| link.content)
    }
}

#[derive(Debug, Default)]
struct HeldResults {
    by_key: HashMap<ResultKey, (Held, u64)>,
    /// Counts uses.
    now: u64,
    last: Option<ResultKey>,
}

impl HeldResults {
    fn get(&mut self, key: &ResultKey) -> Option<Held> {
        self.now += 1;
        let (held, used) = self.by_key.get_mut(key)?;
        *used = self.now;
        self.last = Some(*key);
        Some(held.clone())
    }

    fn put(&mut self, key: ResultKey, held: Held) {
        self.now += 1;
        self.by_key.insert(key, (held, self.now));
        self.last = Some(key);
        if self.by_key.len() > HELD
            && let Some(oldest) = self.by_key.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key)
        {
            self.by_key.remove(&oldest);
        }
    }
}

impl FileResults {
    /// Results in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder, held: Arc::default() }
    }

    fn path(&self, key: &ResultKey) -> PathBuf {
        let name = key.0.to_string();
        let (head, tail) = name.split_at(2);
        self.folder.join(head).join(tail)
    }

    fn held(&self) -> MutexGuard<'_, HeldResults> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result as its file says; `None` where it, or anything that it builds on, is not what it was.
    fn load(&self, key: &ResultKey) -> Result<Option<Held>, FileError> {
        // From the result down to what is whole or held, then up again.
        let mut found: Vec<(Link, Delta)> = Vec::new();
        let mut next = *key;
        let mut wanted = None;
        let mut below = loop {
            if let Some(held) = self.held().get(&next).filter(|held| wanted.is_some() && held.content() == wanted) {
                break Some(held);
            }
            let Some(file) = atomic::read(&self.path(&next))?.and_then(|bytes| File::decode(&next, &bytes)) else {
                return Ok(None);
            };
            if wanted.is_some_and(|wanted| wanted != file.content) || found.len() > LONGEST_CHAIN {
                return Ok(None);
            }
            // What the file is made of is in memory: only what does not depend on others may be new.
            if let Some(held) = self.held().get(&next).filter(|held| held.content() == Some(file.content)) {
                let Some(own) = file.own() else { return Ok(None) };
                let result = Delta { changes: Changes::default(), own }.apply(Some(&held.result));
                break Some(Held { result, ..held });
            }
            let Some((head, own)) = file.head().zip(file.own()) else { return Ok(None) };
            found.push((Link { key: next, content: file.content }, Delta { changes: head.changes, own }));
            match head.base {
                Some(link) => (next, wanted) = (link.key, Some(link.content)),
                None => break None,
            }
        };
        for (link, delta) in found.into_iter().rev() {
            below = Some(self.hold(link, delta, below.as_ref()));
        }
        Ok(below)
    }

    /// Makes a result of what it builds on and keeps it in memory.
    fn hold(&self, link: Link, delta: Delta, below: Option<&Held>) -> Held {
        let mut result = delta.apply(below.map(|held| &held.result));
        let mut all = self.held();
        if below.is_none()
            && let Some(last) = all.last.and_then(|last| all.get(&last))
        {
            result.share_with(&last.result);
        }
        let chain = below.iter().flat_map(|held| held.chain.iter().copied()).chain([link]).collect();
        let held = Held { result, chain };
        all.put(link.key, held.clone());
        held
    }

    /// The result that one of this name is best kept as a difference to: the one before, or the whole one that that
    /// builds on, once the chain is long. Never one that builds on what is replaced.
    fn base_for(&self, key: &ResultKey, before: Option<&ResultKey>) -> Result<Option<Held>, FileError> {
        let Some(before) = before.map(|before| self.load(before)).transpose()?.flatten() else { return Ok(None) };
        if before.chain.iter().any(|link| link.key == *key) {
            return Ok(None);
        }
        match before.chain.first() {
            Some(whole) if before.chain.len() > LONGEST_CHAIN => {
                Ok(self.load(&whole.key)?.filter(|held| held.content() == Some(whole.content)))
            }
            Some(_) | None => Ok(Some(before)),
        }
    }
}

impl ResultStore for FileResults {
    fn get(&self, key: &ResultKey) -> Result<Option<StateResult>, FileError> {
        Ok(self.load(key)?.map(|held| held.result))
    }

    fn put_after(&self, key: &ResultKey, result: &StateResult, before: Option<&ResultKey>) -> Result<(), FileError> {
        if !settles(result) {
            return Ok(());
        }
        let entries = result.units.len() + result.inputs.len() + result.config.len();
        let base = if entries < WORTH_A_DIFFERENCE { None } else { self.base_for(key, before)? };
        let difference = base.map(|base| (Delta::between(&base.result, result), base));
        let (delta, base) = match difference.filter(|(delta, _)| delta.len() * 2 <= entries) {
            Some((delta, base)) => (delta, Some(base)),
            None => (Delta::whole(result), None),
        };
        let path = self.path(key);
        let link = base.as_ref().and_then(|base| base.chain.last().copied());
        let (content, bytes) = encode(key, link, &delta).map_err(|error| FileError::new("encode", &path, error))?;
        atomic::write(&path, &bytes)?;
        self.hold(Link { key: *key, content }, delta, base.as_ref());
        Ok(())
    }

    fn forget(&self, key: &ResultKey) -> Result<(), FileError> {
        // What builds on it goes with it, here as for whoever reads the files anew.
        *self.held() = HeldResults::default();
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::new("remove", &path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Binds the rest of a file to its key, so that a file copied to another name is not believed.
fn seal(key: &ResultKey, deflated: &[u8]) -> String {
    let builder = DigestBuilder::new("bombproof/result-file/v1").field(key.0.to_string().as_bytes());
    builder.field(deflated).finish().to_string()
}

fn content(key: &ResultKey, head: &[u8]) -> Digest {
    let builder = DigestBuilder::new("bombproof/result-content/v1").field(key.0.to_string().as_bytes());
    builder.field(head).finish()
}

fn encode(key: &ResultKey, base: Option<Link>, delta: &Delta) -> std::io::Result<(Digest, Vec<u8>)> {
    #[derive(Serialize)]
    struct Written<'a> {
        base: Option<Link>,
        changes: &'a Changes,
    }
    let mut text = serde_json::to_vec(&Written { base, changes: &delta.changes })?;
    let content = content(key, &text);
    // JSON has no line feed within.
    text.push(b'\n');
    serde_json::to_writer(&mut text, &delta.own)?;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&text)?;
    let deflated = encoder.finish()?;
    let mut bytes = seal(key, &deflated).into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&deflated);
    Ok((content, bytes))
}

/// A file that is what it was when it was written.
struct File {
    content: Digest,
    text: Vec<u8>,
    /// Where the first line of the text ends.
    end: usize,
}

impl File {
    fn decode(key: &ResultKey, bytes: &[u8]) -> Option<Self> {
        let (first, deflated) = bytes.split_at_checked(65)?;
        if first.split_last()? != (&b'\n', seal(key, deflated).as_bytes()) {
            return None;
        }
        let mut text = Vec::new();
        flate2::read::ZlibDecoder::new(deflated).take(MAX_RESULT_BYTES).read_to_end(&mut text).ok()?;
        let end = text.iter().position(|byte| *byte == b'\n')?;
        Some(Self { content: content(key, &text[..end]), text, end })
    }

    fn head(&self) -> Option<Head> {
        serde_json::from_slice(&self.text[..self.end]).ok()
    }

    fn own(&self) -> Option<Own> {
        serde_json::from_slice(&self.text[self.end..]).ok()
    }
}

#[cfg(test)]
mod tests {
    use bombproof_core::id::Oid;
    use bombproof_core::outcome::Outcome;

    use super::super::laws;
    use super::*;

    /// A new reader, that holds nothing.
    fn anew(store: &FileResults) -> FileResults {
        FileResults::at(store.folder.clone())
    }

    fn store() -> (tempfile::TempDir, FileResults) {
        let folder = tempfile::tempdir().unwrap();
        let store = FileResults::at(folder.path().to_owned());
        (folder, store)
    }

    /// Every byte of the file of `damaged` once: `wanted` is never another result than `kept`.
    fn damage(store: &FileResults, damaged: &ResultKey, wanted: &ResultKey) {
        let path = store.path(damaged);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(anew(store).get(wanted).unwrap(), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(anew(store).get(wanted).unwrap(), None, "cut at {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(anew(store).get(wanted).unwrap().is_some());
    }

    #[test]
    fn the_laws_hold() {
        let (_folder, store) = store();
        laws::hold(&store);
    }

    #[test]
    fn damage_of_any_byte_is_found_and_never_served() {
        let (_folder, store) = store();
        let key = laws::key('a');
        store.put(&key, &laws::result(Outcome::Built)).unwrap();
        let path = store.path(&key);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(store.get(&key).unwrap(), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(store.get(&key).unwrap(), None, "cut at {at}");
        }
    }

    #[test]
    fn damage_of_any_byte_of_what_a_result_builds_on_is_found_too() {
        let (_folder, store) = store();
        let keys = ['a', 'b', 'c'].map(laws::key);
        let mut first = laws::large(Outcome::Built, &[]);
        // Small enough to damage every byte of it.
        for number in 70..200 {
            first.units.remove(&format!("drivers/{number}.o"));
        }
        store.put(&keys[0], &first).unwrap();
        for (key, before) in [(1, 0), (2, 1)] {
            store
                .put_after(&keys[key], &StateResult { why: key.to_string(), ..first.clone() }, Some(&keys[before]))
                .unwrap();
        }
        for damaged in keys {
            damage(&store, &damaged, &keys[2]);
        }
    }

    #[test]
    fn a_result_under_another_name_is_not_believed() {
        let (_folder, store) = store();
        store.put(&laws::key('a'), &laws::result(Outcome::Built)).unwrap();
        let other = store.path(&laws::key('b'));
        std::fs::create_dir_all(other.parent().unwrap()).unwrap();
        std::fs::copy(store.path(&laws::key('a')), other).unwrap();
        assert_eq!(store.get(&laws::key('b')).unwrap(), None);
    }

    #[test]
    fn what_builds_on_another_result_now_is_gone_and_on_an_equal_one_is_not() {
        let (_folder, store) = store();
        let [first, second] = ['a', 'b'].map(laws::key);
        let (one, two) = (laws::large(Outcome::Built, &[]), laws::large(Outcome::Skipped, &[1]));
        store.put(&first, &one).unwrap();
        store.put_after(&second, &two, Some(&first)).unwrap();
        let mut again = one.clone();
        (again.cost.wall_ms, again.why) = (99, "built once more".to_owned());
        store.put(&first, &again).unwrap();
        for store in [store.clone(), anew(&store)] {
            assert_eq!(store.get(&first).unwrap().as_ref(), Some(&again));
            assert_eq!(store.get(&second).unwrap().as_ref(), Some(&two), "only the cost is another one");
        }
        store.put(&first, &two).unwrap();
        assert_eq!(anew(&store).get(&second).unwrap(), None);
        store.put(&first, &one).unwrap();
        assert_eq!(anew(&store).get(&second).unwrap().as_ref(), Some(&two));
        store.forget(&first).unwrap();
        assert_eq!(store.get(&second).unwrap(), None, "here as for a new reader");
        assert_eq!(anew(&store).get(&second).unwrap(), None);
    }

    #[test]
    fn a_long_series_is_small_shared_and_found_from_either_end() {
        let (_folder, store) = store();
        let key = |state: usize| ResultKey::new(&Digest::of(b"target"), &Oid::parse(&format!("{state:040x}")).unwrap());
        let state = |state: usize| laws::large(Outcome::Built, &[u8::try_from(state / 2 % 100).unwrap()]);
        let count = 3 * LONGEST_CHAIN;
        for number in 0..count {
            let before = number.checked_sub(1).map(key);
            store.put_after(&key(number), &state(number), before.as_ref()).unwrap();
        }
        let size = |number: usize| std::fs::metadata(store.path(&key(number))).unwrap().len();
        assert!((1..count).all(|number| size(number) * 8 < size(0)), "only the first is whole");
        for number in (0..count).rev() {
            let reader = anew(&store);
            assert_eq!(reader.get(&key(number)).unwrap(), Some(state(number)), "{number}");
            assert!(reader.held().by_key.values().all(|(held, _)| held.chain.len() <= LONGEST_CHAIN + 1));
        }
        let reader = anew(&store);
        let read: Vec<StateResult> = (0..count).map(|number| reader.get(&key(number)).unwrap().unwrap()).collect();
        assert!(read.windows(2).all(|pair| pair[0].inputs.is_one_with(&pair[1].inputs)));
        // Every other state is equal to the one before, but where a chain begins anew.
        let equal = read.chunks(2).filter(|pair| pair[0].units.is_one_with(&pair[1].units)).count();
        assert!(equal >= count / 2 - 2, "{equal}");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let (_folder, store) = store();
        for number in 0..HELD + 9 {
            let tree = Oid::parse(&format!("{number:040x}")).unwrap();
            store.put(&ResultKey::new(&Digest::of(b"t"), &tree), &laws::result(Outcome::Built)).unwrap();
        }
        assert_eq!(store.held().by_key.len(), HELD);
    }
}
