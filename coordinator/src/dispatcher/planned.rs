//! Judges all asked states of builds that are understood: compiles are taken out of the build and run on their own.
//!
//! Each target has a driver. It plans ahead from the last action graph as far as changes reach nothing but compiles, has these run
//! in the pool in any order, and composes the results of the states in the order of the series. Where a change reaches further,
//! or only the link can tell, make runs in the lane of the target.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bombproof_core::action::ActionResult;
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::id::PatchIndex;
use bombproof_core::kbuild::interface::{self, Interface, Linked};
use bombproof_core::kbuild::record::Known;
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::outcome::{Asked, LinkCheck, Outcome, StateResult, Trouble};
use bombproof_core::plan::alike::Alike;
use bombproof_core::plan::compose::{Made, compose};
use bombproof_core::plan::graph::Graph;
use bombproof_core::plan::link;
use bombproof_core::plan::{Built, Configured};
use bombproof_store::action_cache::ActionCache;
use bombproof_store::atomic::FileError;
use bombproof_store::graphs::Graphs;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};

mod config;
mod look;

use look::Look;

use super::every::turned_true;
use super::pool::{ActionRunner, AskedAction, Ended, Pool};
use super::{Board, Event, Executor, Job};
use crate::planner::sources::Sources;
use crate::planner::{Planned, Planner};

/// How many times make is tried when the trouble is the machine's.
const MAX_ATTEMPTS: u32 = 2;
/// Compiles that are planned ahead for each slot.
const AHEAD: usize = 8;

/// What planning needs.
pub struct Planning {
    /// Contents of files.
    pub sources: Arc<Sources>,
    /// Runs actions.
    pub runner: ActionRunner,
    /// What actions gave.
    pub actions: Arc<dyn ActionCache>,
    /// Graphs of states.
    pub graphs: Arc<dyn Graphs>,
    /// By target: the digest of its toolchain.
    pub toolchains: Vec<Digest>,
    /// Where builds are, as they see themselves.
    pub roots: Roots,
}

pub(super) async fn run(
    board: &mut Board<'_>,
    executor: &dyn Executor,
    planning: Option<&Planning>,
    cancel: watch::Receiver<bool>,
) -> Result<(), FileError> {
    board.recall()?;
    let (slots, targets) = (board.work.slots.max(1), board.work.targets.len());
    let (stop, stopped) = watch::channel(false);
    let pool = planning.map(|planning| Pool::new(Arc::clone(&planning.runner), Arc::clone(&planning.actions), slots));
    let makes = Semaphore::new(slots);
    let board = RefCell::new(board);
    let mut asked_to_stop = cancel;
    let shared = Shared { board: &board, executor, planning, pool: pool.as_ref(), makes: &makes, slots, stop: &stop };
    let mut drivers: FuturesUnordered<_> =
        (0..targets).map(|target| Driver::new(&shared, target, stopped.clone()).drive()).collect();
    loop {
        tokio::select! {
            biased;
            () = turned_true(&mut asked_to_stop), if !*stopped.borrow() => {
                board.borrow_mut().gathered.interrupted = true;
                let _ = stop.send(true);
            }
            ended = drivers.next() => match ended {
                Some(ended) => ended?,
                None => return Ok(()),
            },
        }
    }
}

/// What drivers share.
struct Shared<'a, 'b> {
    board: &'a RefCell<&'a mut Board<'b>>,
    executor: &'a dyn Executor,
    planning: Option<&'a Planning>,
    pool: Option<&'a Pool>,
    /// One make a slot at most; first come, first served.
    makes: &'a Semaphore,
    slots: usize,
    stop: &'a watch::Sender<bool>,
}

/// A planner and how far it is, as a place in the list of asked states.
struct Ahead {
    planner: Planner,
    at: usize,
}

/// The last link that went through.
struct Reference {
    result: Arc<StateResult>,
    graph: Arc<Graph>,
    linked: Linked,
}

