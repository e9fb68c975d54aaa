//! The laws of every content-addressed store.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "these are tests, of other rooms too")]

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// All of them; `hours_pass` makes every use so far two hours older.
pub fn hold(cas: &dyn Cas, hours_pass: &dyn Fn(&dyn Cas)) {
    serve(cas);
    the_longest_unused_goes_first(cas, hours_pass);
    what_is_pinned_stays(cas, hours_pass);
}

/// The part of the laws that holds for a store whose blobs another one evicts, too.
pub fn serve(cas: &dyn Cas) {
    what_was_put_is_there(cas);
    files_are_taken_in(cas);
    files_are_given_out(cas);
}

fn opened(cas: &dyn Cas, blob: &BlobDigest) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    cas.open(blob).unwrap()?.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

fn what_was_put_is_there(cas: &dyn Cas) {
    let large = vec![7; 300_000];
    for bytes in [&b""[..], b"one", b"\0\xff\n", &large] {
        let blob = BlobDigest::of(bytes);
        // The Remote Execution API has the empty blob always there.
        if !bytes.is_empty() {
            assert_eq!(cas.get(&blob).unwrap(), None, "it was never put");
            assert_eq!(opened(cas, &blob), None, "it was never put");
            assert!(!cas.check(&blob).unwrap(), "it was never put");
            assert_eq!(cas.missing(&[blob]), [blob]);
        }
        assert_eq!(cas.put(bytes).unwrap(), blob);
        assert_eq!(cas.put(bytes).unwrap(), blob, "putting again changes nothing");
        assert_eq!(cas.get(&blob).unwrap().as_deref(), Some(bytes));
        let other = BlobDigest { size_bytes: blob.size_bytes + 1, ..blob };
        assert_eq!(opened(cas, &blob).as_deref(), Some(bytes));
        assert!(cas.check(&blob).unwrap());
        assert_eq!(cas.get(&other).unwrap(), None, "the size is part of the name");
        assert_eq!(opened(cas, &other), None, "the size is part of the name");
        assert!(!cas.check(&other).unwrap(), "the size is part of the name");
        assert_eq!(cas.missing(&[other, blob]), [other]);
        assert_eq!(cas.get(&blob).unwrap().as_deref(), Some(bytes), "and asking for another harms nothing");
    }
    let (a, b) = (BlobDigest::of(b"never a"), BlobDigest::of(b"never b"));
    assert_eq!(cas.missing(&[b, BlobDigest::of(b"one"), a]), [b, a], "in the given order");
    assert_eq!(cas.verify().unwrap().damaged, []);
    assert_eq!(cas.damaged(), 0);
}

fn files_are_taken_in(cas: &dyn Cas) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for _ in 0..2 {
        std::fs::write(&path, "from a file").unwrap();
        assert_eq!(cas.put_file(&path).unwrap(), BlobDigest::of(b"from a file"));
        assert!(!path.exists(), "the file is consumed");
    }
    assert_eq!(cas.get(&BlobDigest::of(b"from a file")).unwrap().as_deref(), Some(&b"from a file"[..]));
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(cas.put_file(&path), Err(CasError::NotAFile { .. })), "a link leads anywhere");
    assert!(matches!(cas.put_file(folder.path()), Err(CasError::NotAFile { .. })));
    assert!(matches!(cas.put_file(&folder.path().join("none")), Err(CasError::File(_))));
}

