//! The page that Prometheus reads.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// What a page is, as HTTP says it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures of one process, and what brings those up to date that nobody changes by himself.
pub struct Page {
    registry: Registry,
    looks: Vec<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Page {
    fn default() -> Self {
        Self { registry: Registry::with_prefix("bombproof"), looks: Vec::new() }
    }
}

impl Page {
    pub(crate) fn add(&mut self, name: &str, about: &str, figure: impl Metric) {
        self.registry.register(name, about, figure);
    }

    /// Does this before the page is read.
    pub fn look(&mut self, look: impl Fn() + Send + Sync + 'static) {
        self.looks.push(Box::new(look));
    }

    /// The page as it is now.
    pub fn text(&self) -> String {
        for look in &self.looks {
            look();
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
