//! The kinds of figures. Clones are the same figure.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::labels::Bounded;

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Something that is counted from the start of the process.
#[derive(Clone, Debug, Default)]
pub struct Count(pub(crate) Counter);

impl Count {
    /// So many more.
    pub fn add(&self, number: u64) {
        self.0.inc_by(number);
    }
}

/// The same by labels.
#[derive(Clone, Debug)]
pub struct Counts<L: Bounded>(pub(crate) Family<L, Counter>);

impl<L: Bounded> Default for Counts<L> {
    fn default() -> Self {
        Self(whole())
    }
}

impl<L: Bounded> Counts<L> {
    /// So many more.
    pub fn add(&self, labels: L, number: u64) {
        self.0.get_or_create(&labels).inc_by(number);
    }
}

/// Something that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Level(pub(crate) Gauge);

impl Level {
    /// It is so much now.
    pub fn set(&self, number: u64) {
        self.0.set(signed(number));
    }
}

/// The same by labels.
#[derive(Clone, Debug)]
pub struct Levels<L: Bounded>(pub(crate) Family<L, Gauge>);

impl<L: Bounded> Default for Levels<L> {
    fn default() -> Self {
        Self(whole())
    }
}

impl<L: Bounded> Levels<L> {
    /// How much it is now for each of the labels; for those that are not said, nothing.
    pub fn set(&self, now: impl IntoIterator<Item = (L, u64)>) {
        let now: Vec<(L, u64)> = now.into_iter().collect();
        for labels in L::all() {
            let here = now.iter().filter(|(said, _)| *said == labels);
            let number = here.map(|(_, number)| *number).fold(0, u64::saturating_add);
            self.0.get_or_create(&labels).set(signed(number));
        }
    }
}

/// Every label is there from the start: a rate needs a beginning.
fn whole<L: Bounded, M: Default>() -> Family<L, M> {
    let family = Family::default();
    for labels in L::all() {
        drop(family.get_or_create(&labels));
    }
    family
}

/// Something that goes up and down, and is not shown before it was looked at.
#[derive(Clone, Debug)]
pub struct Known(Arc<AtomicI64>);

const UNKNOWN: i64 = -1;

impl Default for Known {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl Known {
    /// It is so much now.
    pub fn set(&self, number: u64) {
        self.0.store(signed(number), Ordering::Relaxed);
    }
}

impl EncodeMetric for Known {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => Ok(()),
            number => encoder.encode_gauge(&number),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// How often something was how much.
#[derive(Clone, Debug)]
pub struct Spread(pub(crate) Histogram);

impl Spread {
    /// Of seconds: from a tenth of one to four hours.
    pub fn seconds() -> Self {
        Self(Histogram::new([
            0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0,
        ]))
    }

    /// Once more, so much.
    pub fn observe(&self, number: f64) {
        self.0.observe(number);
    }
}

/// The same by labels.
#[derive(Clone, Debug)]
pub struct Spreads<L: Bounded>(pub(crate) Family<L, Histogram, fn() -> Histogram>);

impl<L: Bounded> Spreads<L> {
    /// Of seconds, as [`Spread::seconds`].
    pub fn seconds() -> Self {
        let family: Family<L, Histogram, fn() -> Histogram> = Family::new_with_constructor(|| Spread::seconds().0);
        for labels in L::all() {
            drop(family.get_or_create(&labels));
        }
        Self(family)
    }

    /// Once more, so much.
    pub fn observe(&self, labels: L, number: f64) {
        self.0.get_or_create(&labels).observe(number);
    }
}
