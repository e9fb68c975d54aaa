//! When a coordinator that leads renews its lease, and when it has to stop leading.
//!
//! A lease counts from the moment *before* it was asked for: where others keep it, it ends later, never sooner. Who cannot renew it
//! stops before it ends there, so that two lead at the same time only when a clock goes wrong or the process stood still; what is
//! written then is refused by the number of the reign.

/// Times of a lease, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long others wait.
    pub lease_ms: u64,
    /// It is renewed when it is so old. A third of the lease: two renewals may fail.
    pub renew_ms: u64,
    /// After a renewal that failed it is tried again so much later.
    pub retry_ms: u64,
    /// The reign ends so long before the lease does: the work that is under way needs time to stop.
    pub margin_ms: u64,
}

impl Terms {
    /// With a lease of so many milliseconds.
    pub fn of(lease_ms: u64) -> Self {
        Self { lease_ms, renew_ms: lease_ms / 3, retry_ms: (lease_ms / 20).max(10), margin_ms: lease_ms / 10 }
    }

    /// How old the lease may become.
    pub fn last_ms(&self) -> u64 {
        self.lease_ms.saturating_sub(self.margin_ms)
    }
}

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing for so many milliseconds.
    Wait(u64),
    /// Renew it; an answer that takes longer than so many milliseconds comes too late.
    Renew(u64),
    /// The reign is over.
    GiveUp,
}

/// What to do about a lease that was asked for so long ago; `tried_ms`: since a renewal was begun that failed.
pub fn next(terms: &Terms, age_ms: u64, tried_ms: Option<u64>) -> Next {
    let Some(left_ms) = terms.last_ms().checked_sub(age_ms).filter(|left| *left > 0) else { return Next::GiveUp };
    let early_ms = terms.renew_ms.saturating_sub(age_ms);
    let soon_ms = tried_ms.map_or(0, |tried| terms.retry_ms.saturating_sub(tried));
    match early_ms.max(soon_ms) {
        0 => Next::Renew(left_ms),
        wait_ms => Next::Wait(wait_ms.min(left_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_early_and_given_up_before_it_ends() {
        let terms = Terms { lease_ms: 900, renew_ms: 300, retry_ms: 50, margin_ms: 100 };
        let table = [
            (0, None, Next::Wait(300)),
            (299, None, Next::Wait(1)),
            (300, None, Next::Renew(500)),
            (310, Some(10), Next::Wait(40)),
            (360, Some(60), Next::Renew(440)),
            (790, Some(20), Next::Wait(10)),
            (799, Some(50), Next::Renew(1)),
            (800, Some(50), Next::GiveUp),
            (u64::MAX, None, Next::GiveUp),
        ];
        for (age_ms, tried_ms, want) in table {
            assert_eq!(next(&terms, age_ms, tried_ms), want, "{age_ms} {tried_ms:?}");
        }
    }

    #[test]
    fn every_lease_leaves_time_for_renewals() {
        for lease_ms in [100, 1_000, 10_000] {
            let terms = Terms::of(lease_ms);
            assert!(terms.renew_ms + 2 * terms.retry_ms < terms.last_ms(), "{terms:?}");
            assert_eq!(next(&terms, terms.last_ms(), None), Next::GiveUp);
        }
    }
}
