//! Whose job is next: between users, between the series of a user, between the jobs of a series.
//!
//! Of the users that have something queued, the one goes first that has the fewest jobs running for its weight; of equal
//! ones that which has had the least of the farm lately. Between the series of a user it is the same. So slots are shared as
//! they are, and where there are too few of them to share the past evens it out. Nobody saves up for later.
//!
//! All orders are kept sorted, by class of needs and by priority: finding the next job costs a few look-ups in sorted sets,
//! however many are queued.

use std::collections::{BTreeMap, BTreeSet};

use super::arena::{Arena, Class, JobKey, SeriesKey, UserKey};
use super::job::{Priority, Share};
use super::usage::Usage;
use crate::id::{SeriesId, UserId};

/// One running job of a user of weight 1.
const ONE: u64 = 1 << 20;

/// When somebody's turn is: the smallest goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// Jobs that run, for the weight.
    running: u64,
    /// What was had lately, for the weight.
    usage: u64,
}

type Spot = (Priority, Class);

/// Who has something queued, in the order of turns, for each priority and class of needs. No set is empty.
#[derive(Debug, PartialEq, Eq)]
struct Ready<K>(BTreeMap<Spot, BTreeSet<(Turn, K)>>);

impl<K> Default for Ready<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Ready<K> {
    fn insert(&mut self, spot: Spot, turn: Turn, key: K) {
        self.0.entry(spot).or_default().insert((turn, key));
    }

    fn remove(&mut self, spot: Spot, turn: Turn, key: K) {
        if let Some(set) = self.0.get_mut(&spot) {
            set.remove(&(turn, key));
            if set.is_empty() {
                self.0.remove(&spot);
            }
        }
    }

    fn first(&self, spot: Spot) -> Option<(Turn, K)> {
        self.0.get(&spot)?.first().copied()
    }
}

#[derive(Debug)]
struct User {
    id: UserId,
    share: Share,
    running: u32,
    usage: u64,
    /// Its series that have something queued.
    ready: Ready<SeriesKey>,
}

impl User {
    fn turn(&self) -> Turn {
        Turn { running: u64::from(self.running) * ONE / u64::from(self.share.weight.max(1)), usage: self.usage }
    }

    /// Whether it may have one more.
    fn may_run(&self) -> bool {
        self.running < self.share.quota
    }
}

/// The place of a queued job in its series: the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    rank: u32,
    /// The longer, the smaller.
    shortness: u32,
    pub(super) job: JobKey,
}

impl Entry {
    pub(super) fn new(rank: u32, expected_ms: u32, job: JobKey) -> Self {
        Self { rank, shortness: u32::MAX - expected_ms, job }
    }

    fn expected_ms(&self) -> u64 {
        u64::from(u32::MAX - self.shortness)
    }
}

/// A series that is open.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) id: SeriesId,
    pub(super) priority: Priority,
    user: UserKey,
    pub(super) running: u32,
    usage: u64,
    /// Its queued jobs. No set is empty.
    queues: BTreeMap<Class, BTreeSet<Entry>>,
    /// Jobs that it waits for and that are not in the queues.
    pub(super) elsewhere: BTreeSet<JobKey>,
    /// How many are in the queues, and how long they will take, in milliseconds.
    pub(super) queued: u64,
    pub(super) queued_ms: u64,
}

impl Series {
    fn turn(&self) -> Turn {
        Turn { running: u64::from(self.running) * ONE, usage: self.usage }
    }
}

/// The job that is next, and how much its user runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) series: SeriesKey,
    pub(super) job: JobKey,
    pub(super) running: u64,
}

/// All users and series with their queues.
#[derive(Debug)]
pub(super) struct Fair {
    users: Arena<UserKey, User>,
    user_keys: BTreeMap<UserId, UserKey>,
    series: Arena<SeriesKey, Series>,
    series_keys: BTreeMap<SeriesId, SeriesKey>,
    /// Users that have something queued and may have one more.
    ready: Ready<UserKey>,
    measure: Usage,
    share: Share,
}

