//! `bombproof`: the one program that users run. It wires intake, states, dispatcher, worker and report together.
//!
//! Under another name it is the compiler shim, and with a hidden first word the helper of the sandbox or the agent of a
//! container: all before any thread is started.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

mod args;
mod cache;
mod check;
mod doctor;
mod fail;
mod progress;
mod reproduce;
mod request;
mod stored;

use args::{Cli, Command};
use fail::Fail;

/// The system's allocator keeps a heap for each of several threads, and held twice the memory that was in use.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let name = argv.first().and_then(|name| std::path::Path::new(name).file_name()).unwrap_or_default();
    if std::env::var_os(bombproof_worker::shim::REAL_PATH).is_some() && name != "bombproof" {
        return exit_code(bombproof_worker::shim::run(&argv));
    }
    if let Some(code) = bombproof_worker::sandbox::main(&argv) {
        return exit_code(code);
    }
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
            say(&fail.to_string());
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
        Command::Check(args) => check::run(&home, args),
        Command::Gate(args) => check::run(&home, args::CheckArgs { mode: args::ModeArg::Tip, ..args }),
        Command::List => stored::list(&home),
        Command::Status(args) => stored::status(&home, &args),
        Command::Report(args) => stored::report(&home, &args),
        Command::Explain(args) => stored::explain(&home, &args),
        Command::Reproduce(args) => reproduce::run(&home, &args),
        Command::Doctor(args) => doctor::run(&home, &args),
        Command::Cache(command) => cache::run(&home, &command),
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
