//! `ResizeImage`: pictures of one size, whatever the environment draws.

use crate::Env;
use anyhow::{Context, Result, ensure};
use spaces::{Array, Data, Record, Space, Spaces};

/// Brings every image key, `log/…` pictures included, to one height and width; channels stay.
/// Interpolates linearly; where it shrinks, each pixel averages all that it covers.
pub struct ResizeImage {
    env: Box<dyn Env>,
    obs_space: Spaces,
    keys: Vec<(String, Resize)>,
}

impl ResizeImage {
    /// `size` is height and width in pixels.
    pub fn new(env: Box<dyn Env>, size: [usize; 2]) -> Result<Self> {
        let [height, width] = size;
        ensure!(height > 0 && width > 0, "images cannot be resized to [{height}, {width}]; neither may be 0");
        let mut obs_space = env.obs_space().clone();
        let mut keys = vec![];
        for (key, space) in &mut obs_space {
            if space.is_image() && space.shape[..2] != size {
                keys.push((key.clone(), Resize::new([space.shape[0], space.shape[1]], size)));
                *space = Space::image(height, width, space.shape[2]);
            }
        }
        Ok(ResizeImage { env, obs_space, keys })
    }
}

impl Env for ResizeImage {
    forward!(act_space);
    forward!(begin);
    forward!(render);
    forward!(save, load);

    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let mut obs = self.env.step(action)?;
        for (key, resize) in &self.keys {
            let image = obs.get_mut(key).with_context(|| format!("the observation lacks the image '{key}'"))?;
            *image = resize.apply(image).with_context(|| format!("the image '{key}' is {:?}", image.shape))?;
        }
        Ok(obs)
    }
}

/// The weights with which one output pixel sums the input pixels from `start` on.
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

/// A separable resize between two fixed sizes.
struct Resize {
    from: [usize; 2],
    to: [usize; 2],
    rows: Vec<Taps>,
    columns: Vec<Taps>,
}

/// Triangle filters of one axis, as wide as the larger of an input and an output pixel.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let pixel = |i: usize| {
        let center = (i as f64 + 0.5) * scale; // in input pixels, whose centres lie at x + 0.5
        let start = (center - reach).floor().max(0.0) as usize;
        let end = ((center + reach).ceil() as usize).min(from);
        let weight = |x: usize| (1.0 - (x as f64 + 0.5 - center).abs() / reach).max(0.0);
        let sum: f64 = (start..end).map(weight).sum();
        Taps { start, weights: (start..end).map(|x| (weight(x) / sum) as f32).collect() }
    };
    (0..to).map(pixel).collect()
}

impl Resize {
    fn new(from: [usize; 2], to: [usize; 2]) -> Self {
        Resize { from, to, rows: taps(from[0], to[0]), columns: taps(from[1], to[1]) }
    }

    /// The picture `[h, w, c]` at the new size; an error where it does not have the old one.
    fn apply(&self, image: &Array) -> Result<Array> {
        let [height, width] = self.from;
        let Data::U8(pixels) = &image.data else { anyhow::bail!("an image must be uint8") };
        ensure!(image.shape.len() == 3 && image.shape[..2] == self.from, "an image must be [{height}, {width}, …]");
        let channels = image.shape[2];
        // Along the width first: [from height, to width, channels].
        let mut wide = vec![0.0; height * self.to[1] * channels];
        let source_rows = pixels.chunks_exact((width * channels).max(1));
        for (source, target) in source_rows.zip(wide.chunks_exact_mut((self.to[1] * channels).max(1))) {
            for (taps, out) in self.columns.iter().zip(target.chunks_exact_mut(channels.max(1))) {
                for (x, &weight) in (taps.start..).zip(&taps.weights) {
                    let pixel = &source[x * channels..(x + 1) * channels];
                    out.iter_mut().zip(pixel).for_each(|(out, &p)| *out += weight * p as f32);
                }
            }
        }
        let mut result = Vec::with_capacity(self.to[0] * self.to[1] * channels);
        let stride = self.to[1] * channels;
        let mut sums = vec![0.0f32; stride];
        for taps in &self.rows {
            sums.fill(0.0);
            for (y, &weight) in (taps.start..).zip(&taps.weights) {
                let row = &wide[y * stride..(y + 1) * stride];
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * x);
            }
            result.extend(sums.iter().map(|x| x.round() as u8));
        }
        Ok(Array::from_u8(&[self.to[0], self.to[1], channels], result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::flag;
    use crate::tasks::dummy::{Dummy, Kind, Options};
    use crate::{Rng, random_action};
    use proptest::prelude::*;

    fn resize(image: &Array, to: [usize; 2]) -> Vec<i32> {
        Resize::new([image.shape[0], image.shape[1]], to).apply(image).unwrap().to_i32()
    }

    #[test]
    fn known_pictures() {
        let ramp = Array::from_u8(&[1, 4, 1], vec![0, 40, 80, 120]);
        assert_eq!(resize(&ramp, [1, 8]), [0, 10, 30, 50, 70, 90, 110, 120]);
        // Weights 3, 3, 1 of 7, as the edge cuts the triangle off.
        assert_eq!(resize(&ramp, [1, 2]), [29, 91]);
        let colors = Array::from_u8(&[1, 2, 2], vec![10, 200, 30, 100]);
        assert_eq!(resize(&colors, [2, 1]), [20, 150, 20, 150]);
    }

    proptest! {
        #[test]
        fn flat_pictures_stay_flat_and_the_same_size_is_the_same_picture(
            from in prop::array::uniform2(1usize..40), to in prop::array::uniform2(1usize..40), value: u8, seed: u64,
        ) {
            let flat = Array::from_u8(&[from[0], from[1], 3], vec![value; from[0] * from[1] * 3]);
            prop_assert!(resize(&flat, to).iter().all(|&x| x == value as i32));
            let mut rng = Rng::new(seed, 0);
            let noise = (0..from[0] * from[1]).map(|_| rng.bits() as u8).collect();
            let noise = Array::from_u8(&[from[0], from[1], 1], noise);
            prop_assert_eq!(resize(&noise, from), noise.to_i32());
        }

        #[test]
        fn shrinking_by_an_integer_keeps_the_mean_of_the_inside(factor in 1usize..6, seed: u64) {
            let side = 8 * factor;
            let mut rng = Rng::new(seed, 0);
            let noise = (0..side * side).map(|_| rng.bits() as u8).collect();
            let noise = Array::from_u8(&[side, side, 1], noise);
            let mean = |xs: &[i32]| xs.iter().sum::<i32>() as f32 / xs.len() as f32;
            prop_assert!((mean(&resize(&noise, [8, 8])) - mean(&noise.to_i32())).abs() < 12.0);
        }
    }

    #[test]
    fn every_picture_of_an_environment_is_resized_to_any_aspect() {
        let options = Options { size: [30, 50], ..Options::default() };
        let env = Dummy::new(Kind::All, options, Rng::new(0, 0)).unwrap();
        let mut env = ResizeImage::new(Box::new(env), [24, 64]).unwrap();
        let action = random_action(env.act_space(), &mut Rng::new(0, 1));
        let obs = env.step(&action).unwrap();
        assert!(flag(&obs, "is_first").unwrap());
        for (key, shape) in [("image", [24, 64, 3]), ("depth", [24, 64, 1]), ("log/picture", [24, 64, 3])] {
            assert_eq!(env.obs_space()[key].shape, shape);
            assert_eq!(obs[key].shape, shape);
        }
        assert_eq!(obs["matrix"].shape, [3, 2]);
    }
}
