//! The dispatcher against a scripted executor.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bombproof_core::digest::BlobDigest;
use bombproof_core::outcome::{Failure, Stage};
use bombproof_core::plan::graph::Graph;
use bombproof_store::graphs::{Graphs, MemoryGraphs};
use bombproof_store::results::MemoryResults;

use super::*;

/// What the executor answers: the outcome of a state and an attempt.
type Script = fn(&Job) -> Outcome;

struct Scripted {
    script: Script,
    jobs: Mutex<Vec<Job>>,
    running: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(script: Script) -> Self {
        Self { script, jobs: Mutex::default(), running: Arc::default(), peak: Arc::default() }
    }

    fn built(&self) -> Vec<(usize, u32, u32)> {
        self.jobs.lock().unwrap().iter().map(|job| (job.target, job.state.0, job.attempt)).collect()
    }
}

impl Executor for Scripted {
    /// Agrees with everything but state 2.
    fn audit(&self, job: Job, _: Arc<StateResult>, _: watch::Receiver<bool>) -> BoxFuture<'static, Audited> {
        let same = job.state.0 != 2;
        let audited = if same { Audited::Equal } else { Audited::Different(vec!["an object".to_owned()]) };
        Box::pin(async move { audited })
    }

    fn execute(&self, job: Job, mut cancel: watch::Receiver<bool>) -> BoxFuture<'static, Built> {
        let outcome = (self.script)(&job);
        self.jobs.lock().unwrap().push(job);
        let (running, peak) = (Arc::clone(&self.running), Arc::clone(&self.peak));
        Box::pin(async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let outcome = if outcome == Outcome::Trouble(Trouble::Interrupted) {
                let _ = cancel.wait_for(|stop| *stop).await;
                outcome
            } else {
                tokio::task::yield_now().await;
                outcome
            };
            running.fetch_sub(1, Ordering::SeqCst);
            StateResult { outcome, ..StateResult::trouble(Trouble::Interrupted) }.into()
        })
    }
}

fn fails() -> Outcome {
    Outcome::Failed(vec![Failure { stage: Stage::Compile, what: "a.o".into(), message: "no".into(), werror: false }])
}

fn tree(name: char) -> Oid {
    Oid::parse(&name.to_string().repeat(40)).unwrap()
}

fn work(targets: usize, trees: &str, mode: Mode) -> Work {
    Work {
        targets: (0..targets).map(|n| Digest::of(&n.to_be_bytes())).collect(),
        parallel: false,
        trees: trees.chars().map(tree).collect(),
        mode,
        slots: 2,
        reuse: true,
    }
}

async fn run_with(work: &Work, store: &MemoryResults, executor: &Scripted) -> Gathered {
    let (events, _kept) = mpsc::unbounded_channel();
    let (_stop, cancel) = watch::channel(false);
    run(work, store, executor, None, &events, cancel).await.unwrap()
}

fn outcomes(gathered: &Gathered, target: usize) -> String {
    let letter = |result: &Option<Arc<StateResult>>| match result.as_ref().map(|result| &result.outcome) {
        None => '.',
        Some(Outcome::Built) => 'b',
        Some(Outcome::Failed(_)) => 'f',
        Some(Outcome::Skipped) => 's',
        Some(Outcome::Trouble(_)) => 't',
    };
    gathered.results[target].iter().map(letter).collect()
}

#[tokio::test]
async fn every_state_of_every_target_is_judged_even_after_a_failure() {
    let executor = Scripted::new(|job| if job.state.0 == 1 && job.target == 1 { fails() } else { Outcome::Built });
    let gathered = run_with(&work(3, "abcd", Mode::Every), &MemoryResults::default(), &executor).await;
    assert_eq!([0, 1, 2].map(|target| outcomes(&gathered, target)), ["bbbb", "bfbb", "bbbb"]);
    assert!(!gathered.interrupted && gathered.refused.is_none());
    assert_eq!(executor.peak.load(Ordering::SeqCst), 2, "never more than the slots");
}

#[tokio::test]
async fn what_is_known_is_not_built_again_and_equal_trees_are_built_once() {
    let store = MemoryResults::default();
    let first = Scripted::new(|_| Outcome::Built);
    run_with(&work(1, "aabc", Mode::Every), &store, &first).await;
    assert_eq!(first.built(), [(0, 0, 1), (0, 2, 1), (0, 3, 1)]);
    let second = Scripted::new(|_| Outcome::Built);
    let gathered = run_with(&work(1, "aabd", Mode::Every), &store, &second).await;
    assert_eq!(second.built(), [(0, 3, 1)]);
    assert_eq!(gathered.cached[0], [true, true, true, false]);
}

#[tokio::test]
async fn trouble_is_tried_twice_never_stored_and_blames_nobody() {
    let store = MemoryResults::default();
    let killed = |job: &Job| match job.state.0 {
        1 => Outcome::Trouble(Trouble::Killed { detail: "cc1".into() }),
        _ => Outcome::Built,
    };
    let executor = Scripted::new(killed);
    let gathered = run_with(&work(1, "abc", Mode::Every), &store, &executor).await;
    assert_eq!(outcomes(&gathered, 0), "btb");
    assert_eq!(executor.built(), [(0, 0, 1), (0, 1, 1), (0, 1, 2), (0, 2, 1)]);
    let again = Scripted::new(|_| Outcome::Built);
    assert_eq!(outcomes(&run_with(&work(1, "abc", Mode::Every), &store, &again).await, 0), "bbb");
    assert_eq!(again.built(), [(0, 1, 1)]);
}

