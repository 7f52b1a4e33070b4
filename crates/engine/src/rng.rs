//! Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! A draw depends on (seed, stream, step, index) alone: not on what was drawn before, nor on threads.

use crate::tensor::Tensor;

/// The draws of one stream at one step.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    stream: u32,
    step: u32,
    /// Where a GPU reads the step when it draws; see [`Rng::with_step_at`].
    step_at: Option<Tensor>,
}

impl Rng {
    /// `stream` separates uses (initialisation, acting, latents, actions), `step` counts updates or steps.
    pub fn new(seed: u64, stream: u32, step: u64) -> Self {
        // The high half of the step moves the key, so that steps beyond 2^32 do not repeat.
        let key = [seed as u32, (seed >> 32) as u32 ^ (step >> 32) as u32];
        Rng { key, stream, step: step as u32, step_at: None }
    }

    /// On a GPU, the draws of whichever step's low 32 bits `step` [1] holds when a kernel runs, rather than of the step
    /// given before: so that a captured update can be replayed. The processor does not look at it.
    pub fn with_step_at(self, step: &Tensor) -> Self {
        Rng { step_at: Some(step.detach()), ..self }
    }

    /// Key, stream, step and where to read it instead, as the kernels of a GPU take them.
    pub(crate) fn counter(&self) -> ([u32; 2], u32, u32, &Option<Tensor>) {
        (self.key, self.stream, self.step, &self.step_at)
    }

    /// Four random words for `index`.
    fn words(&self, index: u64) -> [u32; 4] {
        let mut x = [index as u32, (index >> 32) as u32, self.stream, self.step];
        let mut key = self.key;
        for _ in 0..10 {
            let a = 0xD251_1F53_u64 * x[0] as u64;
            let b = 0xCD9E_8D57_u64 * x[2] as u64;
            x = [(b >> 32) as u32 ^ x[1] ^ key[0], b as u32, (a >> 32) as u32 ^ x[3] ^ key[1], a as u32];
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        x
    }

    /// Fills `out` with uniform numbers in (0, 1): those with the indices `start..start + out.len()`.
    pub fn uniform(&self, start: u64, out: &mut [f32]) {
        let mut done = 0;
        while done < out.len() {
            let index = start + done as u64;
            let words = self.words(index / 4);
            for word in &words[(index % 4) as usize..] {
                if done < out.len() {
                    out[done] = open_unit(*word);
                    done += 1;
                }
            }
        }
    }

    /// Fills `out` with standard normal numbers (Box-Muller): those with the indices `start..start + out.len()`.
    pub fn normal(&self, start: u64, out: &mut [f32]) {
        for (i, x) in out.iter_mut().enumerate() {
            let words = self.words(start + i as u64);
            let radius = (-2.0 * (open_unit(words[0]) as f64).ln()).sqrt();
            *x = (radius * (std::f64::consts::TAU * open_unit(words[1]) as f64).cos()) as f32;
        }
    }
}

/// The upper 23 bits of a word as a number strictly between 0 and 1.
fn open_unit(word: u32) -> f32 {
    ((word >> 9) as f32 + 0.5) * (1.0 / (1u32 << 23) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the Random123 distribution for philox4x32-10.
    #[test]
    fn matches_the_published_vectors() {
        let zero = Rng { key: [0, 0], stream: 0, step: 0, step_at: None };
        assert_eq!(zero.words(0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Rng { key: [!0, !0], stream: !0, step: !0, step_at: None };
        assert_eq!(ones.words(!0), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn draws_do_not_depend_on_how_they_are_split() {
        let rng = Rng::new(7, 3, 11);
        let (mut whole, mut parts) = ([0.0; 37], [0.0; 37]);
        rng.uniform(5, &mut whole);
        for (i, x) in parts.iter_mut().enumerate() {
            rng.uniform(5 + i as u64, std::slice::from_mut(x));
        }
        assert_eq!(whole, parts);
        assert!(whole.iter().all(|x| *x > 0.0 && *x < 1.0));
    }

    #[test]
    fn moments() {
        let mut xs = vec![0.0; 100_000];
        Rng::new(1, 2, 3).uniform(0, &mut xs);
        let mean = xs.iter().sum::<f32>() / xs.len() as f32;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        Rng::new(1, 2, 3).normal(0, &mut xs);
        let mean = xs.iter().sum::<f32>() / xs.len() as f32;
        let var = xs.iter().map(|x| x * x).sum::<f32>() / xs.len() as f32;
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.02, "{mean} {var}");
    }
}
