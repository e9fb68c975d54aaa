//! What compilers, linkers and checkers print.
#![no_main]
use bombproof_core::diagnostic::{Tool, compare, normalise, parse};
use bombproof_core::kbuild::roots::Roots;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let roots = Roots { source: "/src".to_owned(), output: "/out".to_owned() };
    let found = parse::compiler(text, "/out", &roots, Tool::Compiler);
    let _ = parse::compiler(text, "/src", &roots, Tool::Sparse);
    let _ = parse::log(text, "/out", &roots);
    normalise::message(text);
    normalise::source(text);
    // The same output twice has nothing new in it.
    let all: Vec<_> = found.iter().collect();
    let pairs = compare::pair(&all, &all, &[]);
    assert!(pairs.iter().all(Option::is_some), "a diagnostic is its own match");
});
