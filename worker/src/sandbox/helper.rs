//! The helper process that sets a sandbox up: this program, started again as `__sandbox` (and once more, as the first
//! process of the new process namespace, as `__init`).
//!
//! It must run before any thread is started. Sources: namespaces(7), user_namespaces(7), pivot_root(2), landlock(7).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Level, Overlay, Spec, Usage, Word};

/// Folders of the system that a build may read.
const SYSTEM: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt"];
/// Files of `/etc` without which programs do not start; nothing of the user's.
const ETC: &[&str] = &["alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "passwd", "group", "nsswitch.conf"];
/// Devices that hold nothing.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];
/// Parts of `/proc` that speak of the whole machine and are only read.
const PROC_READ_ONLY: &[&str] = &["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// Files of `/proc` that a build does not see.
const PROC_HIDDEN: &[&str] = &["kcore", "keys", "timer_list", "kallsyms"];
/// Memory of a sandbox for temporary files, which has a size.
const TEMPORARY: &[&str] = &["/tmp", "/dev/shm"];
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The user that a build sees itself as.
const USER: u32 = 1000;
/// Where this program is in the sandbox: the shim links lead there.
pub const OWN_PROGRAM: &str = "/bombproof/bombproof";

/// Runs as the helper if the arguments ask for it; gives the exit code of this process.
pub fn main(args: &[std::ffi::OsString]) -> Option<i32> {
    let word = |index: usize| args.get(index).and_then(|word| word.to_str()).unwrap_or_default();
    match word(1) {
        "__sandbox" => Some(report(outer(word(2), args.get(3).map(Path::new)))),
        "__init" => Some(report(inner(word(2)))),
        _ => None,
    }
}

/// Nothing to say (`None`): the process that we started said it.
fn report(result: Result<Option<(i32, Usage)>, String>) -> i32 {
    let word = match result {
        Ok(None) => return 0,
        Ok(Some((code, usage))) => Word::Ended(code, usage),
        Err(why) => Word::Refused(why),
    };
    let line = serde_json::to_string(&word).unwrap_or_default();
    let _ = writeln!(std::io::stdout(), "{line}");
    0
}

fn read_spec() -> Result<Spec, String> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).map_err(|error| format!("reading the request: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("reading the request: {error}"))
}

fn on<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn outer(level: &str, jobs: Option<&Path>) -> Result<Option<(i32, Usage)>, String> {
    let spec = read_spec()?;
    let level = [Level::Namespaces, Level::Bubblewrap, Level::Landlock, Level::None]
        .into_iter()
        .find(|known| known.name() == level)
        .ok_or("no such level")?;
    if level.has_own_paths() {
        on("PR_SET_PDEATHSIG", prctl::set_pdeathsig(Signal::SIGKILL))?;
    }
    match level {
        Level::Namespaces => namespaces(&spec, jobs),
        Level::Bubblewrap => bubblewrap(&spec),
        Level::Landlock => {
            landlock(&spec)?;
            // A process group of its own, so that what is left of it can be killed.
            run_command(&spec, true)
        }
        Level::None => run_command(&spec, true),
        Level::Container => Err("a container is no level of the helper".to_owned()),
    }
}

/// Opens the named pipe with the tokens of makes for everything that is started from here on; gives the words for make.
fn open_tokens(path: &Path) -> Result<String, String> {
    let what = format!("the tokens '{}'", path.display());
    let mut numbers = Vec::new();
    // Two descriptors, as make has them of a pipe of its own. Opened both ways neither open nor make ever waits for the other end.
    for _ in 0..2 {
        let pipe = on(&what, File::options().read(true).write(true).open(path))?;
        on(&what, nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())))?;
        numbers.push(pipe.into_raw_fd());
    }
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let pair = numbers.join(",");
    Ok(format!("-j --jobserver-fds={pair} --jobserver-auth={pair}"))
}

fn namespaces(spec: &Spec, jobs: Option<&Path>) -> Result<Option<(i32, Usage)>, String> {
    let own = on("own program", std::env::current_exe())?;
    // Where memory runs short builds are to die, and not who started them.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let (user, group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    // Root in there, so that the next process may still mount.
    new_user_space(spaces, 0, user, group)?;
    on("host name", nix::unistd::sethostname("host"))?;
    // The next process is the first of the new process namespace; /proc can only be mounted from in there.
    let mut command = Command::new(own);
    command.args(["__init", Level::Namespaces.name()]);
    if let Some(jobs) = jobs {
        command.env("MAKEFLAGS", open_tokens(jobs)?);
    }
    hand_over(&mut command, spec)
}