impl Fair {
    pub(super) fn new(share: Share, half_life_ms: u64, now: u64) -> Self {
        Self {
            users: Arena::default(),
            user_keys: BTreeMap::new(),
            series: Arena::default(),
            series_keys: BTreeMap::new(),
            ready: Ready::default(),
            measure: Usage::new(now, half_life_ms),
            share,
        }
    }

    fn user_key(&mut self, id: &UserId) -> UserKey {
        if let Some(key) = self.user_keys.get(id) {
            return *key;
        }
        let user = User { id: id.clone(), share: self.share, running: 0, usage: 0, ready: Ready::default() };
        let key = self.users.insert(user);
        self.user_keys.insert(id.clone(), key);
        key
    }

    pub(super) fn set_share(&mut self, id: &UserId, share: Share) {
        let key = self.user_key(id);
        self.change_user(key, |user| user.share = share);
    }

    /// Opens a series; an open one stays as it is.
    pub(super) fn open(&mut self, id: &SeriesId, user: &UserId, priority: Priority) {
        if self.series_keys.contains_key(id) {
            return;
        }
        let series = Series {
            id: id.clone(),
            priority,
            user: self.user_key(user),
            running: 0,
            usage: 0,
            queues: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            queued: 0,
            queued_ms: 0,
        };
        let key = self.series.insert(series);
        self.series_keys.insert(id.clone(), key);
    }

    pub(super) fn find(&self, id: &SeriesId) -> Option<SeriesKey> {
        self.series_keys.get(id).copied()
    }

    pub(super) fn series(&self, key: SeriesKey) -> Option<&Series> {
        self.series.get(key)
    }

    pub(super) fn all_series(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().map(|(_, series)| series)
    }

    pub(super) fn user_of(&self, key: SeriesKey) -> Option<&UserId> {
        Some(&self.users.get(self.series.get(key)?.user)?.id)
    }

    /// Empties the queues of a series; gives every job that it waits for.
    pub(super) fn clear(&mut self, key: SeriesKey) -> Vec<JobKey> {
        let Some(series) = self.series.get_mut(key) else { return Vec::new() };
        let (turn, priority, user_key) = (series.turn(), series.priority, series.user);
        let queues = std::mem::take(&mut series.queues);
        let mut jobs: Vec<JobKey> = std::mem::take(&mut series.elsewhere).into_iter().collect();
        (series.queued, series.queued_ms) = (0, 0);
        for (class, entries) in queues {
            self.unlist_series(user_key, (priority, class), turn, key);
            jobs.extend(entries.into_iter().map(|entry| entry.job));
        }
        jobs
    }

    /// Forgets a series that nothing is queued for and nothing runs for.
    pub(super) fn close(&mut self, key: SeriesKey) {
        if let Some(series) = self.series.remove(key) {
            self.series_keys.remove(&series.id);
        }
    }

    /// The job is one that the series waits for and that is not in its queues.
    pub(super) fn keep_elsewhere(&mut self, key: SeriesKey, job: JobKey) {
        if let Some(series) = self.series.get_mut(key) {
            series.elsewhere.insert(job);
        }
    }

    pub(super) fn drop_elsewhere(&mut self, key: SeriesKey, job: JobKey) {
        if let Some(series) = self.series.get_mut(key) {
            series.elsewhere.remove(&job);
        }
    }

    /// Queues a job.
    pub(super) fn add(&mut self, key: SeriesKey, class: Class, entry: Entry) {
        let Some(series) = self.series.get_mut(key) else { return };
        let queue = series.queues.entry(class).or_default();
        let first = queue.is_empty();
        if queue.insert(entry) {
            series.queued += 1;
            series.queued_ms = series.queued_ms.saturating_add(entry.expected_ms());
        }
        if first {
            let (spot, turn, user_key) = ((series.priority, class), series.turn(), series.user);
            let Some(user) = self.users.get_mut(user_key) else { return };
            let first = !user.ready.0.contains_key(&spot);
            user.ready.insert(spot, turn, key);
            if first && user.may_run() {
                self.ready.insert(spot, user.turn(), user_key);
            }
        }
    }

