//! Writes objects into a pack of our own (gitformat-pack(5)).
//!
//! `git fast-import` would do it, and hash everything three times over with a SHA-1 that looks for collisions: that was most of the
//! time of making states. Here each object is hashed once, and a file's next content is written as what changed of it.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bombproof_core::series::Span;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tempfile::NamedTempFile;

use super::{StatesError, delta};

/// How many deltas are put on top of each other: as many as git allows by default.
const MAX_DEPTH: u8 = 50;
/// The type number of an entry that is a delta to an earlier one.
const OFFSET_DELTA: u8 = 6;
/// Below this size an entry is not worth the work of compressing it.
const SMALL: usize = 256;
/// Offsets from here on stand in a table of their own in the index.
const LARGE: u64 = 1 << 31;

/// What an object is; the number is that of its pack entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit = 1,
    Tree = 2,
    Blob = 3,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
        }
    }
}

/// How an object differs from the one before of the same name.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    /// In these lines.
    Lines(&'a [Span]),
    /// In one place, whichever.
    OnePlace,
    Unknown,
}

/// The hash of a repository.
enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    fn new(sha256: bool) -> Self {
        if sha256 { Self::Sha256(Sha256::new()) } else { Self::Sha1(Sha1::new()) }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hash) => hash.update(bytes),
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(hash) => hash.finalize().to_vec(),
            Self::Sha256(hash) => hash.finalize().to_vec(),
        }
    }
}

/// An object of the pack.
#[derive(Clone, Copy)]
struct Entry {
    offset: u64,
    crc: u32,
    depth: u8,
}

/// A pack that is being written.
pub(super) struct Pack {
    folder: PathBuf,
    sha256: bool,
    file: BufWriter<NamedTempFile>,
    /// Where the next entry goes.
    offset: u64,
    /// By raw object id.
    entries: HashMap<Vec<u8>, Entry>,
    /// The last object of each name, and its id: the next one may be a delta to it.
    last: HashMap<String, (Vec<u8>, Arc<Vec<u8>>)>,
}

impl Pack {
    /// Begins a pack in the object store `objects`.
    pub(super) fn start(objects: &Path, sha256: bool) -> Result<Self, StatesError> {
        let folder = objects.join("objects/pack");
        // The name by which git knows what a dead writer left.
        let file = tempfile::Builder::new()
            .prefix("tmp_pack_")
            .tempfile_in(&folder)
            .map_err(|error| failed(&folder, &error))?;
        let mut pack = Self {
            folder,
            sha256,
            file: BufWriter::with_capacity(1 << 18, file),
            offset: 0,
            entries: HashMap::new(),
            last: HashMap::new(),
        };
        // The count is put right at the end.
        pack.write(b"PACK\0\0\0\x02\0\0\0\0")?;
        Ok(pack)
    }