fn new_user_space(more: CloneFlags, inside: u32, user: u32, group: u32) -> Result<(), String> {
    on("unshare", unshare(CloneFlags::CLONE_NEWUSER | more))?;
    on("setgroups", std::fs::write("/proc/self/setgroups", "deny"))?;
    on("uid_map", std::fs::write("/proc/self/uid_map", format!("{inside} {user} 1\n")))?;
    on("gid_map", std::fs::write("/proc/self/gid_map", format!("{inside} {group} 1\n")))
}

/// Makes the root that the build sees, and goes there.
fn enter_new_root(spec: &Spec) -> Result<(), String> {
    let own = on("own program", std::env::current_exe())?;
    let none: Option<&str> = None;
    on("private mounts", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))?;
    let root = spec.mount_point.as_path();
    tmpfs(root, "755")?;
    for name in SYSTEM {
        let host = Path::new("/").join(name);
        match std::fs::symlink_metadata(&host) {
            Ok(kind) if kind.is_symlink() => {
                let target = on("reading a link", std::fs::read_link(&host))?;
                on("making a link", std::os::unix::fs::symlink(target, root.join(name)))?;
            }
            Ok(_) => bind(&host, &root.join(name), false)?,
            Err(_) => {}
        }
    }
    for name in ETC {
        let host = Path::new("/etc").join(name);
        if host.exists() {
            bind(&host, &root.join("etc").join(name), false)?;
        }
    }
    for name in DEVICES {
        bind(&Path::new("/dev").join(name), &root.join("dev").join(name), true)?;
    }
    for name in ["dev/shm", "tmp"] {
        on("making a folder", std::fs::create_dir_all(root.join(name)))?;
        tmpfs(&root.join(name), "1777")?;
    }
    on("making /proc", std::fs::create_dir_all(root.join("proc")))?;
    let links = [
        ("/proc/self/fd", "dev/fd"),
        ("/proc/self/fd/0", "dev/stdin"),
        ("/proc/self/fd/1", "dev/stdout"),
        ("/proc/self/fd/2", "dev/stderr"),
    ];
    for (target, link) in links {
        on("making a link", std::os::unix::fs::symlink(target, root.join(link)))?;
    }
    bind(&own, &root.join(OWN_PROGRAM.trim_start_matches('/')), false)?;
    for wanted in &spec.binds {
        bind(&wanted.host, &root.join(wanted.guest.trim_start_matches('/')), wanted.writable)?;
    }
    for wanted in &spec.overlays {
        overlay(wanted, &root.join(wanted.guest.trim_start_matches('/')))?;
    }
    // While the old one can still be seen: the kernel wants a whole /proc beside a new one.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    on("mounting /proc", mount(Some("proc"), &root.join("proc"), Some("proc"), flags, none))?;
    mask_proc(&root.join("proc"))?;
    on("entering the new root", std::env::set_current_dir(root))?;
    on("pivot_root", nix::unistd::pivot_root(".", "."))?;
    on("leaving the old root", umount2(".", MntFlags::MNT_DETACH))?;
    on("entering /", std::env::set_current_dir("/"))?;
    // No more rights to mount: an ordinary user from here on.
    new_user_space(CloneFlags::empty(), USER, 0, 0)
}

/// Shuts what a process of root's user may write or read in a /proc of its own: that user may be the machine's, and the kernel
/// then asks for no other right.
fn mask_proc(proc: &Path) -> Result<(), String> {
    let none: Option<&str> = None;
    let kept = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for name in PROC_READ_ONLY {
        let at = proc.join(name);
        if !at.exists() {
            continue;
        }
        let what = format!("shutting '/proc/{name}'");
        on(&what, mount(Some(&at), &at, none, MsFlags::MS_BIND, none))?;
        on(&what, mount(none, &at, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept, none))?;
    }
    for name in PROC_HIDDEN {
        let at = proc.join(name);
        if at.exists() {
            let what = format!("hiding '/proc/{name}'");
            on(&what, mount(Some("/dev/null"), &at, none, MsFlags::MS_BIND, none))?;
        }
    }
    Ok(())
}

