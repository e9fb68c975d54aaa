//! Any sequence of steps gives what a simple model says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Contents that differ in size.
const CONTENTS: [&[u8]; 5] = [b"", b"a", b"bb2", b"cccc4", b"a longer one"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(usize),
    PutFile(usize),
    Get(usize),
    Link(usize, bool),
    Copy(usize),
    Missing,
    /// A bit is flipped.
    Flip(usize),
    /// A byte is added.
    Grow(usize),
    Remove(usize),
    Pin(usize),
    Unpin,
    Hours,
    Gc(u64),
    Verify,
    /// Another process goes on.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..CONTENTS.len();
    let step = prop_oneof![
        3 => which.clone().prop_map(Step::Put),
        1 => which.clone().prop_map(Step::PutFile),
        1 => which.clone().prop_map(Step::Get),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, executable)| Step::Link(which, executable)),
        1 => which.clone().prop_map(Step::Copy),
        1 => Just(Step::Missing),
        1 => which.clone().prop_map(Step::Flip),
        1 => which.clone().prop_map(Step::Grow),
        1 => which.clone().prop_map(Step::Remove),
        1 => which.prop_map(Step::Pin),
        1 => Just(Step::Unpin),
        2 => Just(Step::Hours),
        1 => (0..25_u64).prop_map(Step::Gc),
        1 => Just(Step::Verify),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 0..40)
}

/// What is at a blob's place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Right,
    Flipped,
    Grown,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    content: Content,
    /// Hours since its last use, in steps of two.
    age: u32,
}

#[derive(Default)]
struct Model(BTreeMap<usize, Kept>);

impl Model {
    /// Whether a reader gets it; a damaged one is dropped by that.
    fn read(&mut self, which: usize) -> bool {
        match self.0.get_mut(&which) {
            Some(kept) if kept.content == Content::Right => {
                kept.age = 0;
                true
            }
            Some(_) => {
                self.0.remove(&which);
                false
            }
            None => false,
        }
    }

    fn damage(&mut self, which: usize, path: &Path, content: Content) {
        let Some(kept) = self.0.get_mut(&which) else { return };
        // No flip of nothing, and no second damage that undoes the first.
        if kept.content != Content::Right || (content == Content::Flipped && CONTENTS[which].is_empty()) {
            return;
        }
        kept.content = content;
        let mut bytes = CONTENTS[which].to_vec();
        match content {
            Content::Flipped => bytes[0] ^= 1,
            Content::Grown | Content::Right => bytes.push(b'x'),
        }
        let before = time(path);
        write_into(path, &bytes);
        // Surely another time, and hardly another age.
        set_time(path, before + Duration::from_millis(1));
    }
}

