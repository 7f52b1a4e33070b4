//! The pictures of the Python package: where they are, and how they are read, resized and laid over each other.

use crate::packages;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The folder with the pictures of the package that `python` has; none where it has none.
pub fn find(python: &str) -> Option<PathBuf> {
    packages::folder(python, "crafter", "assets")
}

/// A picture of `width` x `height` pixels, row by row.
pub struct Texture {
    pub width: usize,
    pub height: usize,
    pixels: Vec<[u8; 4]>,
    /// Whether it has an alpha channel, even an opaque one: it is then blended with others in floats, with their
    /// rounding.
    alpha: bool,
}

impl Texture {
    /// Reads `name`.png of a folder.
    pub fn read(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}.png"));
        let read = || {
            let mut reader = png::Decoder::new(BufReader::new(File::open(&path)?)).read_info()?;
            let mut bytes = vec![0; reader.output_buffer_size().context("it is too large")?];
            let info = reader.next_frame(&mut bytes)?;
            ensure!(info.bit_depth == png::BitDepth::Eight, "it does not have 8 bits a channel");
            let alpha = match info.color_type {
                png::ColorType::Rgb => false,
                png::ColorType::Rgba => true,
                other => bail!("it is {other:?}, neither Rgb nor Rgba"),
            };
            let channels = info.color_type.samples();
            let pixel = |x: &[u8]| [x[0], x[1], x[2], if alpha { x[3] } else { 255 }];
            let pixels = bytes[..info.buffer_size()].chunks_exact(channels).map(pixel).collect();
            Ok(Texture { width: info.width as usize, height: info.height as usize, pixels, alpha })
        };
        read().with_context(|| format!("the image {} of the package crafter cannot be read", path.display()))
    }

    /// A picture of one color.
    #[cfg(test)]
    pub fn plain([r, g, b]: [u8; 3]) -> Self {
        Texture { width: 16, height: 16, pixels: vec![[r, g, b, 255]; 256], alpha: false }
    }

    /// The nearest pixels at another size, as Pillow chooses them.
    pub fn resize(&self, width: usize, height: usize) -> Self {
        let (columns, rows) = (nearest(self.width, width), nearest(self.height, height));
        let row = |&y: &usize| columns.iter().map(move |x| self.pixels[y * self.width + x]);
        Texture { width, height, pixels: rows.iter().flat_map(row).collect(), alpha: self.alpha }
    }

    /// The color of a pixel, whatever its alpha.
    pub fn color(&self, x: usize, y: usize) -> [u8; 3] {
        let [r, g, b, _] = self.pixels[y * self.width + x];
        [r, g, b]
    }

    /// The color of a pixel over another color.
    pub fn over(&self, x: usize, y: usize, below: [u8; 3]) -> [u8; 3] {
        if !self.alpha {
            return self.color(x, y);
        }
        let color = self.pixels[y * self.width + x].map(|v| f32::from(v) / 255.0);
        let alpha = color[3];
        std::array::from_fn(|i| {
            let mixed = alpha * color[i] + (1.0 - alpha) * (f32::from(below[i]) / 255.0);
            (255.0 * mixed) as u8
        })
    }
}

/// For each of `new` samples, the nearest of `old`. Pillow accumulates steps, with their rounding errors.
fn nearest(old: usize, new: usize) -> Vec<usize> {
    let step = old as f64 / new as f64;
    let at = |at: &mut f64| {
        let here = *at;
        *at += step;
        Some((here as usize).min(old - 1))
    };
    std::iter::repeat_n((), new).scan(step * 0.5, |sum, ()| at(sum)).collect()
}
