//! Counter-based random numbers: every draw is a pure function of (seed, stream, counter, position).

/// The draws that belong to one sampled sequence. Nothing is carried from one sequence to the
/// next, so three counters are the whole state of the sampler.
pub struct Draws {
    key: u64,
    position: u64,
}

/// The finaliser of SplitMix64: a bijection whose output bits all depend on all input bits.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Draws {
    /// The draws for the `counter`-th use of `stream`.
    pub fn new(seed: u64, stream: u64, counter: u64) -> Self {
        // An odd constant between the rounds keeps (1, 0) apart from (0, 1).
        let key =
            [stream, counter].into_iter().fold(mix(seed ^ GOLDEN), |key, x| mix(key.wrapping_add(GOLDEN) ^ mix(x)));
        Draws { key, position: 0 }
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.position += 1;
        mix(self.key.wrapping_add(self.position.wrapping_mul(GOLDEN)))
    }

    /// A whole number in `0..n`; `n` must not be zero.
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.bits() as u128 * n as u128) >> 64) as u64
    }

    /// A float in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// 2^64 divided by the golden ratio: the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_every_part_of_the_key_and_are_even() {
        let first = |seed, stream, counter| Draws::new(seed, stream, counter).bits();
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
        let others = [first(0, 2, 3), first(1, 3, 2), first(1, 2, 4), first(2, 1, 3)];
        assert!(others.iter().all(|&x| x != first(1, 2, 3)));

        let mut counts = [0; 10];
        for counter in 0..20_000 {
            counts[Draws::new(7, 0, counter).below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (1800..2200).contains(&n)), "{counts:?}");
        let mut draws = Draws::new(7, 1, 0);
        let mean = (0..20_000).map(|_| draws.unit()).sum::<f64>() / 20_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
