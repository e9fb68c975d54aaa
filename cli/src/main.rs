//! `bombproof`: the one program that users run. It wires intake, states, dispatcher, worker and report together.
//!
//! Under another name it is the compiler shim, and with a hidden first word the helper of the sandbox or the agent of a
//! container: all before any thread is started.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use clap::Parser;

mod args;
mod cache;
mod check;
mod coordinator;
mod doctor;
mod ended;
mod fail;
mod farm;
mod log;
mod metrics;
mod pki;
mod progress;
mod reproduce;
mod request;
mod stored;
mod worker;

use args::{Cli, Command};
use fail::Fail;

/// How many heaps the C library may keep: it has one for each of several threads, gives none of them back, and so held more
/// than twice what was in use. It reads this when it starts.
const HEAPS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// Starts the program anew with few heaps, unless the user chose for himself. Where that fails it goes on as it is.
fn with_few_heaps(argv: &[std::ffi::OsString]) {
    let (name, count) = HEAPS;
    if std::env::var_os(name).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let mut again = std::process::Command::new(program);
        again.arg0(argv.first().map_or("bombproof".as_ref(), |name| name.as_os_str()));
        let _ = again.args(argv.iter().skip(1)).env(name, count).exec();
    }
}

fn main() -> ExitCode {
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let name = argv.first().and_then(|name| std::path::Path::new(name).file_name()).unwrap_or_default();
    if std::env::var_os(bombproof_worker::shim::REAL_PATH).is_some() && name != "bombproof" {
        return exit_code(bombproof_worker::shim::run(&argv));
    }
    if let Some(code) = bombproof_worker::sandbox::main(&argv) {
        return exit_code(code);
    }
    with_few_heaps(&argv);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return fail::exit(if error.use_stderr() { fail::WRONG_REQUEST } else { fail::CLEAN });
        }
    };
    let bisect = matches!(&cli.command, Command::Check(args) | Command::Gate(args) if args.bisect_exit);
    let code = match run(cli.command) {
        Ok(code) => code,
        Err(fail) => {
            log::fail(&fail);
            fail.code
        }
    };
    fail::exit(if bisect { fail::for_bisect(code) } else { code })
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

fn run(command: Command) -> Result<u8, Fail> {
    let home = bombproof_store::home::Home::from_environment(|name| std::env::var_os(name).map(Into::into))
        .map_err(Fail::request)?;
    match command {
        Command::Check(args) if args.reach.coordinator.is_some() => farm::check(&args),
        Command::Check(args) => check::run(&home, args),
        Command::Gate(args) => {
            let args = args::CheckArgs { mode: args::ModeArg::Tip, ..args };
            if args.reach.coordinator.is_some() { farm::check(&args) } else { check::run(&home, args) }
        }
        Command::Submit(args) => farm::submit(&args),
        Command::Watch(args) => farm::watch(&args),
        Command::Cancel(args) => farm::cancel(&args),
        Command::List(reach) if reach.coordinator.is_some() => farm::list(&reach),
        Command::List(_) => stored::list(&home),
        Command::Status(args) if args.reach.coordinator.is_some() => farm::status(&args),
        Command::Status(args) => stored::status(&home, &args),
        Command::Report(args) if args.run.reach.coordinator.is_some() => farm::report(&args),
        Command::Report(args) => stored::report(&home, &args),
        Command::Explain(args) if args.reach.coordinator.is_some() => farm::explain(&args),
        Command::Explain(args) => stored::explain(&home, &args),
        Command::Coordinator(args) => coordinator::run(&home, &args),
        Command::Worker(args) => worker::run(&home, &args),
        Command::Reproduce(args) => reproduce::run(&home, &args),
        Command::Doctor(args) => doctor::run(&home, &args),
        Command::Cache(command) => cache::run(&home, &command),
        Command::Protocol(reach) => farm::protocol(&reach),
        Command::Pki(command) => pki::run(&command),
    }
}

/// To the standard error. A reader that is gone does not matter.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// To the standard output.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
