use super::*;
use crate::cas::laws;

fn hours_pass(folder: &Path) {
    for entry in walk::files(folder).unwrap() {
        let cas = DiskCas::at(folder.to_owned());
        let file = File::open(cas.path(&entry.hash, entry.form)).unwrap();
        file.set_modified(entry.last_use - Duration::from_secs(7200)).unwrap();
    }
}

#[test]
fn the_laws_hold() {
    for durable in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        laws::hold(&DiskCas::at(folder.path().join("cas")).durable(durable), &|_| {
            hours_pass(&folder.path().join("cas"));
        });
    }
}
