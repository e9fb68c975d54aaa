//! What a command costs more in a container than on the host: `overhead PROGRAM IMAGE [ROUNDS]`.
//!
//! The same commands are run in turns at all places; in the sandboxes with a source tree and an overlay, as an action has them.
//! PROGRAM is the built `bombproof`, which containers are started with.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bombproof_store::home::Home;
use bombproof_worker::sandbox::container::{Config, Containers, Engine, machine_memory};
use bombproof_worker::sandbox::{Bind, End, Launcher, Level, Limits, Overlay, Spec};
use tokio::sync::watch;

type Error = Box<dyn std::error::Error>;

fn spec(at: &Path, argv: &[&str]) -> std::io::Result<Spec> {
    let folder = |name: &str| {
        let path = at.join(name);
        std::fs::create_dir_all(&path).map(|()| path)
    };
    for name in ["upper", "work"] {
        std::fs::remove_dir_all(at.join(name)).ok();
    }
    std::fs::write(folder("src")?.join("a.c"), "int f(int x) { return x * 2; }\n")?;
    let overlay =
        Overlay { lower: folder("out")?, upper: folder("upper")?, work: folder("work")?, guest: "/out".to_owned() };
    Ok(Spec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        cwd: "/out".to_owned(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        binds: vec![Bind { host: folder("src")?, guest: "/src".to_owned(), writable: false }],
        overlays: vec![overlay],
        limits: Limits::for_builds(60),
        mount_point: folder("root")?,
    })
}

async fn sandboxed(launcher: &Launcher, at: &Path, argv: &[&str]) -> Result<Duration, Error> {
    let spec = spec(at, argv)?;
    launcher.hand_over(&at.join("out"))?;
    let log = File::create(at.join("log"))?;
    let (_keep, never) = watch::channel(false);
    let begin = Instant::now();
    match launcher.run(&spec, &log, None, never).await? {
        End::Exited(0, _) => Ok(begin.elapsed()),
        end @ (End::Exited(..) | End::TimedOut | End::Cancelled | End::Exhausted { .. }) => {
            Err(format!("{end:?}: {}", std::fs::read_to_string(at.join("log"))?).into())
        }
    }
}

fn direct(at: &Path, argv: &[&str]) -> Result<Duration, Error> {
    let begin = Instant::now();
    let words = argv.iter().map(|word| word.replace("/src", &at.join("src").display().to_string()));
    let words: Vec<String> = words.collect();
    let (program, words) = words.split_first().ok_or("no command")?;
    Command::new(program).args(words).current_dir(at.join("upper")).stdin(Stdio::null()).status()?;
    Ok(begin.elapsed())
}

fn row(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    println!("| {name} | {:.2} | {:.2} | {:.2} |", at(50), at(10), at(90));
}

fn main() -> Result<ExitCode, Error> {
    let args: Vec<_> = std::env::args_os().collect();
    // On the host the helper is another life of this program.
    if let Some(code) = bombproof_worker::sandbox::main(&args) {
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)));
    }
    let [_, program, image, rest @ ..] = args.as_slice() else { return Err("overhead PROGRAM IMAGE [ROUNDS]".into()) };
    let rounds = rest.first().and_then(|word| word.to_str()?.parse().ok()).unwrap_or(100);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(program.into(), &image.to_string_lossy(), rounds))?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(program: PathBuf, image: &str, rounds: usize) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let home = Home::at(folder.path());
    let engine = Engine::connect(None).await?;
    println!("{}, {rounds} rounds\n\n| | median ms | 10 % | 90 % |\n|---|---:|---:|---:|", engine.name());
    let mut config = Config::new(&home, image, 1, machine_memory());
    config.program = program;
    let containers = Containers::prepare(engine, config).await?;
    let (here, there) = (Launcher::Here(Level::Namespaces), Launcher::Containers(containers.clone()));
    let at = home.trees().join("a");
    let begin = Instant::now();
    sandboxed(&there, &at, &["/bin/true"]).await?;
    row("the first command, with the start of the container", vec![begin.elapsed()]);
    for (name, argv) in [
        ("`true`", &["/bin/true"][..]),
        ("`gcc -c` of one line", &["/usr/bin/gcc", "-O2", "-c", "-o", "a.o", "/src/a.c"]),
    ] {
        let (mut host, mut inside, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            host.push(sandboxed(&here, &at, argv).await?);
            inside.push(sandboxed(&there, &at, argv).await?);
            bare.push(direct(&at, argv)?);
        }
        row(&format!("{name}, no sandbox"), bare);
        row(&format!("{name}, name spaces on the host"), host);
        row(&format!("{name}, name spaces in a container"), inside);
    }
    containers.close().await;
    Ok(())
}
