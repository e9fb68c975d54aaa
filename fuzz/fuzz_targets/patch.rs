//! A patch, and its application to a file: the input is `file NUL patch`.
#![no_main]
use bombproof_core::series::{apply, diff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    let (old, text) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or_default());
    let Ok(patch) = diff::parse_patch(text, "fuzz", 1) else { return };
    for file in &patch.files {
        for path in [&file.old_path, &file.new_path].into_iter().flatten() {
            assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."), "{path} leaves the tree");
        }
        for fuzz in [0, 2] {
            let _ = apply::apply(None, file, fuzz, false);
            let _ = apply::apply(Some(old), file, fuzz, true);
            let Ok(done) = apply::apply(Some(old), file, fuzz, false) else { continue };
            // What was applied exactly can be undone, and gives the file that was there.
            if let (Some(new), true) = (done.content, done.fuzzed.is_empty() && done.offsets == 0 && file.old_path.is_some()) {
                if let Ok(back) = apply::apply(Some(&new), file, 0, true) {
                    if back.offsets == 0 {
                        assert_eq!(back.content.as_deref().unwrap_or_default(), old, "undone");
                    }
                }
            }
        }
    }
});
