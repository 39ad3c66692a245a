//! A small generator of random numbers (xorshift64*): the same on every machine for the same seed.
use std::time::Duration;

/// Seeded, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Different seeds give unrelated rows, also seeds that differ by one.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next 53 bits.
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// Uniform in -1 to 1.
    pub fn unit(&mut self) -> f64 {
        self.bits() as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Uniform in 0 to 1, without 1.
    pub fn share(&mut self) -> f64 {
        self.bits() as f64 / (1_u64 << 53) as f64
    }

    /// Uniform among 0 to `count` - 1; `count` is not zero.
    pub fn below(&mut self, count: usize) -> usize {
        (self.share() * count as f64) as usize
    }

    /// True this share of the time.
    pub fn chance(&mut self, share: f64) -> bool {
        self.share() < share
    }

    /// Exponential with this mean, at most five times it: events that know nothing of each other.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((-(1.0 - self.share()).ln()).min(5.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_seed_and_keep_their_range() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        let (mut sum, mean) = (Duration::ZERO, Duration::from_secs(2));
        for _ in 0..1_000 {
            assert_eq!(a.share(), b.share());
            let wait = a.exponential(mean);
            assert_eq!(wait, b.exponential(mean));
            sum += wait;
            assert!(a.clone().below(3) < 3 && (-1.0..1.0).contains(&a.clone().unit()));
        }
        assert!((1.7..2.3).contains(&(sum.as_secs_f64() / 1_000.0)), "{sum:?}");
    }
}