/// A unit that is being made.
struct Waiting {
    output: Arc<str>,
    because: String,
    plain: bool,
    ended: BoxFuture<'static, Result<UnitEnded, Trouble>>,
}

/// A unit that was made.
struct UnitEnded {
    compile: Arc<ActionResult>,
    objtool: Option<Arc<ActionResult>>,
    known: Known,
}

/// A state that is planned.
struct Step {
    place: usize,
    units: Vec<Waiting>,
    /// Units that were made for states whose results are known; only what a link sees of them is wanted.
    again: Vec<Waiting>,
    settled: BTreeMap<Arc<str>, bool>,
    read: Vec<Arc<str>>,
    /// A file that Kconfig reads, and what Kconfig makes of the state.
    config: Option<(String, BoxFuture<'static, Result<Configured, Trouble>>)>,
    /// Where Kconfig is asked: a planner at this state, to go on from if the configuration is another one.
    ground: Option<Box<Planner>>,
    /// How many steps of make it took so far.
    steps: u32,
}

/// What comes next for a target.
enum Next {
    /// Known from an earlier run.
    Known(usize),
    Planned(Box<Step>),
    /// Make has to run, and nothing behind it can be planned.
    Make(usize, String),
}

/// Why a state that was planned is for make to judge.
enum Open {
    /// What became of some unit is not known.
    Units(String),
    /// Every unit is known; only a link can tell the rest.
    Link(String),
}

struct Driver<'a, 'b> {
    shared: &'a Shared<'a, 'b>,
    target: usize,
    stopped: watch::Receiver<bool>,
    states: Vec<PatchIndex>,
    ahead: Option<Ahead>,
    reference: Option<Reference>,
    /// What the units of the last composed state are like; `None` where that is not known.
    units: Option<StateResult>,
    /// What a link would see of every unit that was made since the reference.
    now: BTreeMap<Arc<str>, Interface>,
    /// What their compiles made.
    made: BTreeMap<Arc<str>, BlobDigest>,
    /// Of the planner that was given up last.
    alike: Option<Arc<Alike>>,
    queue: VecDeque<Next>,
    next: usize,
    since: Instant,
}

impl<'a, 'b> Driver<'a, 'b> {
    fn new(shared: &'a Shared<'a, 'b>, target: usize, stopped: watch::Receiver<bool>) -> Self {
        let states = shared.board.borrow().gathered.asked.iter().copied().collect();
        Self {
            shared,
            target,
            stopped,
            states,
            ahead: None,
            reference: None,
            units: None,
            now: BTreeMap::new(),
            made: BTreeMap::new(),
            alike: None,
            queue: VecDeque::new(),
            next: 0,
            since: Instant::now(),
        }
    }

    async fn drive(mut self) -> Result<(), FileError> {
        let last_open = (0..self.states.len()).rev().find(|place| self.result(*place).is_none());
        let Some(last_open) = last_open else { return Ok(()) };
        while !*self.stopped.borrow() {
            self.plan_ahead(last_open)?;
            match self.queue.pop_front() {
                None => return Ok(()),
                Some(Next::Known(place)) => self.units = self.result(place).map(|result| (*result).clone()),
                Some(Next::Make(place, why)) => {
                    // Everything before it is composed: what it leaves is the ground for what comes.
                    self.make(place, &why, true).await?;
                    self.next = place + 1;
                }
                Some(Next::Planned(step)) => self.compose(*step).await?,
            }
        }
        Ok(())
    }

    /// The result of a state, by its place in the list.
    fn result(&self, place: usize) -> Option<Arc<StateResult>> {
        let state = self.states[place];
        self.shared.board.borrow().gathered.results[self.target][state.as_usize()].clone()
    }