/// Starts the next helper with the same request; it says itself how it went.
fn hand_over(command: &mut Command, spec: &Spec) -> Result<Option<(i32, Usage)>, String> {
    let mut child = on("starting the first process", command.stdin(Stdio::piped()).spawn())?;
    let text = on("encoding the request", serde_json::to_string(spec))?;
    let mut input = child.stdin.take();
    if let Some(input) = input.as_mut() {
        on("handing the request over", writeln!(input, "{text}"))?;
    }
    let status = on("waiting", child.wait())?;
    drop(input);
    if status.success() { Ok(None) } else { Err(format!("the first process ended with {status}")) }
}

fn inner(level: &str) -> Result<Option<(i32, Usage)>, String> {
    let spec = read_spec()?;
    on("PR_SET_PDEATHSIG", prctl::set_pdeathsig(Signal::SIGKILL))?;
    if level == Level::Namespaces.name() {
        enter_new_root(&spec)?;
    }
    run_command(&spec, false)
}

fn tmpfs(at: &Path, mode: &str) -> Result<(), String> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode={mode},size=4g");
    on("mounting a tmpfs", mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options.as_str())))
}

fn bind(host: &Path, guest: &Path, writable: bool) -> Result<(), String> {
    let what = format!("binding '{}'", host.display());
    let kind = on(&what, std::fs::metadata(host))?;
    if kind.is_dir() {
        on(&what, std::fs::create_dir_all(guest))?;
    } else {
        on(&what, std::fs::create_dir_all(guest.parent().unwrap_or(Path::new("/"))))?;
        on(&what, File::create(guest))?;
    }
    let none: Option<&str> = None;
    on(&what, mount(Some(host), guest, none, MsFlags::MS_BIND | MsFlags::MS_REC, none))?;
    if writable {
        return Ok(());
    }
    // Flags that the mount has already are locked in a user namespace and must be given again.
    let has = on(&what, statvfs(guest))?.flags();
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    for (had, flag) in [
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if has.contains(had) {
            flags |= flag;
        }
    }
    on(&what, mount(none, guest, none, flags, none))
}

fn overlay(wanted: &Overlay, guest: &Path) -> Result<(), String> {
    on("making a folder", std::fs::create_dir_all(guest))?;
    // `userxattr`: in a user namespace the kernel keeps its marks in attributes of the user's.
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        wanted.lower.display(),
        wanted.upper.display(),
        wanted.work.display()
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let what = format!("an overlay on '{}'", wanted.lower.display());
    on(&what, mount(Some("overlay"), guest, Some("overlay"), flags, Some(options.as_str())))
}

fn bubblewrap(spec: &Spec) -> Result<Option<(i32, Usage)>, String> {
    let own = on("own program", std::env::current_exe())?;
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "host"]);
    command.args(["--uid", "1000", "--gid", "1000", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    for name in SYSTEM {
        let host = Path::new("/").join(name);
        match std::fs::symlink_metadata(&host) {
            Ok(kind) if kind.is_symlink() => {
                command.arg("--symlink").arg(on("reading a link", std::fs::read_link(&host))?).arg(&host);
            }
            Ok(_) => {
                command.arg("--ro-bind").arg(&host).arg(&host);
            }
            Err(_) => {}
        }
    }
    for name in ETC {
        let host = Path::new("/etc").join(name);
        command.arg("--ro-bind-try").arg(&host).arg(&host);
    }
    command.arg("--ro-bind").arg(&own).arg(OWN_PROGRAM);
    for wanted in &spec.binds {
        command.arg(if wanted.writable { "--bind" } else { "--ro-bind" }).arg(&wanted.host).arg(&wanted.guest);
    }
    if let Some(flags) = std::env::var_os("MAKEFLAGS") {
        command.arg("--setenv").arg("MAKEFLAGS").arg(flags);
    }
    command.args(["--", OWN_PROGRAM, "__init", Level::Bubblewrap.name()]);
    // The environment of this helper is empty; bwrap itself has to be found.
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    hand_over(&mut command, spec)
}

fn landlock(spec: &Spec) -> Result<(), String> {
    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
        RulesetStatus,
    };
    let abi = ABI::V3;
    let all = AccessFs::from_all(abi);
    let read = AccessFs::from_read(abi);
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let mut rules = on("landlock", on("landlock", ruleset.handle_access(all))?.create())?;
    let system = SYSTEM.iter().map(|name| format!("/{name}")).chain(ETC.iter().map(|name| format!("/etc/{name}")));
    let system = system.chain(["/proc".to_owned()]);
    let mut paths: Vec<(std::path::PathBuf, bool)> = system.map(|path| (path.into(), false)).collect();
    paths.extend(DEVICES.iter().map(|name| (Path::new("/dev").join(name), true)));
    // /tmp holds what others left there; temporary files go to a folder of ours.
    paths.push((spec.mount_point.clone(), true));
    paths.push((on("own program", std::env::current_exe())?, false));
    paths.extend(spec.binds.iter().map(|bind| (bind.host.clone(), bind.writable)));
    for (path, writable) in paths {
        // What is not there cannot be read either.
        let Ok(kind) = std::fs::metadata(&path) else { continue };
        let fd = on("landlock", PathFd::new(&path))?;
        let mut access = if writable { all } else { read };
        if !kind.is_dir() {
            access &= AccessFs::from_file(abi);
        }
        rules = on("landlock", rules.add_rule(PathBeneath::new(fd, access)))?;
    }
    let status = on("landlock", rules.restrict_self())?;
    if status.ruleset == RulesetStatus::NotEnforced { Err("this kernel has no Landlock".to_owned()) } else { Ok(()) }
}

