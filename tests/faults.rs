//! Faults on purpose, on a farm of real processes: every series ends with the report of an undisturbed run, and nothing is blamed on a patch.
//!
//! What is random comes from a seed, which is printed; `BOMBPROOF_SEED` plays it again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;
mod on_farm;
mod proxy;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Ground, Process, Small, run, until};
use on_farm::{Farm, Pair, Redis, commits, image, report, series, settled_by, strs};
use proxy::{Mood, Proxy};
use serde_json::Value;

/// Commits whose command prints 4 MB that nobody printed before, and fails at note 1.
fn loud(marker: &str) -> Vec<String> {
    let script = format!(": '{marker}'; head -c 3000000 /dev/urandom | base64; echo; echo end; ! grep -q 1 notes");
    ["base..main", "--repo", "repo", "--exec", &script].map(str::to_owned).to_vec()
}

/// The exit code and the report of one machine.
fn alone(ground: &Ground, args: &[&str]) -> (Option<i32>, Value) {
    let args = [&["check"], args, &["--format", "json"]].concat();
    let (code, found) = report(&ground.bombproof(&args).output().unwrap());
    (code, settled_by(found))
}

fn on_farm(farm: &Farm<'_>, series: &str) -> (Option<i32>, Value) {
    let (code, found) = farm.report(series);
    (code, settled_by(found))
}

#[test]
fn a_worker_that_is_cut_off_in_the_middle_of_an_upload_is_listened_to_again() {
    let ground = Ground::new();
    commits(&ground, 2);
    let farm = Farm::start(&ground, 1_500);
    let network = Proxy::to(farm.port());
    let worker = farm.worker_at(&network.url(), &["--sandbox", "namespaces"], "one", &[]);
    for (mood, pause_ms) in [(Mood::Cut, 300), (Mood::Cut, 4_000), (Mood::Stalled, 300), (Mood::Stalled, 4_000)] {
        let marker = format!("{mood:?} {pause_ms}");
        let args = loud(&marker);
        let want = alone(&ground, &strs(&args));
        let before = farm.settled();
        network.set(Mood::Slow(4_000_000));
        let id = farm.submit(&strs(&args));
        network.has_sent(1_500_000);
        network.set(mood);
        std::thread::sleep(Duration::from_millis(pause_ms));
        network.set(Mood::Good);
        assert_eq!(on_farm(&farm, &id), want, "{marker}: {}", worker.said());
        assert_eq!(farm.settled() - before, 3, "{marker}: each state is settled once");
    }
}

#[test]
fn what_only_a_dead_worker_had_is_made_again_by_another_one() {
    let ground = Ground::new();
    commits(&ground, 2);
    let args = loud("dead");
    let want = alone(&ground, &strs(&args));
    let farm = Farm::start(&ground, 1_000);
    let network = Proxy::to(farm.port());
    let mut one = farm.worker_at(&network.url(), &["--sandbox", "namespaces"], "one", &[]);
    network.set(Mood::Slow(4_000_000));
    let id = farm.submit(&strs(&args));
    // The command has ended, and what it printed is here in part.
    network.has_sent(1_500_000);
    network.set(Mood::Stalled);
    one.kill();
    let _two = farm.worker("two", &[]);
    assert_eq!(on_farm(&farm, &id), want);
    assert_eq!(farm.settled(), 3);
}

#[test]
fn workers_that_die_with_their_disks_take_nothing_along() {
    let ground = Ground::new();
    let args = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64,s390x".to_owned()]].concat();
    let want = alone(&ground, &strs(&args));
    let farm = Farm::start(&ground, 1_000);
    let mut workers: Vec<(String, Process)> = Vec::new();
    let mut count = 0;
    let mut come = |workers: &mut Vec<(String, Process)>| {
        count += 1;
        let name = format!("w{count}");
        workers.push((name.clone(), farm.worker(&name, &["--slots", "2"])));
    };
    come(&mut workers);
    come(&mut workers);
    let id = farm.submit(&strs(&args));
    // Whenever so much more is known, the one that was there longest dies, and others need what it made.
    for goal in [1, 3, 6] {
        until("more is settled", || (farm.settled() >= goal || farm.is_over(&id)).then_some(()));
        let (name, mut worker) = workers.remove(0);
        worker.kill();
        std::fs::remove_dir_all(ground.path().join(format!("home-{name}"))).unwrap();
        come(&mut workers);
    }
    assert_eq!(on_farm(&farm, &id), want);
}

