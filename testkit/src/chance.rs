//! Chance that can be repeated: the same seed gives the same run, on every machine and with every version of every library.
//! That is why the generator is written out here.

/// A stream of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `from` to `to`, without `to`; `from` if that is nothing.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        match to.checked_sub(from) {
            None | Some(0) => from,
            Some(width) => from + self.draw() % width,
        }
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, often: u64) -> bool {
        self.between(0, 1_000) < often
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.between(0, of.len() as u64)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values_do_not_change() {
        let mut chance = Chance::new(1_234_567);
        assert_eq!([chance.draw(), chance.draw()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn bounds_hold() {
        let mut chance = Chance::new(1);
        assert!((0..1_000).all(|_| (3..7).contains(&chance.between(3, 7))));
        assert_eq!((chance.between(5, 5), chance.between(5, 2)), (5, 5));
        assert_eq!((chance.per_mille(0), chance.per_mille(1_000)), (false, true));
        assert_eq!(chance.pick::<u8>(&[]), None);
    }
}
