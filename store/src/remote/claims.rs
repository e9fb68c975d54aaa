//! Who moves which blob: each one is moved once, however many ask for it at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bombproof_core::digest::BlobDigest;
use tokio::sync::watch;

/// What is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Arc<Mutex<HashMap<BlobDigest, watch::Receiver<()>>>>);

/// The duty to move these blobs. When it goes, whoever waits for them looks again.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    blobs: Vec<BlobDigest>,
    _done: watch::Sender<()>,
}

/// Another's duty.
#[derive(Debug)]
pub(super) struct Others(Vec<(BlobDigest, watch::Receiver<()>)>);

impl Claims {
    /// Takes over what nobody does yet; the rest is waited for.
    pub(super) fn claim(&self, blobs: &[BlobDigest]) -> (Claim, Others) {
        let (done, wait) = watch::channel(());
        let mut mine = Vec::new();
        let mut others = Vec::new();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in blobs {
            match map.get(blob) {
                Some(other) if other.same_channel(&wait) => {}
                Some(other) => others.push((*blob, other.clone())),
                None => {
                    map.insert(*blob, wait.clone());
                    mine.push(*blob);
                }
            }
        }
        drop(map);
        (Claim { claims: self.clone(), blobs: mine, _done: done }, Others(others))
    }
}

impl Claim {
    /// What is ours to move.
    pub(super) fn blobs(&self) -> &[BlobDigest] {
        &self.blobs
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut map = self.claims.0.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in &self.blobs {
            map.remove(blob);
        }
    }
}

impl Others {
    /// Waits until the others are done, well or not, and tells which blobs they had.
    pub(super) async fn wait(self) -> Vec<BlobDigest> {
        let mut blobs = Vec::with_capacity(self.0.len());
        for (blob, mut other) in self.0 {
            // Nothing is ever sent: it ends when the sender goes.
            let _ = other.changed().await;
            blobs.push(blob);
        }
        blobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_blob_is_somebodys_until_he_is_done() {
        let claims = Claims::default();
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| BlobDigest::of(text));
        let (first, none) = claims.claim(&[a, b, a]);
        assert_eq!(first.blobs(), [a, b]);
        assert_eq!(none.wait().await, [], "nobody waits for himself");
        let (second, others) = claims.claim(&[b, c]);
        assert_eq!(second.blobs(), [c]);
        let waiting = tokio::spawn(others.wait());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), [b]);
        let (third, _) = claims.claim(&[a, b, c]);
        assert_eq!(third.blobs(), [a, b], "what was given up can be taken");
    }
}
