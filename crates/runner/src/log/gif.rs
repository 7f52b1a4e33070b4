//! Videos as GIFs: exact colours where 256 suffice, else the best 256 of each frame.

use super::format::trimmed;
use anyhow::{Context, Result, bail, ensure};
use gif::{Encoder, Frame, Repeat};
use rayon::prelude::*;
use spaces::{Array, Data};

/// Encodes a uint8 video `[T, H, W, C]`, C 1 (grey) or 3 (red, green, blue), as a GIF that repeats for ever.
/// A GIF's clock ticks in hundredths of a second and most viewers refuse less than two, so `fps` is met up to 50.
pub fn encode(video: &Array, fps: f64) -> Result<Vec<u8>> {
    let (&[frames, height, width, channels], Data::U8(pixels)) = (&video.shape[..], &video.data) else {
        bail!("a video must be uint8 [T, H, W, C], but this is {} {:?}", video.dtype().name(), video.shape);
    };
    ensure!(matches!(channels, 1 | 3), "a video must have 1 or 3 channels, but this has {channels}");
    ensure!(fps.is_finite() && fps > 0.0, "logger.fps must be a positive number, but is {}", trimmed(fps, 3));
    let side = |n: usize| u16::try_from(n).ok().filter(|&n| n > 0);
    let (Some(w), Some(h)) = (side(width), side(height)) else {
        bail!("a GIF holds 1 to 65535 pixels a side, but this video is {height} x {width}");
    };
    ensure!(frames > 0, "a video must have at least one frame");

    let delay = ((100.0 / fps).round() as u16).max(2);
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, w, h, &[]).context("cannot start the GIF")?;
    encoder.set_repeat(Repeat::Infinite).context("cannot write the GIF's header")?;
    let frames: Vec<_> =
        pixels.par_chunks_exact(height * width * channels).map(|frame| quantize(frame, channels)).collect();
    for (indices, palette) in frames {
        let mut frame = Frame::from_palette_pixels(w, h, indices, palette, None);
        frame.delay = delay;
        encoder.write_frame(&frame).context("cannot encode a frame of the GIF")?;
    }
    drop(encoder);
    Ok(out)
}

/// One colour of a frame and how often it occurs.
#[derive(Clone, Copy)]
struct Colour {
    rgb: [u8; 3],
    count: u32,
}

/// Palette indices `[H*W]` of one frame's pixels and the palette, three bytes a colour, at most 256 of them.
fn quantize(frame: &[u8], channels: usize) -> (Vec<u8>, Vec<u8>) {
    // Sorting (colour, position) pairs lists each distinct colour once with all its pixels.
    let mut order: Vec<u64> = (0u64..)
        .zip(frame.chunks_exact(channels))
        .map(|(i, p)| {
            let [r, g, b] = if channels == 3 { [p[0], p[1], p[2]] } else { [p[0]; 3] };
            u64::from(u32::from_be_bytes([0, r, g, b])) << 32 | i
        })
        .collect();
    order.sort_unstable();
    let runs: Vec<&[u64]> = order.chunk_by(|a, b| a >> 32 == b >> 32).collect();
    let colours: Vec<Colour> = runs
        .iter()
        .map(|run| {
            let [_, r, g, b] = ((run[0] >> 32) as u32).to_be_bytes();
            Colour { rgb: [r, g, b], count: run.len() as u32 }
        })
        .collect();

    let mut indices = vec![0; order.len()];
    let mut palette = Vec::new();
    for (slot, members) in cut(&colours).iter().enumerate() {
        palette.extend(mean(&colours, members).map(|x| x.round() as u8));
        for pixel in members.iter().flat_map(|&c| runs[c]) {
            indices[*pixel as u32 as usize] = slot as u8;
        }
    }
    (indices, palette)
}