#[test]
fn a_worker_whose_disk_is_full_blames_nobody_and_is_of_use_again_when_it_has_room() {
    let ground = Ground::new();
    let args = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64".to_owned()]].concat();
    let want = alone(&ground, &strs(&args));
    let Some(disk) = Small::mount(&ground.path().join("home-one"), "size=256m") else { return };
    let farm = Farm::start(&ground, 15_000);
    let one = farm.worker("one", &[]);
    disk.fill();
    let id = farm.submit(&strs(&args));
    one.says("gave no answer: the disk could not be written");
    disk.free();
    assert_eq!(on_farm(&farm, &id), want, "{}", one.said());
    // Full again, and for good: another one does it.
    commits(&ground, 2);
    let args = ["base..main", "--repo", "repo", "--exec", "! grep -q 1 notes"];
    let want = alone(&ground, &args);
    disk.fill();
    let _two = farm.worker("two", &[]);
    let id = farm.submit(&args);
    assert_eq!(on_farm(&farm, &id), want);
}

#[test]
fn a_coordinator_whose_disk_is_full_waits_and_goes_on_when_it_has_room() {
    let mut dice = Dice::cast();
    let ground = Ground::new();
    let args = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64".to_owned()]].concat();
    let want = alone(&ground, &strs(&args));
    let Some(disk) = Small::mount(&ground.path().join("coordinator"), "size=256m") else { return };
    let farm = Farm::start(&ground, 15_000);
    // Accepted before it is full, and worked on after.
    let id = farm.submit(&strs(&args));
    farm.coordinator.says("there is no worker");
    disk.fill();
    let _one = farm.worker("one", &[]);
    farm.coordinator.says("waiting for it");
    // Nothing is accepted meanwhile.
    let refused = farm.command(&[&["submit"], &strs(&args)[..]].concat());
    let mut refused = Process::start(&mut { refused }, ground.path().join("refused.log"));
    std::thread::sleep(Duration::from_secs(3));
    refused.kill();
    assert_eq!(farm.ask(&["list"]).lines().count(), 1, "{}", farm.ask(&["list"]));
    disk.free();
    assert_eq!(on_farm(&farm, &id), want, "{}", farm.coordinator.said());
    // And in the middle of it.
    commits(&ground, 4);
    let args = ["base..main", "--repo", "repo", "--exec", "sleep 1; ! grep -q 1 notes"];
    let want = alone(&ground, &args);
    let id = farm.submit(&args);
    until("it runs", || (farm.used("one")? == "1/1").then_some(()));
    disk.fill();
    std::thread::sleep(Duration::from_secs(5));
    disk.free();
    assert_eq!(on_farm(&farm, &id), want, "{}", farm.coordinator.said());
    // Whatever it is about to write, again and again.
    let args = [&series("missing-header-heals-at-4")[..], &["--arch".to_owned(), "x86_64,s390x".to_owned()]].concat();
    let want = alone(&ground, &strs(&args));
    let id = farm.submit(&strs(&args));
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(100 + dice.below(1_500)));
        disk.fill();
        std::thread::sleep(Duration::from_secs(2));
        disk.free();
    }
    assert_eq!(on_farm(&farm, &id), want, "{}", farm.coordinator.said());
    assert!(!farm.coordinator.said().contains("is failed"), "{}", farm.coordinator.said());
}

