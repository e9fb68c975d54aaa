//! `bombproof`: the one program that users run.

fn main() {}