#[tokio::test]
async fn tip_looks_at_base_and_tip_only() {
    let executor = Scripted::new(|_| Outcome::Built);
    let gathered = run_with(&work(2, "abcd", Mode::Tip), &MemoryResults::default(), &executor).await;
    assert_eq!(outcomes(&gathered, 1), "b..b");
    assert_eq!(gathered.asked, [PatchIndex(0), PatchIndex(3)].into());
}

#[tokio::test]
async fn a_request_that_cannot_be_carried_out_ends_the_run() {
    let refuse = |_: &Job| Outcome::Trouble(Trouble::Request { detail: "no such config".into() });
    let executor = Scripted::new(refuse);
    let gathered = run_with(&work(1, "abcd", Mode::Every), &MemoryResults::default(), &executor).await;
    assert_eq!(gathered.refused, Some((0, "no such config".to_owned())));
    assert_eq!(executor.built().len(), 1);
}

#[tokio::test]
async fn cancel_ends_the_run_and_keeps_what_was_settled() {
    let executor =
        Scripted::new(|job| if job.state.0 == 2 { Outcome::Trouble(Trouble::Interrupted) } else { Outcome::Built });
    let store = MemoryResults::default();
    let (events, mut seen) = mpsc::unbounded_channel();
    let (stop, cancel) = watch::channel(false);
    let work = work(1, "abcd", Mode::Every);
    let watcher = async {
        while let Some(event) = seen.recv().await {
            if matches!(event, Event::Started(ref job) if job.state.0 == 2) {
                stop.send(true).unwrap();
            }
        }
    };
    let gathered = tokio::select! {
        gathered = run(&work, &store, &executor, None, &events, cancel) => gathered.unwrap(),
        () = watcher => unreachable!(),
    };
    assert!(gathered.interrupted);
    assert_eq!(outcomes(&gathered, 0), "bbt.");
}

#[tokio::test]
async fn an_attempt_that_panics_is_our_fault_and_the_run_goes_on() {
    struct Panics;
    impl Executor for Panics {
        fn audit(&self, _: Job, _: Arc<StateResult>, _: watch::Receiver<bool>) -> BoxFuture<'static, Audited> {
            Box::pin(async { Audited::NotDone(Trouble::Interrupted) })
        }

        fn execute(&self, job: Job, _: watch::Receiver<bool>) -> BoxFuture<'static, Built> {
            Box::pin(async move {
                assert!(job.state.0 != 1, "on purpose");
                StateResult { outcome: Outcome::Built, ..StateResult::trouble(Trouble::Interrupted) }.into()
            })
        }
    }
    let (events, _kept) = mpsc::unbounded_channel();
    let (_stop, cancel) = watch::channel(false);
    let gathered =
        run(&work(1, "abc", Mode::Every), &MemoryResults::default(), &Panics, None, &events, cancel).await.unwrap();
    assert_eq!(outcomes(&gathered, 0), "btb");
}

#[tokio::test]
async fn search_finds_the_first_failing_state_and_verifies_it_from_scratch() {
    let executor = Scripted::new(|job| if job.state.0 >= 5 { fails() } else { Outcome::Built });
    let gathered = run_with(&work(1, "abcdef0123456789", Mode::Search), &MemoryResults::default(), &executor).await;
    let clean: Vec<_> = executor.jobs.lock().unwrap().iter().filter(|job| job.clean).map(|job| job.state.0).collect();
    assert_eq!(clean, [4, 5]);
    assert!(
        gathered.notes.iter().any(|note| note == "verified by clean runs: 5 fails, 4 passes"),
        "{:?}",
        gathered.notes
    );
    assert!(executor.built().len() < 12, "{:?}", executor.built());
}

#[tokio::test]
async fn search_says_when_clean_runs_do_not_confirm() {
    let executor = Scripted::new(|job| if job.state.0 >= 2 && !job.clean { fails() } else { Outcome::Built });
    let gathered = run_with(&work(1, "abcd", Mode::Search), &MemoryResults::default(), &executor).await;
    assert!(gathered.notes.iter().any(|note| note.starts_with("NOT confirmed")), "{:?}", gathered.notes);
}

#[tokio::test]
async fn what_an_audit_contradicts_is_no_verdict_and_is_forgotten() {
    let store = MemoryResults::default();
    let executor = Scripted::new(|_| Outcome::Built);
    let work = work(1, "abcd", Mode::Every);
    let mut gathered = run_with(&work, &store, &executor).await;
    let (events, _kept) = mpsc::unbounded_channel();
    let (_stop, cancel) = watch::channel(false);
    let asked = Audit { percent: 100, clean: false };
    let graphs = MemoryGraphs::default();
    let tree = |state: usize| ResultKey::new(&work.targets[0], &work.trees[state]);
    graphs.put(&tree(0), &Arc::new(Graph::empty(BlobDigest::of(b"")))).unwrap();
    let kept = Kept { results: &store, graphs: Some(&graphs) };
    audit(&work, asked, &mut gathered, kept, &executor, &events, cancel).await.unwrap();
    assert_eq!(outcomes(&gathered, 0), "bbtb");
    assert!(gathered.notes[0].contains("4 state-target pairs") && gathered.notes[0].contains("1 DO NOT AGREE"));
    assert!(store.get(&tree(2)).unwrap().is_none() && store.get(&tree(1)).unwrap().is_some());
    assert_eq!(graphs.get(&tree(0)).unwrap(), None);
}
