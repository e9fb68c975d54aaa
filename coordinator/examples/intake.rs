//! Times the making of states: `intake REPO BASE SERIES OBJECTS [--trees]`. Used by `scripts/bench-intake`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use bombproof_coordinator::{ingest, states};

#[expect(clippy::print_stdout, reason = "this is a program")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, repo, base, series, objects, rest @ ..] = args.as_slice() else {
        return Err("usage: intake REPO BASE SERIES OBJECTS [--trees]".into());
    };
    let start = Instant::now();
    let series = ingest::read(Path::new(series), &BTreeSet::new())?;
    let read = start.elapsed();
    let made = states::Repository::open(Path::new(repo))?.states(&series, base, Path::new(objects))?;
    let total = start.elapsed();
    let failed = made.states.iter().filter(|state| state.not_applied.is_some()).count();
    let fuzzed = made.states.iter().filter(|state| !state.fuzz.is_empty()).count();
    let offsets: u32 = made.states.iter().map(|state| state.offsets).sum();
    if rest.iter().any(|word| word == "--trees") {
        for state in &made.states {
            println!("{}", state.tree);
        }
    } else {
        println!(
            "{} patches in {:.1} ms (reading {:.1} ms); {failed} do not apply, {fuzzed} needed fuzz, {offsets} hunks with offset",
            series.patches.len(),
            total.as_secs_f64() * 1e3,
            read.as_secs_f64() * 1e3
        );
    }
    Ok(())
}
