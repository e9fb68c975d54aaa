//! What a build leaves behind: logs, dependency files, commands, configurations, the shim's records.
#![no_main]
use bombproof_core::kbuild::{depfile, invocation, log, record::Record};
use bombproof_core::target::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    log::failures(text);
    log::machine_trouble(text, log::DiskSeen { cramped: true, read_only: true });
    depfile::prerequisites(text);
    let argv: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let read = invocation::read(&argv);
    let _ = (read, invocation::is_checker(&argv), invocation::digest("/out", &argv));
    let options = (&config::effective(text)).into();
    assert!(config::drift(&options, &options).is_empty(), "a configuration does not differ from itself");
    let _ = (config::read(text), serde_json::from_str::<Record>(text));
});
