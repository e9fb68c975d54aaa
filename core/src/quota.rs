//! How much one user may ask of a farm.
//!
//! Turns are shared out fairly whatever anybody asks for ([`crate::farm`]); this keeps one user, or a script of theirs that went wild, from
//! filling the register and the disk.

/// The limits of a user. The same for all; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Series that are accepted and not over, at most.
    pub open: u32,
    /// Series in the 24 hours before, at most.
    pub a_day: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { open: 50, a_day: 1_000 }
    }
}

/// One series of a user, as far as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// It is not over.
    pub open: bool,
    /// When it was accepted, in seconds since 1970.
    pub submitted_at_s: u64,
}

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

impl Quota {
    /// Whether a user with these series may hand in another one now.
    ///
    /// # Errors
    /// In words for the user: which limit is reached, and what to do.
    pub fn admit(&self, theirs: impl IntoIterator<Item = Counted>, now_s: u64) -> Result<(), String> {
        let (mut open, mut lately, mut oldest) = (0_u32, 0_u32, now_s);
        for it in theirs {
            open = open.saturating_add(u32::from(it.open));
            // A clock that was set back does not make a series of the future one of long ago.
            if it.submitted_at_s.saturating_add(DAY_S) > now_s {
                lately = lately.saturating_add(1);
                oldest = oldest.min(it.submitted_at_s);
            }
        }
        if self.open > 0 && open >= self.open {
            return Err(format!(
                "{open} series of yours are not over, and {} may be: wait for one, or cancel one \
                 ('bombproof list' shows them)",
                self.open
            ));
        }
        if self.a_day > 0 && lately >= self.a_day {
            let minutes = oldest.saturating_add(DAY_S).saturating_sub(now_s).div_ceil(60);
            return Err(format!(
                "you handed in {lately} series in the last 24 hours, and {} are allowed: try again in {minutes} minutes",
                self.a_day
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_have_so_many_series() {
        let now = 1_000_000;
        let open = |submitted_at_s| Counted { open: true, submitted_at_s };
        let over = |submitted_at_s| Counted { open: false, submitted_at_s };
        let yesterday = now - DAY_S;
        for (quota, theirs, want) in [
            ((2, 3), vec![], Ok(())),
            ((2, 3), vec![open(now)], Ok(())),
            ((2, 3), vec![open(now), open(0)], Err("2 series of yours are not over, and 2 may be")),
            ((2, 3), vec![over(now), over(now - 60), over(yesterday)], Ok(())),
            ((2, 3), vec![over(now), over(now - 60), over(yesterday + 90)], Err("try again in 2 minutes")),
            ((2, 3), vec![over(now + 7), over(now + 7), over(u64::MAX)], Err("3 series in the last 24 hours")),
            ((0, 1), vec![open(0); 100], Ok(())),
            ((0, 0), vec![open(now); 100], Ok(())),
        ] {
            let got = Quota { open: quota.0, a_day: quota.1 }.admit(theirs.iter().copied(), now);
            match (got, want) {
                (Ok(()), Ok(())) => {}
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{theirs:?}: {got:?} instead of {want:?}"),
            }
        }
    }
}