/// Numbers that look like chance, from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn cast() -> Self {
        let given = std::env::var("BOMBPROOF_SEED").ok().and_then(|text| text.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = given.unwrap_or(now.subsec_nanos().into());
        eprintln!("BOMBPROOF_SEED={seed}");
        Self(seed)
    }

    /// A number below this one (splitmix64).
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

#[test]
fn leaders_that_are_killed_at_any_moment_under_load_lose_no_series() {
    let mut dice = Dice::cast();
    let ground = Ground::new();
    let kernel = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64,s390x".to_owned()]].concat();
    let kernel = (alone(&ground, &strs(&kernel)), kernel);
    commits(&ground, 3);
    let Some(redis) = Redis::start(&ground) else { return };
    let mut farm = Pair::start(&ground, redis.port);
    let mut all = vec![];
    for number in 0..3 {
        let script = format!(": {number}; sleep 0.{number}; ! grep -q 1 notes");
        let args = ["base..main", "--repo", "repo", "--exec", &script].map(str::to_owned).to_vec();
        all.push((alone(&ground, &strs(&args)), args));
    }
    all.push(kernel);
    let ids: Vec<String> = all.iter().map(|(_, args)| farm.hand_in(&strs(args))).collect();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(200 + dice.below(2_500)));
        // Mostly one that leads, sometimes both.
        let dead = farm.leads();
        let both = dice.below(4) == 0;
        for number in 0..2 {
            if both || number == dead {
                farm.restart(number);
            }
        }
    }
    for (id, (want, args)) in ids.iter().zip(&all) {
        let (code, found) = report(&farm.command(&["watch", id, "--format", "json"]).output().unwrap());
        assert_eq!((code, settled_by(found)), *want, "{args:?}");
    }
}

#[test]
fn a_register_whose_data_come_back_goes_on_with_every_series() {
    let ground = Ground::new();
    commits(&ground, 3);
    let Some(mut redis) = Redis::start(&ground) else { return };
    let farm = Pair::start(&ground, redis.port);
    let series = farm.submit("restored");
    let (data, kept) = (ground.path().join("redis"), ground.path().join("kept"));
    redis.restart(|| {
        std::fs::rename(&data, &kept).unwrap();
        std::fs::create_dir(&data).unwrap();
    });
    for coordinator in &farm.coordinators {
        coordinator.says("its data are lost");
    }
    redis.restart(|| {
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(&kept, &data).unwrap();
    });
    farm.ends_well(&series);
    for coordinator in &farm.coordinators {
        assert!(!coordinator.said().contains("is failed"), "{}", coordinator.said());
    }
}

#[test]
fn a_register_behind_a_bad_network_fails_nothing() {
    let ground = Ground::new();
    commits(&ground, 3);
    let Some(redis) = Redis::start(&ground) else { return };
    let network = Proxy::to(redis.port);
    let farm = Pair::start(&ground, network.port);
    for (mood, for_ms) in
        [(Mood::Late(Duration::from_millis(150)), 6_000), (Mood::Stalled, 5_000), (Mood::Cut, 500), (Mood::Cut, 5_000)]
    {
        let series = farm.submit(&format!("{mood:?} {for_ms}"));
        network.set(mood);
        std::thread::sleep(Duration::from_millis(for_ms));
        network.set(Mood::Good);
        farm.ends_well(&series);
    }
    for coordinator in &farm.coordinators {
        assert!(!coordinator.said().contains("is failed"), "{}", coordinator.said());
    }
}

/// Changes a byte of every file below a folder whose turn it is; gives how many.
fn corrupt(folder: &Path, dice: &mut Dice) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.metadata().unwrap());
        if kind.is_dir() {
            count += corrupt(&path, dice);
        } else if kind.len() > 0 && dice.below(2) == 0 {
            let mut bytes = std::fs::read(&path).unwrap();
            let at = usize::try_from(dice.below(kind.len())).unwrap();
            bytes[at] ^= 1 << dice.below(8);
            let mode = kind.permissions();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, mode).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
