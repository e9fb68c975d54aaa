//! The leader with workers that are played.

use bombproof_core::action::{Action, ActionResult};
use bombproof_core::digest::BlobDigest;
use bombproof_core::farm::{Attempt, Capabilities, Finished, Kind, Needs, Platform, Report, Running, Standing};
use bombproof_core::order::{Order, action_job};

use super::*;

fn action(name: &str) -> Action {
    Action {
        argv: vec![name.to_owned()],
        env: BTreeMap::new(),
        folder: "out".to_owned(),
        outputs: Vec::new(),
        inputs: BTreeMap::new(),
        platform: BTreeMap::new(),
    }
}

fn platform() -> Platform {
    Platform { arch: None, toolchain: Digest::of(b"gcc") }
}

fn wanted(name: &str) -> (Wanted, Work) {
    let job = action_job(&BlobDigest::of(name.as_bytes()));
    let needs = Needs { platform: platform(), kind: Kind::Action };
    let wanted = Wanted { job, needs, rank: 0, expected_ms: 1, limit_ms: 60_000, lane: None };
    let name = name.to_owned();
    (wanted, Work::Action(Arc::new(move || Ok(action(&name)))))
}

fn result(stderr: &str) -> Done {
    Done::Action(ActionResult { exit: 0, outputs: Vec::new(), stderr: stderr.to_owned(), cpu_us: 0, wall_us: 0 })
}

struct Worker {
    number: u64,
    running: Vec<Running>,
}

impl Worker {
    fn call(&mut self, finished: Vec<Finished>) -> Call {
        self.number += 1;
        let capabilities = Capabilities { platforms: [platform()].into(), slots: 2, step_slots: 2 };
        let report = Report {
            worker: "w".into(),
            session: 1,
            call: self.number,
            capabilities,
            lanes: Vec::new(),
            running: self.running.clone(),
            finished,
            draining: false,
        };
        Call { report, results: BTreeMap::new(), offers: Vec::new(), sandbox: String::new() }
    }
}

fn leader(config: Config) -> Arc<Leader> {
    let leader = Leader::new(1, config, FarmMetrics::default());
    tokio::spawn(Arc::clone(&leader).tick_for_ever());
    leader.open(&"s".into(), &"ann".into(), Priority::Normal);
    leader
}

fn want(leader: &Arc<Leader>, name: &str) -> (tokio::task::JoinHandle<Answered>, watch::Sender<bool>) {
    let (stop, cancel) = watch::channel(false);
    let (leader, (wanted, order)) = (Arc::clone(leader), wanted(name));
    (tokio::spawn(async move { leader.want(&"s".into(), wanted, order, cancel).await }), stop)
}

/// Calls until something is to be done.
async fn work(leader: &Leader, worker: &mut Worker) -> Attempt {
    loop {
        let answer = leader.synchronize(worker.call(Vec::new()), HashMap::new()).await.unwrap();
        assert_eq!(answer.standing, Standing::Good);
        if let Some(assignment) = answer.start.first() {
            worker.running.push(Running { attempt: assignment.attempt, job: assignment.job });
            return assignment.attempt;
        }
    }
}

async fn end(leader: &Leader, worker: &mut Worker, attempt: Attempt, done: Done) {
    let place = worker.running.iter().position(|running| running.attempt == attempt).unwrap();
    let job = worker.running.remove(place).job;
    let digest = Digest::of(format!("{done:?}").as_bytes());
    let finished = vec![Finished { attempt, job, ended: Ended::Result { digest } }];
    let given = [(digest, Arc::new(done))].into();
    let answer = leader.synchronize(worker.call(finished), given).await.unwrap();
    assert_eq!(answer.noted, [attempt]);
}

#[tokio::test]
async fn an_answer_goes_to_all_that_wait_and_the_job_is_forgotten() {
    let leader = leader(Config::default());
    let (one, _keep) = want(&leader, "a");
    let (two, _keep_too) = want(&leader, "a");
    let mut worker = Worker { number: 0, running: Vec::new() };
    let attempt = work(&leader, &mut worker).await;
    let job = worker.running[0].job;
    assert_eq!(leader.work(&job).unwrap().order().unwrap(), Order::Action(action("a")));
    end(&leader, &mut worker, attempt, result("done")).await;
    for waiter in [one, two] {
        assert_eq!(*waiter.await.unwrap().unwrap(), result("done"));
    }
    assert_eq!((leader.work(&job).is_some(), leader.overview().1), (false, 1));
}

#[tokio::test]
async fn a_call_that_is_held_back_is_answered_when_something_is_wanted() {
    let leader = leader(Config::default());
    let mut worker = Worker { number: 0, running: Vec::new() };
    let call = worker.call(Vec::new());
    let held = {
        let leader = Arc::clone(&leader);
        tokio::spawn(async move { leader.synchronize(call, HashMap::new()).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!held.is_finished(), "there is nothing to do");
    let (_waiter, _keep) = want(&leader, "a");
    // Far sooner than the call would be answered anyway.
    let answer = tokio::time::timeout(Duration::from_secs(5), held).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.start.len(), 1);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_stopped() {
    let leader = leader(Config { call_ms: 50, ..Config::default() });
    let (waiter, stop) = want(&leader, "a");
    let mut worker = Worker { number: 0, running: Vec::new() };
    let attempt = work(&leader, &mut worker).await;
    stop.send(true).unwrap();
    assert_eq!(waiter.await.unwrap().unwrap_err(), Trouble::Interrupted);
    let answer = leader.synchronize(worker.call(Vec::new()), HashMap::new()).await.unwrap();
    assert_eq!(answer.stop, [attempt]);
}

#[tokio::test]
async fn an_answer_to_another_question_settles_nothing() {
    let leader = leader(Config { backoff_ms: 1, avoid_ms: 1, call_ms: 20, lease_ms: 1_000, ..Config::default() });
    let (waiter, _keep) = want(&leader, "a");
    let mut worker = Worker { number: 0, running: Vec::new() };
    let attempt = work(&leader, &mut worker).await;
    let other = Done::Audited { audited: bombproof_core::outcome::Audited::Equal, log: None };
    end(&leader, &mut worker, attempt, other).await;
    assert!(!waiter.is_finished());
    let again = work(&leader, &mut worker).await;
    assert!(again > attempt);
    end(&leader, &mut worker, again, result("right")).await;
    assert_eq!(*waiter.await.unwrap().unwrap(), result("right"));
}

#[tokio::test]
async fn a_worker_that_is_silent_loses_its_work_to_another() {
    let leader = leader(Config { lease_ms: 100, call_ms: 20, idle_ms: 50, backoff_ms: 1, ..Config::default() });
    let (waiter, _keep) = want(&leader, "a");
    let mut lost = Worker { number: 0, running: Vec::new() };
    let _attempt = work(&leader, &mut lost).await;
    let mut other = Worker { number: 0, running: Vec::new() };
    let attempt = loop {
        let mut call = other.call(Vec::new());
        call.report.worker = "other".into();
        let answer = leader.synchronize(call, HashMap::new()).await.unwrap();
        if let Some(assignment) = answer.start.first() {
            break (assignment.attempt, assignment.job);
        }
    };
    let mut call = other.call(vec![Finished {
        attempt: attempt.0,
        job: attempt.1,
        ended: Ended::Result { digest: Digest::of(b"r") },
    }]);
    call.report.worker = "other".into();
    let given = [(Digest::of(b"r"), Arc::new(result("other")))].into();
    leader.synchronize(call, given).await.unwrap();
    assert_eq!(*waiter.await.unwrap().unwrap(), result("other"));
}