fn follow(steps: &[Step]) {
    let (folder, mut cas) = store();
    let blobs = CONTENTS.map(BlobDigest::of);
    let mut model = Model::default();
    let mut pins: Vec<(usize, PinGuard)> = Vec::new();
    let file = folder.path().join("file");
    for step in steps {
        match *step {
            Step::Put(which) => {
                assert_eq!(cas.put(CONTENTS[which]).unwrap(), blobs[which]);
                model.0.insert(which, Kept { content: Content::Right, age: 0 });
            }
            Step::PutFile(which) => {
                std::fs::write(&file, CONTENTS[which]).unwrap();
                assert_eq!(cas.put_file(&file).unwrap(), blobs[which]);
                model.0.insert(which, Kept { content: Content::Right, age: 0 });
            }
            Step::Get(which) => {
                let want = model.read(which).then(|| CONTENTS[which].to_vec());
                assert_eq!(cas.get(&blobs[which]).unwrap(), want);
            }
            Step::Link(which, executable) => {
                let there = model.read(which);
                assert_eq!(cas.link(&blobs[which], &file, executable).unwrap(), there);
                expect(&file, there.then_some(CONTENTS[which]));
            }
            Step::Copy(which) => {
                let there = model.read(which);
                assert_eq!(cas.copy(&blobs[which], &file, false).unwrap(), there);
                expect(&file, there.then_some(CONTENTS[which]));
            }
            Step::Missing => missing(&cas, &blobs, &mut model),
            Step::Flip(which) => {
                model.damage(which, &cas.path(&blobs[which].hash, Form::Plain), Content::Flipped);
            }
            Step::Grow(which) => model.damage(which, &cas.path(&blobs[which].hash, Form::Plain), Content::Grown),
            Step::Remove(which) => {
                let there = remove(&cas.path(&blobs[which].hash, Form::Plain)).unwrap();
                assert_eq!(there, model.0.remove(&which).is_some());
                remove(&cas.path(&blobs[which].hash, Form::Program)).unwrap();
            }
            Step::Pin(which) => pins.push((which, cas.pin(&[blobs[which]]).unwrap())),
            Step::Unpin => drop(pins.pop()),
            Step::Hours => {
                pass(&cas, Duration::from_secs(7200));
                model.0.values_mut().for_each(|kept| kept.age += 2);
            }
            Step::Gc(limit) => {
                let pinned: Vec<usize> = pins.iter().map(|(which, _)| *which).collect();
                gc(&cas, limit, &blobs, &mut model, &pinned);
            }
            Step::Verify => {
                let mut want: Vec<Digest> = Vec::new();
                model.0.retain(|which, kept| {
                    if kept.content != Content::Right {
                        want.push(blobs[*which].hash);
                    }
                    kept.content == Content::Right
                });
                want.sort_unstable();
                assert_eq!(cas.verify().unwrap().damaged, want);
            }
            Step::Reopen => cas = again(folder.path()),
        }
    }
}

fn expect(file: &Path, want: Option<&[u8]>) {
    match want {
        Some(bytes) => {
            assert_eq!(std::fs::read(file).unwrap(), bytes);
            std::fs::remove_file(file).unwrap();
        }
        None => assert!(!file.exists()),
    }
}

/// A wrong size is seen, and what is there counts as used.
fn missing(cas: &DiskCas, blobs: &[BlobDigest], model: &mut Model) {
    let mut want = Vec::new();
    for (which, blob) in blobs.iter().enumerate() {
        match model.0.get_mut(&which) {
            Some(kept) if kept.content != Content::Grown => kept.age = 0,
            Some(_) | None => want.push(*blob),
        }
    }
    assert_eq!(cas.missing(blobs), want);
}

/// What went is what was unused for longest, no more than the limit asks, and nothing that is pinned.
fn gc(cas: &DiskCas, limit: u64, blobs: &[BlobDigest], model: &mut Model, pinned: &[usize]) {
    let report = cas.gc(limit).unwrap();
    let files = walk::files(&cas.folder).unwrap();
    let stays = |which: usize| files.iter().any(|file| file.hash == blobs[which].hash && file.form == Form::Plain);
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    assert_eq!(report.kept_bytes, bytes);
    let (kept, gone): (Vec<_>, Vec<_>) =
        model.0.iter().map(|(which, kept)| (*which, *kept)).partition(|it| stays(it.0));
    assert!(bytes <= limit || kept.iter().all(|(which, _)| pinned.contains(which)), "{report:?}");
    for (which, lost) in &gone {
        assert!(!pinned.contains(which), "a pinned one went");
        let free = kept.iter().filter(|(other, _)| !pinned.contains(other));
        assert!(free.into_iter().all(|(_, other)| other.age <= lost.age), "one that was used later went");
        model.0.remove(which);
    }
    let youngest = gone.iter().map(|(_, lost)| lost.age).min();
    let last = gone.iter().filter(|(_, lost)| Some(lost.age) == youngest);
    // Both files of a blob go together.
    let too_much = |which: usize| bytes + 2 * (CONTENTS[which].len() as u64 + 1) > limit;
    assert!(gone.is_empty() || last.into_iter().any(|(which, _)| too_much(*which)), "more went than had to");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_steps_give_what_the_model_says(steps in steps()) {
        follow(&steps);
    }
}
