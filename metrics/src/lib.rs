//! Figures of a farm for whoever watches it over time: what is counted, under which names, and the page that Prometheus reads.
//!
//! Every label is an enumeration of ours ([`labels`]), and every figure has all of its labels from the start. So a page has as many lines at
//! the end as at the beginning, whatever users, series, files and workers are called.

mod figures;
pub mod labels;
mod page;

mod farm;
mod store;
#[cfg(test)]
mod tests;
mod worker;

pub use farm::FarmMetrics;
pub use figures::{Count, Counts, Known, Level, Levels, Spread, Spreads};
pub use page::{CONTENT_TYPE, Page};
pub use store::{BlobBytes, StoreBytes};
pub use worker::WorkerMetrics;