    fn plan_ahead(&mut self, last_open: usize) -> Result<(), FileError> {
        loop {
            let outstanding: usize = self
                .queue
                .iter()
                .map(|next| match next {
                    Next::Planned(step) => step.units.len(),
                    Next::Known(_) | Next::Make(..) => 0,
                })
                .sum();
            let blocked = matches!(self.queue.back(), Some(Next::Make(..)));
            if blocked || self.next > last_open || outstanding > AHEAD * self.shared.slots {
                return Ok(());
            }
            let place = self.next;
            let next = if self.result(place).is_some() {
                Next::Known(place)
            } else {
                match heavy(|| self.plan(place))? {
                    Ok(step) => Next::Planned(Box::new(step)),
                    Err(why) => Next::Make(place, why),
                }
            };
            self.next += 1;
            self.queue.push_back(next);
        }
    }

    /// Plans a state; the reason, where make has to run.
    fn plan(&mut self, place: usize) -> Result<Result<Step, String>, FileError> {
        let Some(planning) = self.shared.planning else {
            return Ok(Err("compiles cannot be run on their own here".to_owned()));
        };
        let mut made_before = BTreeSet::new();
        if place == 0 {
            return Ok(Err("the state before is not known".to_owned()));
        }
        let between = self.ahead.as_ref().map_or(place..place, |ahead| ahead.at + 1..place);
        let builds = |at| self.result(at).is_some_and(|result| result.outcome == Outcome::Built);
        if !between.clone().all(builds) {
            // What make left of a state that fails is no ground to plan on.
            self.ahead = None;
        } else if !between.is_empty() {
            // States in between are known; what was made for them is asked again for what a link sees.
            match self.pass_over(place) {
                Ok(units) => made_before.extend(units),
                Err(_) => self.ahead = None,
            }
        }
        if self.ahead.is_none() {
            match self.take_up(planning, place)? {
                Ok(units) => made_before.extend(units),
                Err(why) => return Ok(Err(why)),
            }
        }
        let Some(Ahead { planner, .. }) = &mut self.ahead else { return Ok(Err("nothing is planned".to_owned())) };
        let again = match planner.again(&made_before) {
            Ok(again) => again,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let planned = match self.advance(place) {
            Ok(planned) => planned,
            Err(why) => {
                let given_up = self.ahead.take();
                self.alike = given_up.map(|ahead| Arc::new(ahead.planner.alike().clone()));
                return Ok(Err(why));
            }
        };
        let Some(Ahead { planner, .. }) = &self.ahead else { return Ok(Err("nothing is planned".to_owned())) };
        let start = |unit: &crate::planner::Unit| self.start(planning, planner, unit);
        let read = planner.read_by(planned.units.iter().map(|unit| &unit.output));
        // What this state makes anew is newer than what was made for the known states before it.
        let anew: BTreeSet<&Arc<str>> = planned.units.iter().map(|unit| &unit.output).collect();
        let again = again.iter().filter(|unit| !anew.contains(&unit.output)).map(start).collect();
        let units = planned.units.iter().map(start).collect();
        let config = planned.config.map(|path| {
            let asked = self.shared.executor.configure(self.job(place, 1), self.stopped.clone());
            let task = tokio::spawn(asked);
            let broken = |error: tokio::task::JoinError| Trouble::Internal { detail: error.to_string() };
            let answer: BoxFuture<'static, _> =
                Box::pin(async move { task.await.unwrap_or_else(|error| Err(broken(error))) });
            (path, answer)
        });
        Ok(Ok(Step {
            place,
            ground: config.is_some().then(|| Box::new(planner.fork())),
            units,
            again,
            settled: planned.settled,
            read: read.into_iter().collect(),
            config,
            steps: 0,
        }))
    }

    /// Moves the planner to a state; the reason, where it cannot.
    fn advance(&mut self, place: usize) -> Result<Planned, String> {
        let Some(ahead) = &mut self.ahead else { return Err("nothing is planned".to_owned()) };
        let Some(planning) = self.shared.planning else { return Err("nothing is planned".to_owned()) };
        let (from, to) = {
            let board = self.shared.board.borrow();
            let tree = |place: usize| board.work.trees[self.states[place].as_usize()].clone();
            (tree(place - 1), tree(place))
        };
        let changes = planning.sources.trees().changes(Some(&from), &to).map_err(|error| error.to_string())?;
        // What is said of a unit with diagnostics has line numbers in it.
        let units = self.units.as_ref().map(|result| &result.units);
        let holds = |unit: &str| {
            units.and_then(|units| units.get(unit)).is_some_and(|unit| unit.ok && unit.diagnostics.is_empty())
        };
        let planned = ahead.planner.advance(&changes, &holds).map_err(|error| error.to_string())??;
        ahead.at = place;
        Ok(planned)
    }

    /// Moves the planner over known states up to the one before `place`; gives the units that were made for them.
    fn pass_over(&mut self, place: usize) -> Result<BTreeSet<Arc<str>>, String> {
        let mut units = BTreeSet::new();
        while let Some(at) = self.ahead.as_ref().map(|ahead| ahead.at).filter(|at| at + 1 < place) {
            units.extend(self.advance(at + 1)?.units.into_iter().map(|unit| unit.output));
            let (Some(from), Some(to)) = (self.result(at), self.result(at + 1)) else {
                return Err("a state on the way is not known".to_owned());
            };
            if let Some(ahead) = &mut self.ahead {
                units.extend(config::pass(&mut ahead.planner, &from, &to)?);
            }
        }
        Ok(units)
    }

    /// Stands on the graph of the nearest known state before `place`, and goes on to the one right before it.
    fn take_up(&mut self, planning: &Planning, place: usize) -> Result<Result<BTreeSet<Arc<str>>, String>, FileError> {
        for at in (0..place).rev() {
            let Some(result) = self.result(at) else { break };
            if result.outcome != Outcome::Built {
                return Ok(Err("a state before it does not build, and make has to say what of it is left".to_owned()));
            }
            let key = self.shared.board.borrow().key(self.target, self.states[at]);
            let Some(graph) = planning.graphs.get(&key)? else { continue };
            self.units = Some((*result).clone());
            if let Err(why) = self.stand_on(planning, at, &result, graph) {
                return Ok(Err(why));
            }
            let passed = self.pass_over(place);
            if passed.is_err() {
                self.ahead = None;
            }
            self.units = self.result(place - 1).map(|result| (*result).clone());
            return Ok(passed);
        }
        Ok(Err("no state before it was built by make with what later ones need".to_owned()))
    }

    fn stand_on(
        &mut self,
        planning: &Planning,
        at: usize,
        result: &Arc<StateResult>,
        graph: Arc<Graph>,
    ) -> Result<(), String> {
        let tree = self.shared.board.borrow().work.trees[self.states[at].as_usize()].clone();
        let toolchain = &planning.toolchains[self.target];
        let planner = Planner::new(&planning.sources, Arc::clone(&graph), &tree, toolchain, &planning.roots);
        self.ahead = Some(Ahead { planner: planner.map_err(|error| error.to_string())?, at });
        self.now.clear();
        self.refer_to(planning, result, graph)
    }

    fn refer_to(&mut self, planning: &Planning, result: &Arc<StateResult>, graph: Arc<Graph>) -> Result<(), String> {
        let text = |blob: Option<BlobDigest>| match blob {
            Some(blob) => planning.sources.content(&blob).map_err(|error| error.to_string()),
            None => Ok(Vec::new()),
        };
        let (map, symvers) = (text(graph.system_map)?, text(graph.symvers)?);
        let mut linked = Linked::read(&String::from_utf8_lossy(&map), &String::from_utf8_lossy(&symvers));
        graph.units.values().filter_map(|node| node.interface.as_ref()).for_each(|object| linked.add(object));
        self.reference = Some(Reference { result: Arc::clone(result), graph, linked });
        Ok(())
    }

    /// Has a unit made, its objtool run included.
    fn start(&self, planning: &Planning, planner: &Planner, unit: &crate::planner::Unit) -> Waiting {
        let toolchain = planning.toolchains[self.target];
        let compile: BoxFuture<'static, Ended> = match self.shared.pool {
            Some(pool) => {
                let made = unit.clone();
                let make = move || made.action().map_err(|error| Trouble::Tree { detail: error.to_string() });
                pool.get(AskedAction { digest: unit.digest, toolchain, make: Arc::new(make) }, &self.stopped)
            }
            None => Box::pin(async { Err(Trouble::Interrupted) }),
        };
        let output = Arc::clone(&unit.output);
        let (objtool, cache) = (unit.objtool(), Arc::clone(&planning.actions));
        let alike = unit.alike.filter(|_| !planner.has_debug(&output));
        let (runner, stopped) = (Arc::clone(&planning.runner), self.stopped.clone());
        let ended = async move {
            let (compile, known) = compile.await?;
            let disk = |error: FileError| Trouble::Disk { detail: error.to_string() };
            if let Some(alike) = alike.filter(|_| compile.exit == 0 && compile.stderr.is_empty())
                && cache.get(&alike).map_err(disk)?.is_none()
            {
                cache.put(&alike, &compile).map_err(disk)?;
            }
            let Some(made) = compile.output(&output).filter(|_| compile.exit == 0) else {
                return Ok(UnitEnded { compile, objtool: None, known });
            };
            let Some(follow) = objtool else { return Ok(UnitEnded { compile, objtool: None, known }) };
            let follow = follow(made.blob);
            let digest = bombproof_proto::reapi::digest(&follow);
            let result = match cache.get(&digest).map_err(disk)? {
                Some(result) => result,
                None => {
                    let make = move || Ok(follow.clone());
                    runner(AskedAction { digest, toolchain, make: Arc::new(make) }, stopped).await?
                }
            };
            Ok(UnitEnded { compile, objtool: Some(Arc::new(result)), known })
        };
        let task = tokio::spawn(ended);
        let ended = async move {
            let broken = |error: tokio::task::JoinError| Trouble::Internal { detail: error.to_string() };
            task.await.unwrap_or_else(|error| Err(broken(error)))
        };
        Waiting {
            output: Arc::clone(&unit.output),
            because: unit.because.clone(),
            plain: unit.plain,
            ended: Box::pin(ended),
        }
    }