/// Sets a limit, or leaves the one that there is where it is lower: nobody here may raise one.
fn lower(resource: Resource, limit: u64) -> Result<(), String> {
    let (_, most) = on("reading a limit", getrlimit(resource))?;
    let limit = limit.min(most);
    on("setting a limit", setrlimit(resource, limit, limit))
}

/// Looks at the memory for temporary files until the answer is asked for: whether at some time less than a quarter of it was left, so that
/// there may have been nothing left between two looks.
fn watch_temporary() -> impl FnOnce() -> bool {
    let (ended, end) = mpsc::channel::<()>();
    let little =
        |folder: &&str| statvfs(*folder).is_ok_and(|found| found.blocks_available().saturating_mul(4) < found.blocks());
    let looking = std::thread::Builder::new().spawn(move || {
        let mut cramped = false;
        while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            cramped = cramped || TEMPORARY.iter().any(little);
        }
        cramped
    });
    move || {
        drop(ended);
        // Where nobody could look it may have been so.
        let had_room = looking.is_ok_and(|looking| looking.join().is_ok_and(|cramped| !cramped));
        !had_room
    }
}

fn run_command(spec: &Spec, group: bool) -> Result<Option<(i32, Usage)>, String> {
    on("PR_SET_NO_NEW_PRIVS", prctl::set_no_new_privs())?;
    let limits = [
        (Resource::RLIMIT_FSIZE, spec.limits.file_bytes),
        (Resource::RLIMIT_AS, spec.limits.memory_bytes),
        (Resource::RLIMIT_CORE, 0),
    ];
    for (resource, limit) in limits {
        lower(resource, limit)?;
    }
    // Processes are counted by user over the whole machine: outside namespaces those of the user would count too.
    if !group {
        lower(Resource::RLIMIT_NPROC, spec.limits.processes)?;
    }
    let (Some(program), Some(args)) = (spec.argv.first(), spec.argv.get(1..)) else {
        return Err("no command".to_owned());
    };
    let makeflags = std::env::var_os("MAKEFLAGS");
    let stderr = on("the log", std::io::stderr().as_fd().try_clone_to_owned())?;
    let output = on("the log", stderr.try_clone())?;
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(&spec.cwd)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(stderr);
    if let Some(flags) = makeflags {
        command.env("MAKEFLAGS", flags);
    }
    if group {
        command.process_group(0).env("TMPDIR", &spec.mount_point);
    }
    // Without name spaces temporary files are on the disk, which the caller looks at.
    let temporary = (!group).then(watch_temporary);
    let start = Instant::now();
    let mut child =
        command.spawn().map_err(|error| format!("'{program}' cannot be started in '{}': {error}", spec.cwd))?;
    let group = i32::try_from(child.id()).ok().filter(|_| group).map(nix::unistd::Pid::from_raw);
    let kill = move || {
        if let Some(group) = group {
            let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
        }
    };
    if group.is_some() {
        // Our input ends when the caller wants to stop, and when it dies: then everything of the command ends too.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            kill();
        });
    }
    let status = on("waiting", child.wait())?;
    kill();
    let used = on("getrusage", getrusage(UsageWho::RUSAGE_CHILDREN))?;
    let micros = |time: nix::sys::time::TimeVal| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0);
    let usage = Usage {
        cpu_us: micros(used.user_time()) + micros(used.system_time()),
        wall_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        cramped: temporary.is_some_and(|was_cramped| was_cramped()),
    };
    Ok(Some((status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255), usage)))
}