    /// Adds an object; `name` is what it follows another one of. Gives its raw id.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        name: &str,
        content: &Arc<Vec<u8>>,
        change: Change<'_>,
    ) -> Result<Vec<u8>, StatesError> {
        let mut hash = Hasher::new(self.sha256);
        hash.update(format!("{} {}\0", kind.name(), content.len()).as_bytes());
        hash.update(content);
        let id = hash.finish();
        if !self.entries.contains_key(&id) {
            let entry = self.entry(kind, name, content, change)?;
            self.entries.insert(id.clone(), entry);
        }
        if !matches!(change, Change::Unknown) {
            self.last.insert(name.to_owned(), (id.clone(), Arc::clone(content)));
        }
        Ok(id)
    }

    fn entry(&mut self, kind: Kind, name: &str, content: &[u8], change: Change<'_>) -> Result<Entry, StatesError> {
        let before = self.last.get(name).and_then(|(id, old)| Some((*self.entries.get(id)?, old)));
        let delta = before.filter(|(entry, _)| entry.depth < MAX_DEPTH).and_then(|(entry, old)| {
            let delta = match change {
                Change::Lines(spans) => delta::between(old, content, spans),
                Change::OnePlace => delta::one_place(old, content),
                Change::Unknown => None,
            };
            Some((entry, delta?))
        });
        let mut bytes = Vec::new();
        let depth = match &delta {
            Some((base, delta)) => {
                head(&mut bytes, OFFSET_DELTA, delta.len());
                backwards(&mut bytes, self.offset - base.offset);
                base.depth + 1
            }
            None => {
                head(&mut bytes, kind as u8, content.len());
                0
            }
        };
        match &delta {
            Some((_, delta)) if delta.len() >= SMALL => {
                let mut deflated = ZlibEncoder::new(bytes, Compression::fast());
                let done = deflated.write_all(delta).and_then(|()| deflated.finish());
                bytes = done.map_err(|error| failed(&self.folder, &error))?;
            }
            Some((_, delta)) => stored(&mut bytes, delta),
            // Not compressed: it is read again soon, by builds on this machine.
            None => stored(&mut bytes, content),
        }
        let entry = Entry { offset: self.offset, crc: crc32fast::hash(&bytes), depth };
        self.write(&bytes)?;
        Ok(entry)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StatesError> {
        self.file.write_all(bytes).map_err(|error| failed(&self.folder, &error))?;
        self.offset += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }

    /// Puts the pack where git finds it.
    pub(super) fn finish(self) -> Result<(), StatesError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let Self { folder, sha256, file, entries, .. } = self;
        Self::install(&folder, sha256, file, entries).map_err(|error| failed(&folder, &error))
    }

    fn install(
        folder: &Path,
        sha256: bool,
        file: BufWriter<NamedTempFile>,
        entries: HashMap<Vec<u8>, Entry>,
    ) -> std::io::Result<()> {
        let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let count = u32::try_from(entries.len()).map_err(std::io::Error::other)?;
        file.seek(SeekFrom::Start(8))?;
        file.write_all(&count.to_be_bytes())?;
        file.seek(SeekFrom::Start(0))?;
        let mut hash = Hasher::new(sha256);
        let mut piece = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
        }
        let sum = hash.finish();
        file.write_all(&sum)?;
        let place = |kind: &str| folder.join(format!("pack-{}.{kind}", hex(&sum)));
        let mut entries: Vec<(Vec<u8>, Entry)> = entries.into_iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let index = index(sha256, &entries, &sum);
        // An index without its pack would be an error to git: the pack goes first. Both are on the disk before they have names.
        let mut written = tempfile::Builder::new().prefix("tmp_idx_").tempfile_in(folder)?;
        written.write_all(&index)?;
        for (file, kind) in [(file, "pack"), (written, "idx")] {
            file.as_file().set_permissions(Permissions::from_mode(0o444))?;
            file.as_file().sync_data()?;
            file.persist(place(kind)).map_err(|error| error.error)?;
        }
        Ok(())
    }
}

/// The index of a pack, version 2; `entries` by id.
fn index(sha256: bool, entries: &[(Vec<u8>, Entry)], sum: &[u8]) -> Vec<u8> {
    let mut out = b"\xfftOc\0\0\0\x02".to_vec();
    let mut at = 0;
    for first in 0..=u8::MAX {
        at += entries[at..].iter().take_while(|(id, _)| id.first() == Some(&first)).count();
        out.extend_from_slice(&u32::try_from(at).unwrap_or(u32::MAX).to_be_bytes());
    }
    for (id, _) in entries {
        out.extend_from_slice(id);
    }
    for (_, entry) in entries {
        out.extend_from_slice(&entry.crc.to_be_bytes());
    }
    let mut large = Vec::new();
    for (_, entry) in entries {
        let short = u32::try_from(entry.offset).ok().filter(|_| entry.offset < LARGE).unwrap_or_else(|| {
            large.push(entry.offset);
            0x8000_0000 | u32::try_from(large.len() - 1).unwrap_or(0)
        });
        out.extend_from_slice(&short.to_be_bytes());
    }
    for offset in large {
        out.extend_from_slice(&offset.to_be_bytes());
    }
    out.extend_from_slice(sum);
    let mut hash = Hasher::new(sha256);
    hash.update(&out);
    out.extend_from_slice(&hash.finish());
    out
}

/// The zlib format (RFC 1950, 1951) without compression: blocks of at most 65,535 bytes.
fn stored(out: &mut Vec<u8>, content: &[u8]) {
    out.reserve(content.len() + content.len() / 8_192 + 16);
    out.extend_from_slice(&[0x78, 0x01]);
    let mut rest = content;
    loop {
        let (block, after) = rest.split_at(rest.len().min(usize::from(u16::MAX)));
        let size = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(after.is_empty()));
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&(!size).to_le_bytes());
        out.extend_from_slice(block);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    out.extend_from_slice(&simd_adler32::adler32(&content).to_be_bytes());
}

/// Type and size of an entry: four bits of the size, then seven a byte.
fn head(out: &mut Vec<u8>, kind: u8, size: usize) {
    let mut byte = (kind << 4) | u8::try_from(size & 15).unwrap_or(0);
    let mut rest = size >> 4;
    while rest > 0 {
        out.push(byte | 0x80);
        byte = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
    }
    out.push(byte);
}

