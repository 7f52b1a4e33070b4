//! How day, night and sleep color what is seen, with the roundings of numpy and Pillow.

/// Red, green and blue.
pub type Pixel = [u8; 3];

/// How far the night covers each pixel, [column, row]: not at all in the middle.
pub fn vignette([width, height]: [usize; 2]) -> Vec<f64> {
    let line = |n: usize| {
        let step = 2.0 / (n - 1) as f64;
        let at = move |i: usize| if i == n - 1 { 1.0 } else { i as f64 * step - 1.0 };
        (0..n).map(at).map(|x| x * x)
    };
    let at = |xx: f64, yy: f64| 1.0 - (-0.5 * (xx + yy) / 0.25).exp();
    line(width).flat_map(|xx| line(height).map(move |yy| at(xx, yy))).collect()
}

/// The light of a moment: how bright the day is, and whether the player sleeps.
pub struct Light {
    day: [f64; 256],        // what a channel's value contributes by day
    night: [[f64; 256]; 3], // and what the night's view does, tinted blue
    sleeping: bool,
}

impl Light {
    pub fn new(daylight: f64, sleeping: bool) -> Self {
        let table = |f: &dyn Fn(f64) -> f64| std::array::from_fn(|v| f(v as f64));
        let night = |tint: f64| table(&|v| (1.0 - daylight) * (0.5 * v + 0.5 * tint));
        Light { day: table(&|v| daylight * v), night: [night(0.0), night(16.0), night(64.0)], sleeping }
    }

    /// The color to draw for a pixel; `seen` is the pixel with the night's noise, if there is any.
    #[inline(always)]
    pub fn fall(&self, pixel: Pixel, seen: Pixel) -> Pixel {
        let gray = u16::from(luma(seen));
        let lit: Pixel = std::array::from_fn(|i| {
            // Two fifths color and three fifths gray: equal to what Pillow gets by rounding in float32.
            let pale = (3 * gray + 2 * u16::from(seen[i])) / 5;
            (self.day[usize::from(pixel[i])] + self.night[i][usize::from(pale as u8)]) as u8
        });
        if !self.sleeping {
            return lit;
        }
        let dream = luma(lit) / 2;
        [dream, dream, dream + 8]
    }
}

/// The brightness of a color, as Pillow rounds it.
#[inline(always)]
fn luma([r, g, b]: Pixel) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The light of a moment in the package's own arithmetic: Pillow's blend in float32, numpy's in float64.
    fn original(pixel: Pixel, seen: Pixel, daylight: f64) -> Pixel {
        let gray = f32::from(luma(seen));
        std::array::from_fn(|i| {
            let pale = (gray + 0.4 * (f32::from(seen[i]) - gray)) as u8;
            let night = 0.5 * f64::from(pale) + 0.5 * [0.0, 16.0, 64.0][i];
            (daylight * f64::from(pixel[i]) + (1.0 - daylight) * night) as u8
        })
    }

    #[test]
    fn light_is_rounded_as_the_package_does() {
        for daylight in [0.0, 0.3, 0.7969251898544335, 1.0] {
            let (light, dream) = (Light::new(daylight, false), Light::new(daylight, true));
            for (r, g) in (0..=255).flat_map(|r| (0..=255).map(move |g| (r, g))) {
                let (pixel, seen) = ([g, r, 255 - r], [r, g, g / 2]);
                let lit = light.fall(pixel, seen);
                assert_eq!(lit, original(pixel, seen, daylight), "{pixel:?} seen as {seen:?} at {daylight}");
                let gray = luma(lit);
                assert_eq!(dream.fall(pixel, seen), [gray / 2, gray / 2, (gray + 16) / 2]);
            }
        }
        assert_eq!([luma([255; 3]), luma([255, 0, 0]), luma([0, 255, 0]), luma([0, 0, 255])], [255, 76, 150, 29]);
    }

    #[test]
    fn noise_spares_the_middle() {
        let shade = vignette([3, 5]);
        assert_eq!((shade.len(), shade[7], shade[0]), (15, 0.0, 1.0 - (-4f64).exp()));
        assert_eq!((shade[2], shade[5]), (1.0 - (-2f64).exp(), 1.0 - (-2f64).exp()));
    }
}
