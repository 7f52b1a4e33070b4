//! `Rng`: a counter-based random generator whose whole state is two words.

use serde::{Deserialize, Serialize};

/// Random numbers as a pure function of (seed, stream, position). The generator is SplitMix64
/// read by counter: a Weyl sequence from a hashed key through a 64-bit mixer. It is meant for
/// simulation, not for secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    key: u64,
    position: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64: a bijection of 64 bits in which each input bit moves half the output.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// An independent sequence for each pair of seed and stream.
    pub fn new(seed: u64, stream: u64) -> Self {
        let key = mix(mix(seed.wrapping_add(GOLDEN)) ^ stream.wrapping_mul(GOLDEN).rotate_left(32));
        Rng { key, position: 0 }
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.position = self.position.wrapping_add(1);
        mix(self.key.wrapping_add(self.position.wrapping_mul(GOLDEN)))
    }

    /// A uniform integer in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The high word of bits * n is uniform up to a bias of n / 2^64.
        ((self.bits() as u128 * n as u128) >> 64) as usize
    }

    /// A uniform number in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal number (Box-Muller; the second of the pair is dropped to keep no cache).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_and_stream_same_numbers_others_differ() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..8).map(|_| rng.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        let all: std::collections::HashSet<u64> =
            (0..10).flat_map(|seed| (0..10).flat_map(move |stream| draw(seed, stream))).collect();
        assert_eq!(all.len(), 10 * 10 * 8);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let (mut rng, n) = (Rng::new(0, 0), 100_000);
        let mut counts = [0usize; 5];
        let (mut mean, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            counts[rng.below(5)] += 1;
            let x = rng.normal();
            mean += x / n as f64;
            square += x * x / n as f64;
            uniform += rng.uniform() / n as f64;
        }
        assert!(mean.abs() < 0.015 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        assert!((uniform - 0.5).abs() < 0.005, "{uniform}");
        assert!(counts.iter().all(|&c| c.abs_diff(n / 5) < 600), "{counts:?}");
    }
}
