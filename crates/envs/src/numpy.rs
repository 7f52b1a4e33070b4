//! `RandomState`: numpy's legacy random generator to the bit, for environments that reproduce one in Python.

use serde::{Deserialize, Serialize};

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// `numpy.random.RandomState(seed)`: the same calls in the same order draw the same numbers.
///
/// It is a Mersenne Twister (MT19937) with numpy's conversions of words to numbers, which numpy has frozen. The
/// logarithm in [`RandomState::randn`] is the system's, as in numpy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct RandomState {
    words: Box<[u32; WORDS]>,
    position: usize,    // of the next word; WORDS where new ones are due
    gauss: Option<f64>, // normal numbers come in pairs: the one not yet asked for
}

impl RandomState {
    /// As numpy seeds from one integer below 2^32.
    pub fn new(seed: u32) -> Self {
        let mut words = Box::new([seed; WORDS]);
        for i in 1..WORDS {
            let last = words[i - 1];
            words[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        RandomState { words, position: WORDS, gauss: None }
    }

    /// Replaces all words by the next ones.
    #[cold]
    fn twist(&mut self) {
        let next = |word: u32, following: u32, far: u32| {
            let joined = (word & 0x8000_0000) | (following & 0x7fff_ffff);
            far ^ (joined >> 1) ^ ((joined & 1) * 0x9908_b0df)
        };
        let words = &mut self.words;
        for i in 0..WORDS - MIDDLE {
            words[i] = next(words[i], words[i + 1], words[i + MIDDLE]);
        }
        for i in WORDS - MIDDLE..WORDS - 1 {
            words[i] = next(words[i], words[i + 1], words[i + MIDDLE - WORDS]);
        }
        words[WORDS - 1] = next(words[WORDS - 1], words[0], words[MIDDLE - 1]);
        self.position = 0;
    }

    /// 32 uniform bits.
    #[inline]
    fn bits(&mut self) -> u32 {
        if self.position == WORDS {
            self.twist();
        }
        let mut x = self.words[self.position];
        self.position += 1;
        x ^= x >> 11;
        x ^= (x << 7) & 0x9d2c_5680;
        x ^= (x << 15) & 0xefc6_0000;
        x ^ (x >> 18)
    }

    /// A uniform number in `[0, 1)`: `random_sample()`, `rand()`, and `uniform()` without bounds.
    pub fn random_sample(&mut self) -> f64 {
        let (high, low) = (self.bits() >> 5, self.bits() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `uniform(low, high)`. Arrays are filled by one call for each number, in row-major order.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random_sample()
    }

    /// A standard normal number: `randn()`. Arrays as above.
    pub fn randn(&mut self) -> f64 {
        if let Some(second) = self.gauss.take() {
            return second;
        }
        loop {
            let (x, y) = (2.0 * self.random_sample() - 1.0, 2.0 * self.random_sample() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.gauss = Some(scale * x);
                return scale * y;
            }
        }
    }

    /// `randint(low, high)`: an integer from `low` to `high - 1`, and `low` where there is no other.
    pub fn randint(&mut self, low: i64, high: i64) -> i64 {
        let largest = high.saturating_sub(1).max(low).wrapping_sub(low) as u64;
        low.wrapping_add(self.interval(largest) as i64)
    }

    /// An integer from 0 to `largest`, by rejection: draws as many bits as it has until they are no larger.
    fn interval(&mut self, largest: u64) -> u64 {
        let mask = u64::MAX.checked_shr(largest.leading_zeros()).unwrap_or(0);
        loop {
            let bits = match largest {
                0 => return 0,
                1..=0xffff_ffff => u64::from(self.bits()),
                _ => u64::from(self.bits()) << 32 | u64::from(self.bits()),
            };
            if bits & mask <= largest {
                return bits & mask;
            }
        }
    }
}

/// What is saved of a generator.
#[derive(Serialize, Deserialize)]
struct Saved(Vec<u32>, usize, Option<f64>);

impl From<RandomState> for Saved {
    fn from(state: RandomState) -> Self {
        Saved(state.words.to_vec(), state.position, state.gauss)
    }
}

impl TryFrom<Saved> for RandomState {
    type Error = &'static str;

    fn try_from(Saved(words, position, gauss): Saved) -> Result<Self, Self::Error> {
        match <Box<[u32; WORDS]>>::try_from(words.into_boxed_slice()) {
            Ok(words) if position <= WORDS => Ok(RandomState { words, position, gauss }),
            _ => Err("a random generator has 624 words and a position among them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state;

    // Recorded from numpy 2.4.6:
    // python -c "from numpy.random import RandomState; r = RandomState(42)
    // print(r.random_sample(), r.uniform(-2, 3), r.rand(), r.uniform())
    // print(r.randint(0, 4, 10), r.randint(2 ** 31 - 1), r.randint(2 ** 31 - 1))
    // print(r.randint(-5, 10 ** 12), r.randint(-5, 10 ** 12), r.randint(-5, 10 ** 12), r.randint(7, 8))
    // print(r.randint(0, 2 ** 32), r.randint(-2 ** 63, 2 ** 63 - 1), [r.randint(0, 100) for _ in range(4)])
    // print(r.randn(5), r.normal(1, 0.1), r.rand())"
    #[test]
    fn every_call_draws_numpys_numbers() {
        let mut r = RandomState::new(42);
        let uniform = [r.random_sample(), r.uniform(-2.0, 3.0), r.random_sample(), r.uniform(0.0, 1.0)];
        assert_eq!(uniform, [0.3745401188473625, 2.7535715320495804, 0.7319939418114051, 0.5986584841970366]);
        assert_eq!([(); 10].map(|_| r.randint(0, 4)), [2, 1, 2, 2, 2, 2, 3, 0, 3, 3]);
        assert_eq!([(); 2].map(|_| r.randint(0, (1 << 31) - 1)), [893664919, 648061058]);
        assert_eq!([(); 3].map(|_| r.randint(-5, 1_000_000_000_000)), [640192412975, 7395928402, 158917134716]);
        assert_eq!((r.randint(7, 8), r.randint(0, 1 << 32)), (7, 780932287));
        assert_eq!(r.randint(i64::MIN, i64::MAX), 9079700755911514388);
        assert_eq!([(); 4].map(|_| r.randint(0, 100)), [32, 75, 57, 21]);
        let normal =
            [-2.439105815056023, 0.6034412250381314, -0.2510439680857766, -0.16386711649477018, -1.4763296931546015];
        assert_eq!([(); 5].map(|_| r.randn()), normal);
        assert_eq!((1.0 + 0.1 * r.randn(), r.random_sample()), (1.1486980958047202, 0.9832308858067882));
    }

    // for seed in (0, 1, 2 ** 31 - 2, 2 ** 32 - 1):
    //   r = numpy.random.RandomState(seed); r.rand(700); print(r.rand(), r.randn())
    #[test]
    fn seeds_are_numpys_over_several_blocks_of_words() {
        let recorded = [
            (0, 0.37321595574479416, -0.0320693872145131),
            (1, 0.13835468979294652, 0.8200688325269588),
            ((1 << 31) - 2, 0.6723150457019039, 0.05087273278521504),
            (u32::MAX, 0.6863296221322835, -0.8219901222625631),
        ];
        for (seed, uniform, normal) in recorded {
            let mut r = RandomState::new(seed);
            for _ in 0..700 {
                r.random_sample();
            }
            assert_eq!((r.random_sample(), r.randn()), (uniform, normal), "seed {seed}");
        }
    }

    #[test]
    fn a_saved_generator_goes_on_and_a_damaged_one_is_refused() {
        let mut r = RandomState::new(3);
        r.randn();
        let mut copy: RandomState = state::load("r", &state::save("r", &r).unwrap()).unwrap();
        assert_eq!([(); 9].map(|_| copy.randn()), [(); 9].map(|_| r.randn()));
        let saved = Saved(vec![0; 3], 0, None);
        assert!(state::load::<RandomState>("r", &state::save("r", &saved).unwrap()).is_err());
        let saved = Saved(vec![0; WORDS], WORDS + 1, None);
        assert!(state::load::<RandomState>("r", &state::save("r", &saved).unwrap()).is_err());
    }
}
