//! Damage is found and never served.

use super::*;

const BYTES: &[u8] = b"every byte of this counts";

/// Damages of a blob, each with what it is.
fn damages() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for at in 0..BYTES.len() {
        for bit in [0, 7] {
            let mut bytes = BYTES.to_vec();
            bytes[at] ^= 1 << bit;
            all.push((format!("bit {bit} of byte {at}"), bytes));
        }
        all.push((format!("cut at {at}"), BYTES[..at].to_vec()));
    }
    all.push(("one byte more".to_owned(), [BYTES, b"x"].concat()));
    all.push(("zeros, as after a power loss".to_owned(), vec![0; BYTES.len()]));
    all
}

#[test]
fn no_damage_is_served_in_any_way() {
    let (folder, cas) = store();
    let blob = BlobDigest::of(BYTES);
    let to = folder.path().join("to");
    type Way<'a> = (&'a str, &'a dyn Fn(&DiskCas) -> bool);
    let ways: [Way<'_>; 6] = [
        ("open", &|cas| cas.open(&blob).unwrap().is_none()),
        ("check", &|cas| !cas.check(&blob).unwrap()),
        ("get", &|cas| cas.get(&blob).unwrap().is_none()),
        ("link", &|cas| !cas.link(&blob, &to, false).unwrap()),
        ("link as a program", &|cas| !cas.link(&blob, &to, true).unwrap()),
        ("copy", &|cas| !cas.copy(&blob, &to, false).unwrap()),
    ];
    let path = cas.path(&blob.hash, Form::Plain);
    for (what, bytes) in damages() {
        for (way, is_missed) in ways {
            cas.put(BYTES).unwrap();
            let whole = time(&path);
            write_into(&path, &bytes);
            set_time(&path, whole);
            let reader = again(folder.path());
            assert!(is_missed(&reader), "{what}, {way}");
            assert!(!path.exists() && !to.exists(), "{what}, {way}");
            assert_eq!(reader.damaged(), 1, "{what}, {way}");
            assert_eq!(reader.missing(&[blob]), [blob]);
        }
    }
}

#[test]
fn putting_again_heals() {
    let (folder, cas) = store();
    let blob = BlobDigest::of(BYTES);
    let path = cas.path(&blob.hash, Form::Plain);
    let from = folder.path().join("file");
    for (what, bytes) in damages() {
        for file in [false, true] {
            cas.put(BYTES).unwrap();
            write_into(&path, &bytes);
            let healer = again(folder.path());
            if file {
                std::fs::write(&from, BYTES).unwrap();
                healer.put_file(&from).unwrap();
            } else {
                healer.put(BYTES).unwrap();
            }
            assert_eq!(healer.get(&blob).unwrap().as_deref(), Some(BYTES), "{what}");
        }
    }
}

#[test]
fn what_is_written_through_a_link_is_found_by_the_next_link() {
    let (folder, cas) = store();
    let blob = cas.put(BYTES).unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    for (executable, is_served) in [(true, true), (false, false)] {
        assert!(cas.link(&blob, &first, executable).unwrap());
        // Longer than a clock of a file system takes to go on.
        std::thread::sleep(Duration::from_millis(30));
        write_into(&first, b"overwritten, by a program");
        // A program is made again from the blob itself.
        assert_eq!(cas.link(&blob, &second, executable).unwrap(), is_served);
        assert_eq!(cas.damaged(), if executable { 1 } else { 2 });
        if is_served {
            assert_eq!(std::fs::read(&second).unwrap(), BYTES);
            std::fs::remove_file(&second).unwrap();
        }
        std::fs::remove_file(&first).unwrap();
    }
}

#[test]
fn reading_everything_drops_what_is_damaged_and_nothing_else() {
    let (folder, cas) = store();
    let [good, bad, short, program] = ["good", "bad", "short", "program"].map(|text| cas.put(text.as_bytes()).unwrap());
    let to = folder.path().join("to");
    assert!(cas.link(&program, &to, true).unwrap());
    assert_eq!(cas.verify().unwrap(), VerifyReport { blobs: 4, bytes: 19, damaged: Vec::new() });
    write_into(&cas.path(&bad.hash, Form::Plain), b"bat");
    write_into(&cas.path(&short.hash, Form::Plain), b"");
    write_into(&to, b"pogrom");
    let mut damaged = vec![bad.hash, short.hash, program.hash];
    damaged.sort_unstable();
    assert_eq!(cas.verify().unwrap(), VerifyReport { blobs: 2, bytes: 11, damaged });
    assert_eq!(cas.damaged(), 3);
    assert_eq!(cas.missing(&[good, bad, short, program]), [bad, short]);
    assert_eq!(cas.verify().unwrap().damaged, []);
}

#[test]
fn what_a_killed_writer_left_is_ignored_and_removed_later() {
    let (_folder, cas) = store();
    cas.put(b"whole").unwrap();
    let left = cas.folder().join("tmp/new-left");
    std::fs::write(&left, "half").unwrap();
    assert_eq!(cas.stats().unwrap().blobs, 1);
    assert_eq!(cas.verify().unwrap(), VerifyReport { blobs: 1, bytes: 5, damaged: Vec::new() });
    assert_eq!(cas.gc(u64::MAX).unwrap().leftovers, 0, "its writer may be alive");
    set_time(&left, SystemTime::now() - Duration::from_secs(3700));
    assert_eq!(cas.gc(u64::MAX).unwrap().leftovers, 1);
    assert!(!left.exists());
}