    /// Composes the result of a planned state; make runs where that is not enough.
    async fn compose(&mut self, mut step: Step) -> Result<(), FileError> {
        let place = step.place;
        let job = self.job(place, 1);
        let _ = self.shared.board.borrow().events.send(Event::Started(job));
        if let Some((path, asked)) = step.config.take() {
            let configured = asked.await;
            step.steps += 1;
            if *self.stopped.borrow() {
                return Ok(());
            }
            if let Err(why) = self.configure(&mut step, configured) {
                // What was planned behind it stands on a configuration that is no more.
                self.queue.clear();
                self.next = place + 1;
                return self.make(place, &format!("'{path}' changed: {why}"), true).await;
            }
        }
        match self.composed(step).await {
            Ok(Some(result)) => self.keep(place, result),
            // Stopped: nothing is known of this state.
            Ok(None) => Ok(()),
            Err(Open::Link(why)) => self.make(place, &why, false).await,
            Err(Open::Units(why)) => {
                // Of some unit it is not known what became of it: nothing that was planned behind it can stand on that.
                self.queue.clear();
                self.next = place + 1;
                self.make(place, &why, true).await
            }
        }
    }

    async fn composed(&mut self, step: Step) -> Result<Option<StateResult>, Open> {
        let unknown = |why: &str| Err(Open::Units(why.to_owned()));
        let Some(planning) = self.shared.planning else { return unknown("nothing is planned") };
        let mut ended = Vec::new();
        let own = step.units.len();
        for waiting in step.units.into_iter().chain(step.again) {
            let result = waiting.ended.await;
            if *self.stopped.borrow() {
                return Ok(None);
            }
            ended.push((waiting.output, waiting.because, waiting.plain, result));
        }
        let Some(before) = self.units.take() else { return unknown("the state before gave no answer") };
        let Some(reference) = &self.reference else { return unknown("no link is known") };
        let mut problem: Option<String> = None;
        let mut made = Vec::new();
        let mut cost = bombproof_core::outcome::Cost { kbuild_steps: step.steps, ..Default::default() };
        for (number, (output, because, plain, result)) in ended.into_iter().enumerate() {
            let done = match result {
                Ok(done) => done,
                Err(trouble) => {
                    problem.get_or_insert(format!("'{output}' gave no answer: {}", trouble.describe()));
                    continue;
                }
            };
            if number < own {
                match done.known {
                    Known::Ran => {
                        cost.compiles += 1;
                        let objtool_us = done.objtool.as_ref().map_or(0, |result| result.cpu_us);
                        cost.compile_cpu_ms += (done.compile.cpu_us + objtool_us) / 1000;
                    }
                    Known::Cached | Known::Token => cost.cached += 1,
                }
            }
            let graph = reference.graph.units.get(&output);
            let look = || Look { planning, before: before.units.get(&output).map(|unit| &**unit), output: &output };
            match heavy(|| look().unit(&done, plain, graph.and_then(|node| node.made))) {
                Ok((unit, seen)) => {
                    if let Some(seen) = seen {
                        self.now.insert(Arc::clone(&output), seen);
                        let blob = done.compile.output(&output).map(|made| (Arc::clone(&output), made.blob));
                        self.made.extend(blob);
                    }
                    if number < own {
                        made.push(Made { output, unit, asked: Asked { because, known: done.known } });
                    }
                }
                Err(why) => drop(problem.get_or_insert(why)),
            }
        }
        let holds = |unit: &Arc<str>| before.units.get(unit).is_some_and(|unit| unit.ok && unit.diagnostics.is_empty());
        if let Some(unit) = step.settled.keys().find(|unit| !holds(unit)) {
            problem.get_or_insert(format!("lines move below what is said of '{unit}'"));
        }
        let mut stale: Vec<Arc<str>> =
            step.settled.iter().filter(|(_, debug)| **debug).map(|(unit, _)| Arc::clone(unit)).collect();
        let object = |unit: &Made| before.units.get(&unit.output).map(|before| before.object);
        if !stale.is_empty() || made.iter().any(|unit| object(unit) != Some(unit.unit.object)) {
            // No link ran: what is made of the image would be of another one.
            stale.extend(reference.graph.late.iter().cloned());
        }
        let mut result = compose(&before, &reference.result, &made, &stale, step.read);
        cost.by_token = u32::try_from(step.settled.len()).unwrap_or(u32::MAX);
        cost.wall_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        result.cost = cost;
        let token = || Asked { because: String::new(), known: Known::Token };
        result.made.extend(step.settled.keys().map(|unit| (unit.to_string(), token())));
        if let Some(why) = problem {
            return Err(Open::Units(why));
        }
        let mut problem = None;
        if result.outcome == Outcome::Built {
            match link::check(&reference.graph, &reference.linked, &self.now) {
                Ok(LinkCheck::Symbols) if step.place + 1 == self.states.len() => {
                    problem = Some("symbols changed since the last link, and this is the last state".to_owned());
                }
                Ok(known) => result.link = known,
                Err(unclear) => {
                    let more = self.difference(planning, &unclear.unit).map(|fact| format!(" ({fact})"));
                    problem = Some(unclear.why + &more.unwrap_or_default());
                }
            }
        }
        let why = match (&result.outcome, result.link) {
            _ if made.is_empty() && step.settled.is_empty() => "no unit reads what changed",
            (Outcome::Failed(_), _) => "a compile fails",
            _ if made.is_empty() => "no compiler sees what changed",
            (_, LinkCheck::Symbols) => "the link finds every symbol that changed",
            _ => "the link sees no difference",
        };
        result.why = why.to_owned();
        self.units = Some(result.clone());
        match problem {
            None => Ok(Some(result)),
            Some(why) => Err(Open::Link(why)),
        }
    }

