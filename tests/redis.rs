//! Coordinators that share a register in Redis: what becomes of a series when one of them, or the server, dies, stands still or forgets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;
mod on_farm;

use common::{Ground, until};
use on_farm::{Pair, Redis, commits};

#[test]
fn a_leader_that_is_killed_or_stands_still_is_followed_by_the_other_one() {
    let ground = Ground::new();
    commits(&ground, 3);
    let Some(redis) = Redis::start(&ground) else { return };
    let mut farm = Pair::start(&ground, redis.port);
    let series = farm.submit("killed");
    let mut watching = farm.watch(&series);
    watching.says("farm, sandbox");
    farm.coordinators[0].kill();
    farm.coordinators[1].says("1 series to go on with");
    assert_eq!(watching.ends(), Some(1), "{}", watching.said());
    assert_eq!(watching.said().matches("farm, sandbox").count(), 1, "nothing is shown twice: {}", watching.said());
    farm.ends_well(&series);
    // The one that leads now is stopped for longer than its lease, and wakes up in the middle of the same series.
    farm.restart(0);
    let series = farm.submit("stopped");
    farm.coordinators[1].signal("STOP");
    farm.coordinators[0].says("1 series to go on with");
    farm.coordinators[1].signal("CONT");
    farm.coordinators[1].says("the reign is over");
    farm.ends_well(&series);
    let said = farm.coordinators[1].said();
    assert!(!said.contains(&format!("series {series} is failed")), "{said}");
    // One that is told to end leaves the lease.
    farm.coordinators[0].signal("TERM");
    assert_eq!(farm.coordinators[0].ends(), Some(0));
    farm.ends_well(&series);
    assert!(!farm.worker.said().contains("gave no answer"), "{}", farm.worker.said());
}

#[test]
fn a_register_that_is_away_for_a_while_fails_nothing() {
    let ground = Ground::new();
    commits(&ground, 3);
    let Some(mut redis) = Redis::start(&ground) else { return };
    let farm = Pair::start(&ground, redis.port);
    // Started again, with its data.
    let series = farm.submit("restarted");
    redis.restart(|| {});
    farm.ends_well(&series);
    // Slow for longer than a lease: both are answered late, and one of them leads then.
    let series = farm.submit("paused");
    redis.ask(&["CLIENT", "PAUSE", "4000", "ALL"]);
    farm.ends_well(&series);
    // It only reads, as one that was made a replica by mistake.
    let series = farm.submit("read-only");
    redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    until("nobody leads", || {
        let said = ground.bombproof(&["status", "--coordinator", &format!("http://127.0.0.1:{}", farm.ports[0])]);
        let said = { said }.output().unwrap();
        (said.status.code() == Some(2)).then_some(())
    });
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    farm.ends_well(&series);
    for coordinator in &farm.coordinators {
        assert!(!coordinator.said().contains("is failed"), "{}", coordinator.said());
    }
}

#[test]
fn a_register_that_lost_its_data_is_said_and_nothing_passes_for_success() {
    let ground = Ground::new();
    commits(&ground, 3);
    let Some(redis) = Redis::start(&ground) else { return };
    let farm = Pair::start(&ground, redis.port);
    let series = farm.submit("forgotten");
    redis.ask(&["FLUSHALL"]);
    farm.coordinators[0].says("its data are lost");
    farm.coordinators[1].says("its data are lost");
    for port in farm.ports {
        let url = format!("http://127.0.0.1:{port}");
        for args in [&["list"][..], &["status", &series], &["report", &series]] {
            let said = ground.bombproof(args).args(["--coordinator", &url]).output().unwrap();
            let words = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!((said.status.code(), words.contains("its data are lost")), (Some(2), true), "{args:?}: {words}");
        }
    }
    // The operator takes it for lost, and the farm begins anew, above the reigns of before.
    std::fs::remove_file(ground.path().join("coordinator/register.id")).unwrap();
    let next = farm.submit("anew");
    farm.ends_well(&next);
    let gone = farm.command(&["watch", &series]).output().unwrap();
    assert_eq!(gone.status.code(), Some(64), "{}", String::from_utf8_lossy(&gone.stderr));
}