/// How far back the base of a delta lies: seven bits a byte, the high ones first, and one less in each byte but the last.
fn backwards(out: &mut Vec<u8>, far: u64) {
    let low = |number: u64| u8::try_from(number & 0x7f).unwrap_or(0);
    let mut bytes = vec![low(far)];
    let mut rest = far >> 7;
    while rest > 0 {
        rest -= 1;
        bytes.push(low(rest) | 0x80);
        rest >>= 7;
    }
    out.extend(bytes.iter().rev());
}

/// A raw id as git prints it.
pub(super) fn hex(id: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    id.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(DIGITS[usize::from(half)])).collect()
}

/// The raw form of an id.
pub(super) fn unhex(id: &str) -> Vec<u8> {
    let half = |digit: &u8| char::from(*digit).to_digit(16).and_then(|half| u8::try_from(half).ok()).unwrap_or(0);
    id.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |high, digit| (high << 4) | half(digit))).collect()
}

fn failed(folder: &Path, error: &std::io::Error) -> StatesError {
    StatesError::Write { path: folder.to_owned(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::states::git::Git;

    #[test]
    fn git_reads_back_every_content_of_a_pack() {
        for sha256 in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let top = folder.path();
            let format = if sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
            let git = Git::at(top);
            git.run(["init", "-q", "--bare", format]).unwrap();
            let mut pack = Pack::start(top, sha256).unwrap();
            let mut wanted = Vec::new();
            let mut lines: Vec<String> = (0..5_000).map(|n| format!("line {n} of a file\n")).collect();
            for turn in 0..150_usize {
                // Longer than the deltas may be stacked; each puts another line, and the file grows.
                lines.insert(turn * 7, format!("turn {turn}\n"));
                let content = Arc::new(lines.concat().into_bytes());
                let start = u32::try_from(turn * 7 + 1).unwrap();
                let spans = [Span { old_start: start, old_lines: 0, new_start: start, new_lines: 1 }];
                wanted.push((pack.add(Kind::Blob, "grows", &content, Change::Lines(&spans)).unwrap(), content));
            }
            for content in [
                b"".to_vec(),
                b"\0\x01\xff".repeat(70_000),
                vec![7; 65_535],
                vec![8; 65_536],
                b"x".to_vec(),
                b"x".to_vec(),
            ] {
                let content = Arc::new(content);
                wanted.push((pack.add(Kind::Blob, "other", &content, Change::Lines(&[])).unwrap(), content));
            }
            pack.finish().unwrap();
            let mut reader = git.talk(["cat-file", "--batch"]).unwrap();
            for (id, content) in &wanted {
                let oid = hex(id);
                assert_eq!(&unhex(&oid), id);
                reader.write(format!("{oid}\n").as_bytes()).unwrap();
                let object = reader.object(true).unwrap().unwrap();
                assert_eq!(object.kind, "blob");
                assert!(object.bytes == **content, "{oid}");
            }
            let names = std::fs::read_dir(top.join("objects/pack")).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
            names.sort();
            let [idx, pack] = names.as_slice() else { panic!("{names:?}") };
            assert!(std::fs::metadata(pack).unwrap().len() < 1_500_000, "deltas are small");
            // The whole pack, every checksum, and the same index as git makes.
            git.run(["verify-pack", idx.to_str().unwrap()]).unwrap();
            let made = top.join("made.idx");
            let args = ["index-pack", "-o", made.to_str().unwrap(), pack.to_str().unwrap()];
            assert!(Command::new("git").current_dir(top).args(args).output().unwrap().status.success());
            assert!(std::fs::read(idx).unwrap() == std::fs::read(made).unwrap());
            git.run(["fsck", "--strict"]).unwrap();
        }
    }

    #[test]
    fn offsets_beyond_two_gibibytes_are_written_as_git_reads_them() {
        let entries: Vec<(Vec<u8>, Entry)> = [12, LARGE - 1, LARGE, 1 << 40]
            .into_iter()
            .zip(1..)
            .map(|(offset, id)| (vec![id; 20], Entry { offset, crc: 7, depth: 0 }))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("idx");
        std::fs::write(&path, index(false, &entries, &[0; 20])).unwrap();
        let shown = Command::new("git").arg("show-index").stdin(std::fs::File::open(path).unwrap()).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let want: Vec<String> =
            entries.iter().map(|(id, entry)| format!("{} {} (00000007)", entry.offset, hex(id))).collect();
        assert_eq!(shown.lines().collect::<Vec<_>>(), want);
    }
}