fn files_are_given_out(cas: &dyn Cas) {
    let folder = tempfile::tempdir().unwrap();
    let blob = cas.put(b"given out").unwrap();
    for executable in [false, true, false, true] {
        let (linked, copied) = (folder.path().join("linked"), folder.path().join("copied"));
        assert!(cas.link(&blob, &linked, executable).unwrap());
        assert!(cas.copy(&blob, &copied, executable).unwrap());
        assert_eq!(std::fs::read(&linked).unwrap(), b"given out");
        assert_eq!(std::fs::read(&copied).unwrap(), b"given out");
        assert_eq!(mode(&linked), if executable { 0o555 } else { 0o444 });
        assert_eq!(mode(&copied) & 0o700, if executable { 0o700 } else { 0o600 });
        assert!(matches!(cas.link(&blob, &linked, executable), Err(CasError::File(_))), "something is there");
        assert!(matches!(cas.copy(&blob, &copied, executable), Err(CasError::File(_))), "something is there");
        std::fs::write(&copied, "written to").unwrap();
        std::fs::remove_file(&linked).unwrap();
        std::fs::remove_file(&copied).unwrap();
        assert_eq!(cas.get(&blob).unwrap().as_deref(), Some(&b"given out"[..]), "a copy is its owner's alone");
    }
    let none = BlobDigest::of(b"never put");
    let to = folder.path().join("none");
    assert!(!cas.link(&none, &to, false).unwrap());
    assert!(!cas.link(&none, &to, true).unwrap());
    assert!(!cas.copy(&none, &to, false).unwrap());
    assert!(!to.exists());
    let wrong = BlobDigest { size_bytes: blob.size_bytes + 1, ..blob };
    assert!(!cas.link(&wrong, &to, false).unwrap(), "the size is part of the name");
    assert!(!cas.copy(&wrong, &to, true).unwrap(), "the size is part of the name");
    assert!(!to.exists());
    let nowhere = folder.path().join("no/folder/here");
    assert!(matches!(cas.link(&blob, &nowhere, false), Err(CasError::File(_))), "that is no missing blob");
    assert!(matches!(cas.copy(&blob, &nowhere, false), Err(CasError::File(_))), "that is no missing blob");
}

fn the_longest_unused_goes_first(cas: &dyn Cas, hours_pass: &dyn Fn(&dyn Cas)) {
    let put = |text: &str| {
        let blob = cas.put(text.as_bytes()).unwrap();
        hours_pass(cas);
        blob
    };
    let [first, second, third, fourth] = ["first", "secnd", "third", "forth"].map(put);
    assert_eq!(cas.get(&first).unwrap().as_deref(), Some(&b"first"[..]));
    hours_pass(cas);
    assert_eq!(cas.missing(&[second]), []);
    hours_pass(cas);
    let report = cas.gc(u64::MAX).unwrap();
    assert_eq!((report.evicted, report.evicted_bytes), (0, 0), "there is room");
    let report = cas.gc(14).unwrap();
    assert_eq!((report.kept, report.kept_bytes), (2, 10), "a third one would be too much");
    assert_eq!(cas.missing(&[first, second, third, fourth]), [third, fourth], "use counts, not age");
    hours_pass(cas);
    let report = cas.gc(0).unwrap();
    assert_eq!((report.evicted, report.evicted_bytes, report.kept, report.kept_bytes), (2, 10, 0, 0));
    assert_eq!(cas.get(&first).unwrap(), None);
    cas.put(b"first").unwrap();
    assert_eq!(cas.missing(&[first]), [], "it can come again");
}

fn what_is_pinned_stays(cas: &dyn Cas, hours_pass: &dyn Fn(&dyn Cas)) {
    let (held, free) = (BlobDigest::of(b"held"), cas.put(b"free").unwrap());
    let guard = cas.pin(&[held]).unwrap();
    let again = cas.pin(&[held, free]).unwrap();
    cas.put(b"held").unwrap();
    hours_pass(cas);
    cas.gc(0).unwrap();
    assert_eq!(cas.missing(&[held, free]), []);
    drop(again);
    hours_pass(cas);
    cas.gc(0).unwrap();
    assert_eq!(cas.missing(&[held, free]), [free], "one guard is left, and holds one");
    drop(guard);
    hours_pass(cas);
    assert_eq!(cas.gc(0).unwrap().kept, 0);
    assert_eq!(cas.missing(&[held]), [held]);
}