fn damaged_stores_of_coordinator_and_worker_are_noticed_and_never_believed() {
    let mut dice = Dice::cast();
    let ground = Ground::new();
    let args = |name: &str| [&series(name)[..], &["--arch".to_owned(), "x86_64,s390x".to_owned()]].concat();
    let (first, second) = (args("breaks-at-2-heals-at-4"), args("missing-header-heals-at-4"));
    let wants = [&first, &second].map(|args| alone(&ground, &strs(args)));
    let mut farm = Farm::start(&ground, 15_000);
    let mut one = farm.worker("one", &[]);
    let id = farm.submit(&strs(&first));
    assert_eq!(on_farm(&farm, &id), wants[0]);
    for restarted in [false, true] {
        // What a slot of a worker has laid out is not looked at again while the worker lives.
        one.kill();
        let damaged = corrupt(&ground.path().join("home-one/cas"), &mut dice);
        let home = ground.path().join("coordinator");
        let mut kept = 0;
        for folder in ["cas", "actions", "results", "graphs", "manifests"] {
            kept += corrupt(&home.join(folder), &mut dice);
        }
        assert!(damaged > 10 && kept > 10, "{damaged} {kept}");
        if restarted {
            farm.restart();
        }
        one = farm.worker("one", &[]);
        for (args, want) in [&second, &first].into_iter().zip([&wants[1], &wants[0]]) {
            let id = farm.submit(&strs(args));
            assert_eq!(on_farm(&farm, &id), *want, "{args:?} {}", one.said());
        }
    }
}

#[test]
fn an_image_that_changes_under_a_series_never_mixes_results() {
    let Some(image) = image() else { return };
    let ground = Ground::new();
    let args = [&series("breaks-at-2-heals-at-4")[..], &["--arch".to_owned(), "x86_64".to_owned()]].concat();
    let want = alone(&ground, &strs(&args));
    // Two names of a test's own, of which one has another compiler: it says another version.
    let (tag, other) = (format!("bombproof-test-{}:now", std::process::id()), "bombproof-test-other");
    let docker = |args: &[&str]| run(Command::new("docker").args(args));
    docker(&["tag", &image, &tag]);
    let _gone = Untag(vec![tag.clone(), other.to_owned()]);
    let script = "for f in /usr/bin/gcc; do mv $(readlink -f $f) /usr/bin/gcc-real && \
                  printf '#!/bin/sh\nexec /usr/bin/gcc-real \"$@\"\n' > $(readlink -f $f) && chmod 755 $(readlink -f $f); done";
    let made = docker(&["run", "-d", "-u", "0", "--entrypoint", "/bin/sh", &image, "-c", script]).stdout;
    let made = String::from_utf8(made).unwrap().trim().to_owned();
    assert_eq!(docker(&["wait", &made]).stdout, b"0\n");
    docker(&["commit", &made, other]);
    docker(&["rm", &made]);
    let farm = Farm::start(&ground, 1_500);
    let sandbox = ["--sandbox", "container", "--image", tag.as_str()];
    let mut one = farm.worker_in(&sandbox, "one", &[]);
    let id = farm.submit(&strs(&args));
    until("it has begun", || (farm.settled() > 0 || farm.is_over(&id)).then_some(()));
    docker(&["tag", other, &tag]);
    one.kill();
    let mut one = farm.worker_in(&sandbox, "one", &[]);
    // The series keeps its compiler: nothing of it is done with another one, and what waits for it is said.
    std::thread::sleep(Duration::from_secs(6));
    docker(&["tag", &image, &tag]);
    one.kill();
    let _one = farm.worker_in(&sandbox, "one", &[]);
    assert_eq!(on_farm(&farm, &id), want, "{}", farm.coordinator.said());
}

/// Names of images that go with the test.
struct Untag(Vec<String>);

impl Drop for Untag {
    fn drop(&mut self) {
        let _ = Command::new("docker").arg("rmi").args(&self.0).output();
    }
}
