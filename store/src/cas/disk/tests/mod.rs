use super::*;
use crate::cas::laws;

mod damage;
mod model;
mod processes;

/// A folder that goes at the end, and a store in it that evicts without grace.
pub(super) fn store() -> (tempfile::TempDir, DiskCas) {
    let folder = tempfile::tempdir().unwrap();
    let cas = again(folder.path());
    (folder, cas)
}

/// Another store in that folder, as another process has it.
pub(super) fn again(folder: &Path) -> DiskCas {
    DiskCas::at(folder.join("cas")).grace(Duration::ZERO)
}

/// Every use so far becomes older.
pub(super) fn pass(cas: &DiskCas, time: Duration) {
    for entry in walk::files(&cas.folder).unwrap() {
        set_time(&cas.path(&entry.hash, entry.form), entry.last_use - time);
    }
}

pub(super) fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_modified(time).unwrap();
}

pub(super) fn time(path: &Path) -> SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

/// Writes into a file as it is, whatever its mode.
pub(super) fn write_into(path: &Path, bytes: &[u8]) {
    std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

pub(super) fn names(folder: &Path) -> usize {
    walk::list(folder).unwrap().len()
}

#[test]
fn the_laws_hold() {
    for durable in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let cas = DiskCas::at(folder.path().join("cas")).durable(durable);
        let path = cas.folder().to_owned();
        laws::hold(&cas, &|_| pass(&DiskCas::at(path.clone()), Duration::from_secs(7200)));
    }
}

#[test]
fn a_linked_file_is_that_of_the_store() {
    let (folder, cas) = store();
    let blob = cas.put(b"shared").unwrap();
    for executable in [false, true] {
        let to = folder.path().join(executable.to_string());
        assert!(cas.link(&blob, &to, executable).unwrap());
        let form = if executable { Form::Program } else { Form::Plain };
        assert_eq!(to.metadata().unwrap().ino(), cas.path(&blob.hash, form).metadata().unwrap().ino());
    }
    assert_eq!(cas.stats().unwrap().blobs, 1);
    assert_eq!(cas.stats().unwrap().bytes, 12, "programs count twice");
}

#[test]
fn what_somebody_was_told_is_there_is_safe_for_a_while_where_uses_are_written_down_often() {
    let folder = tempfile::tempdir().unwrap();
    let cas = DiskCas::at(folder.path().join("cas")).refresh(Duration::from_secs(300));
    let [asked, not] = [b"asked", b"notas"].map(|text| cas.put(text).unwrap());
    pass(&cas, Duration::from_secs(1800));
    assert_eq!(cas.missing(&[asked]), []);
    assert_eq!(cas.gc(0).unwrap().evicted, 1);
    assert_eq!(cas.missing(&[asked, not]), [not]);
}

#[test]
fn a_use_is_written_down_once_an_hour() {
    let (folder, cas) = store();
    let blob = cas.put(b"used").unwrap();
    let path = cas.path(&blob.hash, Form::Plain);
    let uses: [&dyn Fn(); 4] = [
        &|| assert!(cas.get(&blob).unwrap().is_some()),
        &|| assert_eq!(cas.missing(&[blob]), []),
        &|| assert_eq!(cas.put(b"used").unwrap(), blob),
        &|| {
            let to = folder.path().join("linked");
            assert!(cas.link(&blob, &to, false).unwrap());
            std::fs::remove_file(to).unwrap();
        },
    ];
    for used in uses {
        let recent = SystemTime::now() - Duration::from_secs(3500);
        set_time(&path, recent);
        used();
        assert_eq!(time(&path), recent);
        let old = SystemTime::now() - Duration::from_secs(3700);
        set_time(&path, old);
        used();
        assert!(time(&path) > recent);
    }
}

#[test]
fn what_was_just_used_is_not_evicted() {
    let (folder, _) = store();
    let cas = DiskCas::at(folder.path().join("cas"));
    let blob = cas.put(b"young").unwrap();
    assert_eq!(cas.gc(0).unwrap().evicted, 0);
    pass(&cas, Duration::from_secs(660));
    assert_eq!(cas.gc(0).unwrap().evicted, 1);
    // A clock that was set back must not keep a blob for ever.
    cas.put(b"young").unwrap();
    set_time(&cas.path(&blob.hash, Form::Plain), SystemTime::now() + Duration::from_secs(86_400));
    assert_eq!(cas.gc(0).unwrap().evicted, 1);
}

#[test]
fn a_file_with_another_name_is_copied() {
    let (folder, cas) = store();
    let (path, other) = (folder.path().join("file"), folder.path().join("other"));
    std::fs::write(&path, "content").unwrap();
    std::fs::hard_link(&path, &other).unwrap();
    let blob = cas.put_file(&path).unwrap();
    assert!(!path.exists());
    std::fs::write(&other, "changed").unwrap();
    assert_eq!(cas.get(&blob).unwrap().as_deref(), Some(&b"content"[..]));
    // The blob itself under another name.
    assert!(cas.link(&blob, &path, false).unwrap());
    assert_eq!(cas.put_file(&path).unwrap(), blob);
    assert!(!path.exists());
    assert_eq!(cas.get(&blob).unwrap().as_deref(), Some(&b"content"[..]));
}

#[test]
fn another_file_system_gets_copies() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return };
    let (folder, cas) = store();
    if other.path().metadata().unwrap().dev() == folder.path().metadata().unwrap().dev() {
        return;
    }
    let path = other.path().join("file");
    std::fs::write(&path, "from there").unwrap();
    let blob = cas.put_file(&path).unwrap();
    assert!(!path.exists());
    for (executable, mode) in [(false, 0o444), (true, 0o555)] {
        assert!(cas.link(&blob, &path, executable).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"from there");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, mode);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let (_folder, cas) = store();
    cas.put(b"ours").unwrap();
    for name in ["README", "ab/notes", "zz/0", "pins/.x"] {
        let path = cas.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "not ours").unwrap();
    }
    assert_eq!(cas.stats().unwrap().blobs, 1);
    assert_eq!(cas.verify().unwrap().damaged, []);
    assert_eq!(cas.gc(0).unwrap().evicted, 1);
    assert!(cas.folder().join("README").exists() && cas.folder().join("ab/notes").exists());
}
