use bombproof_store::cas::MemoryCas;

use super::*;

fn uploads(folder: &tempfile::TempDir, limits: &Limits) -> Uploads {
    Uploads::new(folder.path().join("uploads"), limits).unwrap()
}

fn name(upload: &str, bytes: &[u8]) -> WriteName {
    WriteName { instance: String::new(), upload: upload.to_owned(), blob: BlobDigest::of(bytes) }
}

fn files(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path().join("uploads")).unwrap().count()
}

#[test]
fn an_upload_goes_on_and_its_newest_stream_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder, &Limits::default());
    let cas = MemoryCas::default();
    let name = name("one", b"some bytes");
    assert_eq!(uploads.committed(&name), None);
    let (old, at) = uploads.begin(&name, true).unwrap();
    assert_eq!(at, 0);
    uploads.append(&old, b"some").unwrap();
    let (new, at) = uploads.begin(&name, false).unwrap();
    assert_eq!(at, 4);
    assert!(matches!(uploads.append(&old, b" other"), Err(UploadFailure::TakenOver)));
    assert!(matches!(uploads.finish(&old, &cas), Err(UploadFailure::TakenOver)));
    uploads.append(&new, b" bytes").unwrap();
    assert_eq!(uploads.committed(&name), Some(10));
    uploads.finish(&new, &cas).unwrap();
    assert_eq!(cas.get(&name.blob).unwrap().as_deref(), Some(&b"some bytes"[..]));
    assert_eq!(uploads.committed(&name), None);
    drop((old, new));
    assert_eq!((files(&folder), uploads.held_bytes()), (0, 0));
}

#[test]
fn another_content_is_refused_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder, &Limits::default());
    let cas = MemoryCas::default();
    let name = name("one", b"right");
    let (hold, _) = uploads.begin(&name, true).unwrap();
    uploads.append(&hold, b"wrong").unwrap();
    assert!(matches!(uploads.finish(&hold, &cas), Err(UploadFailure::Wrong { .. })));
    assert_eq!(cas.verify().unwrap().blobs, 0);
    drop(hold);
    assert_eq!((files(&folder), uploads.held_bytes()), (0, 0));
}

#[test]
fn their_number_is_bounded_and_what_rests_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder, &Limits { uploads: 2, ..Limits::default() });
    let [one, two, three] = ["one", "two", "three"].map(|upload| name(upload, b"content"));
    let (first, _) = uploads.begin(&one, true).unwrap();
    let (second, _) = uploads.begin(&two, true).unwrap();
    assert!(matches!(uploads.begin(&three, true), Err(UploadFailure::TooMany(2))));
    uploads.append(&second, b"con").unwrap();
    drop(second);
    let (_third, _) = uploads.begin(&three, true).unwrap();
    assert_eq!(uploads.committed(&two), None, "nobody wrote to it");
    assert_eq!(uploads.committed(&one), Some(0), "somebody has it");
    assert_eq!((files(&folder), uploads.held_bytes()), (2, 0));
    drop(first);
}

#[test]
fn their_bytes_are_bounded_too() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder, &Limits { uploads_bytes: 10, ..Limits::default() });
    let (one, two) = (name("one", b"12345678"), name("two", b"123456789"));
    let (first, _) = uploads.begin(&one, true).unwrap();
    uploads.append(&first, b"1234567").unwrap();
    let (second, _) = uploads.begin(&two, true).unwrap();
    assert!(matches!(uploads.append(&second, b"1234"), Err(UploadFailure::TooMuch(10))));
    drop(first);
    uploads.append(&second, b"1234").unwrap();
    assert_eq!((uploads.committed(&one), uploads.committed(&two)), (None, Some(4)));
    assert_eq!(uploads.held_bytes(), 4);
}

#[test]
fn what_nobody_goes_on_with_goes() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = uploads(&folder, &Limits { upload_idle: Duration::ZERO, ..Limits::default() });
    let (one, two) = (name("one", b"content"), name("two", b"content"));
    drop(uploads.begin(&one, true).unwrap());
    let (_held, _) = uploads.begin(&two, true).unwrap();
    uploads.sweep();
    assert_eq!((uploads.committed(&one), uploads.committed(&two)), (None, Some(0)));
    assert_eq!(files(&folder), 1);
}

#[test]
fn files_that_a_dead_server_left_go_and_those_of_a_living_one_stay() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("uploads");
    std::fs::create_dir_all(&place).unwrap();
    let [old, new, other] = ["upload-old", "upload-new", "other"].map(|name| place.join(name));
    for path in [&old, &new, &other] {
        let file = File::create(path).unwrap();
        if path != &new {
            file.set_modified(SystemTime::now() - LEFTOVER * 2).unwrap();
        }
    }
    uploads(&folder, &Limits::default());
    assert_eq!([old, new, other].map(|path| path.exists()), [false, true, true]);
}
