//! Quilt's series files.
#![no_main]
use std::collections::BTreeSet;

use bombproof_core::series::quilt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = quilt::parse_series(text, &BTreeSet::new());
    let _ = quilt::parse_series(text, &BTreeSet::from(["x".to_owned()]));
});
