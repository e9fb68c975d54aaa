//! `doctor`: what targets need on this machine.

use std::fmt::Write;
use std::path::Path;

use bombproof_store::home::Home;
use bombproof_worker::sandbox;
use bombproof_worker::sandbox::container::Engine;
use bombproof_worker::toolchain::{find_toolchain, install_line, needs};

use crate::args::TargetArgs;
use crate::fail::{CLEAN, Fail, UNDECIDED};
use crate::request;

pub(crate) fn run(home: &Home, args: &TargetArgs) -> Result<u8, Fail> {
    let mut args = args.clone();
    let has_file = args.targets_file.is_some() || Path::new("bombproof.toml").is_file();
    if args.arch.is_empty() && !has_file {
        args.arch = ["x86_64", "arm64", "ppc64le", "s390x"].map(str::to_owned).to_vec();
    }
    let targets = request::targets(&args, Path::new("."))?;
    let mut out = String::new();
    let mut packages = Vec::new();
    let mut complete = true;
    let git = std::process::Command::new("git").arg("--version").output();
    match git {
        Ok(output) if output.status.success() => {
            let _ = writeln!(out, "  ok       {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        Ok(_) | Err(_) => {
            complete = false;
            packages.push("git".to_owned());
            let _ = writeln!(out, "  MISSING  git");
        }
    }
    home.prepare().map_err(Fail::machine)?;
    let _ = writeln!(out, "  ok       state folder {}", home.root().display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Fail::machine)?;
    let (level, why) = runtime.block_on(sandbox::best(home.root()));
    match level {
        Some(level) => {
            let note = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
            let _ = writeln!(out, "  ok       sandbox: {}{note}", level.name());
        }
        None => {
            complete = false;
            packages.push("bubblewrap".to_owned());
            let _ = writeln!(out, "  MISSING  sandbox: {}", why.join("; "));
        }
    }
    match runtime.block_on(Engine::connect(None)) {
        Ok(engine) => {
            let _ = writeln!(out, "  ok       container engine: {} at {}", engine.name(), engine.socket().display());
        }
        Err(error) => {
            let _ = writeln!(out, "  missing  {error}; only needed for --sandbox container");
        }
    }
    for spec in &targets {
        let found = find_toolchain(spec, &home.toolchains());
        let version = found.map_or_else(|_| "not complete".to_owned(), |toolchain| toolchain.version);
        let _ = writeln!(out, "\n{}: {version}", spec.name);
        for need in needs(spec) {
            match &need.found {
                Some(path) => {
                    let _ = writeln!(out, "  ok       {:32} {}", need.what, path.display());
                }
                None => {
                    complete &= !need.required;
                    packages.push(need.package.clone());
                    let word = if need.required { "MISSING" } else { "missing" };
                    let note = if need.required { "" } else { ", for some configurations" };
                    let _ = writeln!(out, "  {word}  {:32} package {}{note}", need.what, need.package);
                }
            }
        }
    }
    if let Some(line) = install_line(&packages) {
        let _ = writeln!(out, "\ninstall what is missing:\n  {line}");
    }
    crate::print(&out);
    Ok(if complete { CLEAN } else { UNDECIDED })
}