    /// What of an object is not what it was at the last link, in words; before anything that follows the compile.
    fn difference(&self, planning: &Planning, unit: &Arc<str>) -> Option<String> {
        let before = self.reference.as_ref()?.graph.units.get(unit)?.made?;
        let content = |blob: &BlobDigest| planning.sources.content(blob).ok();
        interface::difference(&content(&before)?, &content(self.made.get(unit)?)?)
    }

    fn job(&self, place: usize, attempt: u32) -> Job {
        let state = self.states[place];
        let tree = self.shared.board.borrow().work.trees[state.as_usize()].clone();
        let alike = match &self.ahead {
            Some(ahead) => Some(Arc::new(ahead.planner.alike().clone())),
            None => self.alike.clone(),
        };
        Job { target: self.target, lane: self.target, state, tree, attempt, clean: false, alike }
    }

    fn keep(&mut self, place: usize, result: StateResult) -> Result<(), FileError> {
        self.since = Instant::now();
        // Another state with the same tree may have settled it.
        if self.result(place).is_none() {
            self.shared.board.borrow_mut().keep(self.target, self.states[place], result)?;
        }
        Ok(())
    }

    /// Has make build a state. `ground`: what comes after it is planned from what it leaves.
    async fn make(&mut self, place: usize, why: &str, ground: bool) -> Result<(), FileError> {
        if let Some(result) = self.result(place) {
            self.units = Some((*result).clone());
            return Ok(());
        }
        let mut attempt = 1;
        let mut built = loop {
            let built = {
                let Ok(_turn) = self.shared.makes.acquire().await else { return Ok(()) };
                if *self.stopped.borrow() {
                    return Ok(());
                }
                let job = self.job(place, attempt);
                let started = self.shared.board.borrow().start(self.shared.executor, job, &self.stopped);
                started.await.1
            };
            match &built.result.outcome {
                Outcome::Trouble(trouble)
                    if trouble.may_pass() && attempt < MAX_ATTEMPTS && !*self.stopped.borrow() =>
                {
                    attempt += 1;
                }
                Outcome::Built | Outcome::Failed(_) | Outcome::Skipped | Outcome::Trouble(_) => break built,
            }
        };
        if built.result.why.is_empty() {
            built.result.why = format!("make runs: {why}");
        }
        // What the request itself makes impossible will not go better in the next state.
        if matches!(built.result.outcome, Outcome::Trouble(Trouble::Request { .. })) {
            self.shared.board.borrow_mut().gathered.interrupted = true;
            let _ = self.shared.stop.send(true);
        }
        let Built { result, graph } = built;
        self.keep(place, result)?;
        let Some(result) = self.result(place) else { return Ok(()) };
        match (result.outcome == Outcome::Built, graph, self.shared.planning) {
            (true, Some(graph), Some(planning)) => {
                let graph = Arc::new(graph);
                let key = self.shared.board.borrow().key(self.target, self.states[place]);
                planning.graphs.put(&key, &graph)?;
                self.units = Some((*result).clone());
                let stood = if ground {
                    heavy(|| self.stand_on(planning, place, &result, graph))
                } else {
                    self.refer_to(planning, &result, graph)
                };
                if stood.is_err() {
                    self.ahead = None;
                    self.reference = None;
                }
            }
            (true, ..) => {
                self.units = Some((*result).clone());
                if ground {
                    self.ahead = None;
                }
            }
            // It fails: the units that were composed for it stay what is known of them.
            (false, ..) if ground => {
                self.ahead = None;
                self.units = None;
            }
            (false, ..) => {}
        }
        Ok(())
    }
}

/// Work that takes a while without waiting: other tasks go on meanwhile, where there are threads for them.
fn heavy<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
