//! Builds in containers, with the engine of this machine: the same reports as without, and nothing that a hostile build does goes
//! beyond it.
//!
//! Without an engine these tests say so and pass. The image is BOMBPROOF_IMAGE, by default what `make images` makes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod attacks;
mod common;

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use attacks::ATTACKS;
use bombproof_core::outcome::Trouble;
use bombproof_store::home::Home;
use bombproof_worker::sandbox::container::{Config, Containers, Engine};
use bombproof_worker::sandbox::{Bind, End, Launcher, Limits, Spec};
use common::{Ground, Small, run, top};
use serde_json::Value;
use tokio::sync::watch;

fn image() -> String {
    std::env::var("BOMBPROOF_IMAGE").unwrap_or_else(|_| "bombproof-worker:latest".to_owned())
}

/// The engine, where there is one.
async fn engine() -> Option<Engine> {
    match Engine::connect(None).await {
        Ok(engine) => {
            if let Err(error) = engine.image(&image()).await {
                panic!("{error}: 'make images' makes it");
            }
            Some(engine)
        }
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

fn has_engine() -> bool {
    tokio::runtime::Runtime::new().unwrap().block_on(engine()).is_some()
}

fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().unwrap()
}

/// A report without what differs from run to run.
fn essence(mut report: Value) -> Value {
    let top = report.as_object_mut().unwrap();
    top.remove("run");
    top.remove("cost");
    for verdict in report["verdicts"].as_array_mut().unwrap() {
        let verdict = verdict.as_object_mut().unwrap();
        verdict.remove("cached");
        if let Some(failure) = verdict.get_mut("failure").and_then(Value::as_object_mut) {
            failure.remove("log");
        }
    }
    report
}

#[test]
fn a_series_gets_the_same_report_in_a_container_as_in_name_spaces() {
    if !has_engine() {
        return;
    }
    let image = image();
    for name in ["header-break-on-one-arch", "breaks-at-2-heals-at-4"] {
        let ground = Ground::new();
        let series = top().join("fixtures/series").join(name).display().to_string();
        let check = |sandbox: &[&str]| {
            let output = ground
                .bombproof(&["check", &series, "--repo", "repo", "--base", "base", "--arch", "x86_64,s390x"])
                .args(["--config", "tinyconfig", "--format", "json", "--audit", "all"])
                .args(sandbox)
                .env("BOMBPROOF_HOME", ground.path().join(sandbox[1]))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{name}: {said}"));
            assert_eq!(report["run"]["sandbox"], sandbox[1], "{said}");
            let notes = report["run"]["notes"].to_string();
            assert!(notes.contains("all agree"), "{name}: {notes} {said}");
            report
        };
        let (here, there) =
            (check(&["--sandbox", "namespaces"]), check(&["--sandbox", "container", "--image", &image]));
        assert_eq!(essence(here), essence(there), "{name}");
    }
}

#[test]
fn hostile_builds_fail_are_reported_as_what_they_are_and_disturb_nobody() {
    if !has_engine() {
        return;
    }
    let ground = Ground::new();
    let home = ground.path().join("home");
    let Some(_small) = Small::mount(&home, "size=1g") else { return };
    let image = image();
    let mut wrong = Vec::new();
    for attack in ATTACKS {
        attack.branch(&ground, "hostile", &[("@HOME@", &home.display().to_string())]);
        let output = ground
            .bombproof(&["check", "base..hostile", "--repo", "repo", "--arch", "x86_64", "--config", "tinyconfig"])
            .args(["--format", "json", "--sandbox", "container", "--image", &image, "--slot-memory", "768MiB"])
            .args(["--jobs", "1"])
            .env("BOMBPROOF_TEST_SECRET", "hunter2")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}: {said}", attack.what));
        let of = |patch: usize| &report["verdicts"][patch];
        let logs = std::fs::read_dir(home.join("runs"))
            .unwrap()
            .flat_map(|run| std::fs::read_to_string(run.unwrap().path().join("logs/x86_64-tinyconfig/2.log")));
        let logs: String = logs.collect();
        let told = format!("{} {logs}", of(2));
        if of(2)["verdict"] != attack.verdict || !told.contains(attack.words) {
            wrong.push(format!("{}: {} {logs}", attack.what, of(2)));
        }
        for patch in [0, 1, 3] {
            if of(patch)["verdict"] != "builds" {
                wrong.push(format!("{} disturbs {patch}: {}", attack.what, of(patch)));
            }
        }
        // Evidence of one attack is not to be taken for that of the next.
        std::fs::remove_dir_all(home.join("runs")).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all = run(Command::new("ps").args(["-eo", "args"])).stdout;
    assert!(!String::from_utf8_lossy(&all).contains("sleep 98761"), "a process was left behind");
}

/// A worker's containers, and a folder that commands may write.
struct Shop {
    folder: tempfile::TempDir,
    containers: Arc<Containers>,
    launcher: Launcher,
}

impl Shop {
    async fn open(image: &str, slots: usize) -> Option<Self> {
        Self::open_in(tempfile::tempdir().unwrap(), image, slots).await
    }

    async fn open_in(folder: tempfile::TempDir, image: &str, slots: usize) -> Option<Self> {
        let engine = engine().await?;
        let containers = Containers::prepare(engine, Self::config(&folder, image, slots)).await.unwrap();
        let launcher = Launcher::Containers(Arc::clone(&containers));
        Some(Self { folder, containers, launcher })
    }

    fn config(folder: &tempfile::TempDir, image: &str, slots: usize) -> Config {
        let mut config = Config::new(&Home::at(folder.path()), image, slots, 4 << 30);
        config.memory_bytes = 512 << 20;
        config.program = env!("CARGO_BIN_EXE_bombproof").into();
        config
    }

    /// Runs a shell command; gives how it ended and what it printed.
    async fn run(&self, script: &str, cancel: watch::Receiver<bool>) -> (Result<End, Trouble>, String) {
        let place = tempfile::tempdir_in(self.folder.path().join("trees")).unwrap();
        std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (own, root) = (place.path().join("own"), place.path().join("root"));
        std::fs::create_dir(&own).unwrap();
        std::fs::create_dir(&root).unwrap();
        let mut limits = Limits::for_builds(60);
        limits.file_bytes = 64 << 20;
        let spec = Spec {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: "/own".to_owned(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            binds: vec![Bind { host: own, guest: "/own".to_owned(), writable: true }],
            overlays: Vec::new(),
            limits,
            mount_point: root,
        };
        let log = place.path().join("log");
        let end = self.launcher.run(&spec, &std::fs::File::create(&log).unwrap(), None, cancel).await;
        (end.map_err(Trouble::from), std::fs::read_to_string(&log).unwrap())
    }

    async fn quick(&self, script: &str) -> (Result<End, Trouble>, String) {
        let (_keep, never) = watch::channel(false);
        self.run(script, never).await
    }
}

fn exit_code(end: &Result<End, Trouble>) -> Option<i32> {
    match end {
        Ok(End::Exited(code, _)) => Some(*code),
        Ok(End::TimedOut | End::Cancelled | End::Exhausted { .. }) | Err(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_output_and_reasons_come_through() {
    let Some(shop) = Shop::open(&image(), 1).await else { return };
    let (end, said) = shop.quick("echo out; echo err >&2; exit 42").await;
    assert_eq!((exit_code(&end), said.as_str()), (Some(42), "out\nerr\n"));
    let (end, said) = shop.quick("seq 200000").await;
    assert_eq!((exit_code(&end), said.lines().count()), (Some(0), 200_000));
    let (end, _) = shop.quick("kill -9 $$").await;
    assert_eq!(exit_code(&end), Some(137));
    let (end, _) = shop.quick("yes").await;
    assert!(matches!(end, Ok(End::Exhausted { .. })), "{end:?}");
    // Many at once over one link.
    let many = (0..8).map(|number| {
        let shop = &shop;
        async move {
            let (end, said) = shop.quick(&format!("sleep 0.1; echo {number}")).await;
            (exit_code(&end), said, number)
        }
    });
    for (code, said, number) in futures::future::join_all(many).await {
        assert_eq!((code, said), (Some(0), format!("{number}\n")));
    }
    shop.containers.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_may_lie_in_a_home_that_is_closed_in_the_image() {
    let home = std::env::var("HOME").unwrap();
    let Some(shop) = Shop::open_in(tempfile::tempdir_in(home).unwrap(), &image(), 1).await else { return };
    let (end, said) = shop.quick("echo x > here && cat here").await;
    assert_eq!((exit_code(&end), said.as_str()), (Some(0), "x\n"), "{end:?}");
    shop.containers.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_cancelled_is_gone_within_two_seconds() {
    let Some(shop) = Shop::open(&image(), 1).await else { return };
    shop.quick("true").await.0.unwrap();
    let (stop, cancel) = watch::channel(false);
    let begin = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.send(true).unwrap();
    });
    let (end, _) = shop.run("trap '' TERM INT; setsid sleep 98762 & sleep 98762", cancel).await;
    assert!(matches!(end, Ok(End::Cancelled)), "{end:?}");
    assert!(begin.elapsed() < Duration::from_millis(2300), "{:?}", begin.elapsed());
    let all = run(Command::new("ps").args(["-eo", "args"])).stdout;
    assert!(!String::from_utf8_lossy(&all).contains("sleep 98762"), "it still runs");
    // The container was not needed for that.
    let ids = shop.containers.ids().await;
    assert_eq!(exit_code(&shop.quick("true").await.0), Some(0));
    assert_eq!(shop.containers.ids().await, ids);
    shop.containers.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_is_infrastructure_and_the_next_command_has_a_new_one() {
    let Some(shop) = Shop::open(&image(), 1).await else { return };
    shop.quick("true").await.0.unwrap();
    let first = shop.containers.ids().await;
    let killer = {
        let id = first[0].clone();
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(300));
            docker(&["kill", &id])
        })
    };
    let (end, _) = shop.quick("sleep 30").await;
    assert!(matches!(&end, Err(Trouble::Sandbox { detail }) if detail.contains("the container ended")), "{end:?}");
    killer.await.unwrap();
    assert_eq!(exit_code(&shop.quick("true").await.0), Some(0));
    let second = shop.containers.ids().await;
    assert_ne!(first, second);
    shop.containers.close().await;
    let left = docker(&["ps", "-aq", "--no-trunc"]);
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(!first.iter().chain(&second).any(|id| left.contains(id.as_str())), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_bounds_does_not_disturb_the_slot_beside_it() {
    let Some(shop) = Shop::open(&image(), 2).await else { return };
    let hog = shop.quick("perl -e 'my @a; push @a, \"x\" x 10000000 while 1'");
    let neighbour = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut codes = Vec::new();
        for _ in 0..20 {
            codes.push(exit_code(&shop.quick("head -c 50M /dev/zero | sha256sum > /dev/null").await.0));
        }
        codes
    };
    let ((hog, _), codes) = tokio::join!(hog, neighbour);
    let hog = hog.and_then(|end| end.exited(60)).unwrap_err();
    assert!(matches!(&hog, Trouble::Killed { detail } if detail.contains("out of memory")), "{hog:?}");
    assert_eq!(codes, vec![Some(0); 20]);
    shop.containers.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_locked_down_and_holds_nothing_of_the_host_but_its_build_folders() {
    let Some(shop) = Shop::open(&image(), 1).await else { return };
    shop.quick("true").await.0.unwrap();
    let id = shop.containers.ids().await.swap_remove(0);
    let seen: Value = serde_json::from_slice(&docker(&["inspect", &id]).stdout).unwrap();
    let (host, config) = (&seen[0]["HostConfig"], &seen[0]["Config"]);
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["Memory"], 512 << 20);
    assert_eq!(host["MemorySwap"], 512 << 20);
    assert!(host["PidsLimit"].as_u64().unwrap() > 0 && host["NanoCpus"].as_u64().unwrap() > 0);
    assert!(host["SecurityOpt"].to_string().contains("no-new-privileges"));
    assert_ne!(config["User"], "0:0");
    assert_eq!(host["Binds"].as_array().unwrap().len(), 2);
    // What somebody would see who breaks out of the sandbox into the container.
    let folder = shop.folder.path().display().to_string();
    let look = |script: &str| {
        let output = docker(&["exec", &id, "/bin/sh", "-c", script]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(look(&format!("ls {folder}")), (true, "trees\n".to_owned()));
    for (what, script) in [
        ("writes to its root", "touch /usr/x"),
        ("writes our program", "echo x >> /bombproof/bombproof"),
        ("writes a setting", "echo x > /proc/sys/kernel/core_pattern"),
        ("triggers the kernel", "echo h > /proc/sysrq-trigger"),
        ("has an interface", "tail -n +3 /proc/net/dev | grep -v lo:"),
        ("sees the engine", "ls /var/run/docker.sock /run/docker.sock"),
        ("mounts", "mount -t tmpfs none /tmp"),
        ("has a capability", "grep -E '^Cap(Prm|Eff|Bnd|Amb):' /proc/self/status | grep -v 0000000000000000"),
        ("is root", "[ $(id -u) = 0 ]"),
        ("has a secret", "tr '\\0' '\\n' < /proc/1/environ | grep -v -E '^(PATH|HOME|HOSTNAME)=' | grep ."),
    ] {
        assert!(!look(script).0, "{what}: {}", look(script).1);
    }
    shop.containers.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_changes_under_a_worker_is_noticed() {
    let Some(_) = engine().await else { return };
    // A name of our own, so that nobody is disturbed.
    let name = format!("bombproof-test-{}:moving", std::process::id());
    assert!(docker(&["tag", &image(), &name]).status.success());
    let shop = Shop::open(&name, 1).await.unwrap();
    shop.quick("true").await.0.unwrap();
    shop.containers.check_image().await.unwrap();
    let mut change = Command::new("docker");
    change.args(["import", "-", &name]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut change = change.spawn().unwrap();
    // An archive without files.
    std::io::Write::write_all(&mut change.stdin.take().unwrap(), &[0; 10_240]).unwrap();
    assert!(change.wait().unwrap().success());
    let error = shop.containers.check_image().await.unwrap_err().to_string();
    assert!(error.contains("changed while it was in use"), "{error}");
    // What runs is still of the old image; a new container would not be.
    assert_eq!(exit_code(&shop.quick("gcc --version").await.0), Some(0));
    docker(&["rm", "-f", &shop.containers.ids().await[0]]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !shop.containers.ids().await.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (end, _) = shop.quick("true").await;
    assert!(matches!(&end, Err(Trouble::Toolchain { detail }) if detail.contains(&name)), "{end:?}");
    shop.containers.close().await;
    docker(&["rmi", &name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_dead_worker_end_and_what_is_left_is_swept() {
    let Some(shop) = Shop::open(&image(), 1).await else { return };
    shop.quick("true").await.0.unwrap();
    let own = shop.containers.ids().await.swap_remove(0);
    let home = shop.folder.path().display().to_string();
    let label = format!("org.bombproof.home={home}");
    let left =
        docker(&["create", "--label", &label, "--label", "org.bombproof.worker=worker-dead.lock", &image(), "true"]);
    let left = String::from_utf8_lossy(&left.stdout).trim().to_owned();
    let exists = |id: &str| docker(&["inspect", id]).status.success();
    assert!(exists(&left));
    // Another worker of the same folder begins.
    let other = Containers::prepare(engine().await.unwrap(), Shop::config(&shop.folder, &image(), 1)).await.unwrap();
    assert_eq!(other.swept(), 1);
    assert!(!exists(&left));
    assert!(exists(&own), "the container of a living worker was taken");
    shop.containers.close().await;
    drop(other);
}

#[test]
fn a_check_that_is_killed_leaves_no_container() {
    if !has_engine() {
        return;
    }
    let ground = Ground::new();
    std::fs::write(ground.repo().join("x"), "1").unwrap();
    ground.git(&["add", "-A"]);
    ground.git(&["commit", "-qm", "one"]);
    let mut check =
        ground.bombproof(&["check", "base..HEAD", "--repo", "repo", "--exec", "sleep 98763", "--sandbox", "container"]);
    let check = check.args(["--image", &image(), "--jobs", "1"]);
    let mut check = check.stderr(std::process::Stdio::null()).spawn().unwrap();
    let label = format!("label=org.bombproof.home={}", ground.path().join("home").display());
    let count = || docker(&["ps", "-aq", "--filter", &label]).stdout.iter().filter(|byte| **byte == b'\n').count();
    let runs = || !docker(&["ps", "-q", "--filter", &label]).stdout.is_empty();
    let wait = |want: &dyn Fn(usize) -> bool| {
        let begin = Instant::now();
        while !want(count()) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{} containers", count());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    // One that is made and not started yet would be removed by the next check alone.
    wait(&|count| count > 0 && runs());
    std::thread::sleep(Duration::from_millis(500));
    check.kill().unwrap();
    check.wait().unwrap();
    wait(&|count| count == 0);
}

#[test]
fn what_cannot_be_had_is_said() {
    let ground = Ground::new();
    let check = |args: &[&str]| {
        let all = [&["check", "base..base", "--repo", "repo"], args].concat();
        let output = ground.bombproof(&all).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(check(&["--sandbox", "container"]).contains("--image"));
    let said = check(&["--sandbox", "container", "--image", "x", "--engine", "/nonexistent/socket"]);
    assert!(said.contains("no container engine answers") && said.contains("/nonexistent/socket"), "{said}");
    if has_engine() {
        let said = check(&["--sandbox", "container", "--image", "no-such-image-here"]);
        assert!(
            said.contains("there is no image 'no-such-image-here'") && said.contains("deploy/images/build"),
            "{said}"
        );
    }
}
