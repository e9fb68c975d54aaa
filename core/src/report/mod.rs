//! The report: one series on all its targets.
//!
//! [`model`] is the report as data, and its JSON is the fixed schema `bombproof/report/v1`; [`build`] makes it from
//! verdicts; [`text`] and [`markdown`] render it for people.

pub mod build;
pub mod markdown;
pub mod model;
pub mod text;
