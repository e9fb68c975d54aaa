//! What somebody has had of the farm, of which less counts the longer it is ago.

/// Below this many half-lives amounts are kept as they are; then all are made smaller at once.
const HALF_LIVES: u64 = 20;

/// Amounts are kept in parts of a millisecond, so that a heavy user's do not vanish.
const PARTS: u64 = 16;

/// The measure of amounts.
///
/// That what is old counts less is the same as that what is new counts more: an amount is doubled for each half-life that has
/// passed since `base`. So the order of amounts does not change while time passes, and no list has to be sorted again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    base: u64,
    half_life_ms: u64,
}

impl Usage {
    pub(super) fn new(now: u64, half_life_ms: u64) -> Self {
        Self { base: now, half_life_ms: half_life_ms.max(1) }
    }

    /// What `ms` milliseconds that began at `at` amount to, for somebody of that weight.
    pub(super) fn amount(&self, ms: u64, weight: u32, at: u64) -> u64 {
        let plain = ms.saturating_mul(PARTS) / u64::from(weight.max(1));
        match at.checked_sub(self.base) {
            Some(later) => plain.saturating_mul(1 << (later / self.half_life_ms).min(2 * HALF_LIVES)),
            None => plain >> ((self.base - at).div_ceil(self.half_life_ms)).min(63),
        }
    }

    /// When amounts have become large: by how many bits all of them are to be made smaller.
    pub(super) fn shrink(&mut self, now: u64) -> Option<u32> {
        let passed = now.saturating_sub(self.base) / self.half_life_ms;
        if passed < HALF_LIVES {
            return None;
        }
        self.base = self.base.saturating_add(passed.saturating_mul(self.half_life_ms));
        Some(u32::try_from(passed).unwrap_or(63).min(63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_counts_half() {
        let usage = Usage::new(1_000, 100);
        let plain = usage.amount(10, 1, 1_000);
        for (ms, weight, at, want) in [
            (10, 1, 1_099, plain),
            (10, 1, 1_100, 2 * plain),
            (10, 1, 1_200, 4 * plain),
            (10, 2, 1_000, plain / 2),
            (10, 1, 999, plain / 2),
            (10, 1, 800, plain / 4),
            (0, 1, 1_500, 0),
            (10, 0, 1_000, plain),
        ] {
            assert_eq!(usage.amount(ms, weight, at), want, "{ms} {weight} {at}");
        }
    }

    #[test]
    fn amounts_are_made_smaller_before_they_overflow() {
        let mut usage = Usage::new(0, 100);
        let before = usage.amount(1_000, 1, 2_000);
        assert_eq!(usage.shrink(1_999), None);
        let bits = usage.shrink(2_050).unwrap();
        assert_eq!(before >> bits, usage.amount(1_000, 1, 2_000));
        assert_eq!(usage.shrink(2_050), None, "once");
        assert_eq!(Usage::new(0, 1).shrink(u64::MAX), Some(63));
        assert!(Usage::new(0, 1).amount(u64::MAX, 1, u64::MAX) > 0, "nothing overflows");
    }
}