    /// Takes a job out of the queue.
    pub(super) fn remove(&mut self, key: SeriesKey, class: Class, entry: Entry) {
        let Some(series) = self.series.get_mut(key) else { return };
        let Some(queue) = series.queues.get_mut(&class) else { return };
        if queue.remove(&entry) {
            series.queued = series.queued.saturating_sub(1);
            series.queued_ms = series.queued_ms.saturating_sub(entry.expected_ms());
        }
        if queue.is_empty() {
            series.queues.remove(&class);
            let (spot, turn, user) = ((series.priority, class), series.turn(), series.user);
            self.unlist_series(user, spot, turn, key);
        }
    }

    fn unlist_series(&mut self, user_key: UserKey, spot: Spot, turn: Turn, key: SeriesKey) {
        let Some(user) = self.users.get_mut(user_key) else { return };
        user.ready.remove(spot, turn, key);
        if !user.ready.0.contains_key(&spot) {
            self.ready.remove(spot, user.turn(), user_key);
        }
    }

    /// The next queued job of that priority in any of these classes.
    pub(super) fn pick(&self, priority: Priority, classes: &[Class]) -> Option<Pick> {
        let spots = || classes.iter().map(|class| (priority, *class));
        let (turn, user) = spots().filter_map(|spot| self.ready.first(spot)).min()?;
        let user = self.users.get(user)?;
        let (_, series) = spots().filter_map(|spot| user.ready.first(spot)).min()?;
        let queues = &self.series.get(series)?.queues;
        let entry = classes.iter().filter_map(|class| queues.get(class)?.first()).min()?;
        Some(Pick { series, job: entry.job, running: turn.running })
    }

    /// Whether anything of that class is queued for somebody who may have one more.
    pub(super) fn has(&self, class: Class) -> bool {
        [Priority::Gate, Priority::Normal, Priority::Nightly].iter().any(|p| self.ready.0.contains_key(&(*p, class)))
    }

    /// Of several series that wait for one job, the one whose turn it is, with its priority and how much its user runs;
    /// `None` if no user may have one more.
    pub(super) fn turn_of(&self, waiters: impl Iterator<Item = SeriesKey>) -> Option<(Priority, u64, SeriesKey)> {
        let turn = |key: SeriesKey| {
            let series = self.series.get(key)?;
            let user = self.users.get(series.user).filter(|user| user.may_run())?;
            Some((series.priority, user.turn(), series.turn(), key))
        };
        let (priority, user, _, key) = waiters.filter_map(turn).min()?;
        Some((priority, user.running, key))
    }

    /// A job runs for a series from now on, and will take so long.
    pub(super) fn started(&mut self, key: SeriesKey, expected_ms: u32, now: u64) {
        self.change(key, |series, user, measure| {
            series.running += 1;
            user.running += 1;
            series.usage = series.usage.saturating_add(measure.amount(expected_ms.into(), 1, now));
            let amount = measure.amount(expected_ms.into(), user.share.weight, now);
            user.usage = user.usage.saturating_add(amount);
        });
    }

    /// A job that ran for a series since then does not any more. What it took counts, in place of what was expected;
    /// `None`: it was in vain, and counts nothing.
    pub(super) fn ended(&mut self, key: SeriesKey, expected_ms: u32, since: u64, took_ms: Option<u64>) {
        self.change(key, |series, user, measure| {
            let settle = |usage: u64, weight: u32| {
                let less = usage.saturating_sub(measure.amount(expected_ms.into(), weight, since));
                less.saturating_add(measure.amount(took_ms.unwrap_or(0), weight, since))
            };
            series.running = series.running.saturating_sub(1);
            user.running = user.running.saturating_sub(1);
            series.usage = settle(series.usage, 1);
            user.usage = settle(user.usage, user.share.weight);
        });
    }

