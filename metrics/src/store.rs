//! Figures of stores, for coordinators and workers alike.

use crate::figures::{Counts, Known, Level};
use crate::labels::Direction;
use crate::page::Page;

/// Content of blobs that went over the network.
#[derive(Clone, Debug, Default)]
pub struct BlobBytes(Counts<Direction>);

impl BlobBytes {
    /// So many bytes of content went that way.
    pub fn add(&self, direction: Direction, bytes: u64) {
        self.0.add(direction, bytes);
    }

    /// Shows it on a page.
    pub fn show(&self, page: &mut Page) {
        page.add("blob_bytes", "Content of blobs that went over the network", self.0.0.clone());
    }
}

/// How much the store of blobs holds.
#[derive(Clone, Debug, Default)]
pub struct StoreBytes {
    held: Known,
    limit: Level,
}

impl StoreBytes {
    /// Of a store that may hold so many bytes.
    pub fn within(limit: u64) -> Self {
        let this = Self::default();
        this.limit.set(limit);
        this
    }

    /// It holds so many bytes.
    pub fn set(&self, bytes: u64) {
        self.held.set(bytes);
    }

    /// Shows it on a page.
    pub fn show(&self, page: &mut Page) {
        page.add("cas_bytes", "Content in the store of blobs when it was last looked at", self.held.clone());
        page.add("cas_limit_bytes", "How much the store of blobs may hold", self.limit.0.clone());
    }
}