/// Splits the colours into at most 256 groups, always the one with the largest squared error, at the mean of its widest axis.
fn cut(colours: &[Colour]) -> Vec<Vec<usize>> {
    if colours.len() <= 256 {
        return (0..colours.len()).map(|c| vec![c]).collect();
    }
    let all: Vec<usize> = (0..colours.len()).collect();
    let mut groups = vec![(error(colours, &all), all)];
    while groups.len() < 256 {
        let worst = (0..groups.len()).max_by(|&a, &b| groups[a].0.0.total_cmp(&groups[b].0.0)).unwrap_or(0);
        let ((size, axis, middle), members) = groups.swap_remove(worst);
        if size <= 0.0 {
            groups.push(((size, axis, middle), members));
            break;
        }
        // Both sides hold something: colours differ along the axis, and their mean lies between them.
        let (low, high): (Vec<usize>, Vec<usize>) =
            members.into_iter().partition(|&c| f64::from(colours[c].rgb[axis]) <= middle);
        for part in [low, high] {
            groups.push((error(colours, &part), part));
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// A group's squared error along its worst axis, that axis, and its mean there.
fn error(colours: &[Colour], members: &[usize]) -> (f64, usize, f64) {
    let mean = mean(colours, members);
    let mut square = [0.0; 3];
    for &c in members {
        for k in 0..3 {
            square[k] += f64::from(colours[c].count) * (f64::from(colours[c].rgb[k]) - mean[k]).powi(2);
        }
    }
    let axis = (0..3).max_by(|&a, &b| square[a].total_cmp(&square[b])).unwrap_or(0);
    (if members.len() < 2 { 0.0 } else { square[axis] }, axis, mean[axis])
}

/// A group's mean colour, each colour weighted by how often it occurs.
fn mean(colours: &[Colour], members: &[usize]) -> [f64; 3] {
    let mut sum = [0.0; 3];
    let mut count = 0.0;
    for &c in members {
        count += f64::from(colours[c].count);
        for k in 0..3 {
            sum[k] += f64::from(colours[c].count) * f64::from(colours[c].rgb[k]);
        }
    }
    sum.map(|x| x / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> (usize, usize, Vec<(u16, Vec<u8>)>) {
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(bytes).unwrap();
        let mut frames = vec![];
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            frames.push((frame.delay, frame.buffer.chunks(4).flat_map(|p| [p[0], p[1], p[2]]).collect()));
        }
        (decoder.width() as usize, decoder.height() as usize, frames)
    }

    #[test]
    fn few_colours_come_back_exactly() {
        let (t, h, w) = (3, 5, 7);
        let pixels: Vec<u8> = (0..t * h * w * 3).map(|i| (i * 37 % 251) as u8).collect();
        let bytes = encode(&Array::from_u8(&[t, h, w, 3], pixels.clone()), 10.0).unwrap();
        let (width, height, frames) = decode(&bytes);
        assert_eq!((width, height, frames.len()), (w, h, t));
        for (frame, wanted) in frames.iter().zip(pixels.chunks(h * w * 3)) {
            assert_eq!(frame.0, 10);
            assert_eq!(frame.1, wanted);
        }
    }

    #[test]
    fn grey_is_exact() {
        let pixels: Vec<u8> = (0..=255).collect();
        let (_, _, frames) = decode(&encode(&Array::from_u8(&[1, 16, 16, 1], pixels.clone()), 15.0).unwrap());
        assert_eq!(frames[0].0, 7);
        assert_eq!(frames[0].1, pixels.iter().flat_map(|&x| [x; 3]).collect::<Vec<u8>>());
    }

    /// 64 x 64 different colours in a smooth picture: the mean error stays under three levels of 255.
    #[test]
    fn many_colours_stay_close() {
        let pixels: Vec<u8> =
            (0..64 * 64).flat_map(|i| [i % 64 * 4, i / 64 * 4, 128 + (i % 64 + i / 64) / 2]).map(|x| x as u8).collect();
        let (_, _, frames) = decode(&encode(&Array::from_u8(&[1, 64, 64, 3], pixels.clone()), 15.0).unwrap());
        let total: f64 = pixels.iter().zip(&frames[0].1).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs()).sum();
        let mean = total / pixels.len() as f64;
        assert!(mean > 0.0 && mean < 3.0, "{mean}");
    }

    #[test]
    fn bad_videos_are_refused_with_a_reason() {
        let says = |video: Array, fps, words: &str| {
            let message = encode(&video, fps).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        says(Array::from_u8(&[1, 2, 2, 2], vec![0; 8]), 15.0, "1 or 3 channels");
        says(Array::from_f32(&[1, 1, 1, 1], vec![0.0]), 15.0, "uint8");
        says(Array::from_u8(&[0, 4, 4, 3], vec![]), 15.0, "at least one frame");
        says(Array::from_u8(&[1, 1, 1, 1], vec![0]), 0.0, "logger.fps");
    }
}