    /// Changes a series and its user; keeps the orders sorted.
    fn change(&mut self, key: SeriesKey, change: impl FnOnce(&mut Series, &mut User, &Usage)) {
        let measure = self.measure;
        let Some(series) = self.series.get_mut(key) else { return };
        let user_key = series.user;
        let Some(user) = self.users.get_mut(user_key) else { return };
        unlist(&mut self.ready, user_key, user);
        let before = series.turn();
        change(series, user, &measure);
        let after = series.turn();
        if before != after {
            for class in series.queues.keys() {
                user.ready.remove((series.priority, *class), before, key);
                user.ready.insert((series.priority, *class), after, key);
            }
        }
        list(&mut self.ready, user_key, user);
    }

    fn change_user(&mut self, key: UserKey, change: impl FnOnce(&mut User)) {
        let Some(user) = self.users.get_mut(key) else { return };
        unlist(&mut self.ready, key, user);
        change(user);
        list(&mut self.ready, key, user);
    }

    /// Whether a job is in the queue of a series.
    pub(super) fn is_queued(&self, key: SeriesKey, class: Class, entry: Entry) -> bool {
        self.series.get(key).and_then(|series| series.queues.get(&class)).is_some_and(|queue| queue.contains(&entry))
    }

    /// Whether all counts and orders are those of the users and series, when jobs run for these series.
    pub(super) fn check(&self, running: &[SeriesKey]) -> Result<(), String> {
        let mut users: BTreeMap<UserKey, (u32, Ready<SeriesKey>)> = BTreeMap::new();
        for (key, series) in self.series.iter() {
            let count = running.iter().filter(|other| **other == key).count();
            if series.running as usize != count {
                return Err(format!("{} runs {count} jobs, {} are counted", series.id, series.running));
            }
            if series.queued != series.queues.values().map(|queue| queue.len() as u64).sum::<u64>() {
                return Err(format!("{} jobs of {} are counted that are queued", series.queued, series.id));
            }
            let (runs, ready) = users.entry(series.user).or_default();
            *runs += series.running;
            series.queues.keys().for_each(|class| ready.insert((series.priority, *class), series.turn(), key));
        }
        let mut order = Ready::default();
        for (key, user) in self.users.iter() {
            let (runs, ready) = users.remove(&key).unwrap_or_default();
            if runs != user.running || ready != user.ready {
                return Err(format!(
                    "{} runs {runs} jobs, {} are counted; or an order is wrong",
                    user.id, user.running
                ));
            }
            list(&mut order, key, user);
        }
        if order == self.ready { Ok(()) } else { Err("the order of users is wrong".to_owned()) }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: u64) {
        let Some(bits) = self.measure.shrink(now) else { return };
        self.ready = Ready::default();
        for (_, user) in self.users.iter_mut() {
            user.usage >>= bits;
            user.ready = Ready::default();
        }
        for (key, series) in self.series.iter_mut() {
            series.usage >>= bits;
            let Some(user) = self.users.get_mut(series.user) else { continue };
            for class in series.queues.keys() {
                user.ready.insert((series.priority, *class), series.turn(), key);
            }
        }
        for (key, user) in self.users.iter() {
            list(&mut self.ready, key, user);
        }
    }
}

/// Takes a user out of the order before its turn changes.
fn unlist(ready: &mut Ready<UserKey>, key: UserKey, user: &User) {
    if user.may_run() {
        let turn = user.turn();
        user.ready.0.keys().for_each(|spot| ready.remove(*spot, turn, key));
    }
}

/// Puts it in again.
fn list(ready: &mut Ready<UserKey>, key: UserKey, user: &User) {
    if user.may_run() {
        let turn = user.turn();
        user.ready.0.keys().for_each(|spot| ready.insert(*spot, turn, key));
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
