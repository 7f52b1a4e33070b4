//! `Film`: what one environment shows in whole episodes, as videos.

use crate::driver::flag;
use crate::log::{Agg, Metrics, Value};
use anyhow::Result;
use spaces::{Array, DType, Data, Record};

/// Frames from which on no further episode is begun.
const ENOUGH: usize = 256;
/// Bytes of images that are kept; what comes after is left out.
const BYTES: usize = 64 << 20;

/// The images of one whole episode after the other, short ones as many as make a film of some length. It is part of no
/// checkpoint: after a resume it begins with the next episode.
#[derive(Default)]
pub struct Film {
    /// Of the running episode, if it was seen from its first step on.
    running: Option<Agg>,
    whole: Agg,
    frames: usize,
    bytes: usize,
}

impl Film {
    /// Takes in a step: its uint8 images `[H, W, C]`, C 1 or 3. Officially, too, their names get the prefix `policy_`.
    pub fn add(&mut self, step: &Record) -> Result<()> {
        if self.frames >= ENOUGH {
            return Ok(());
        }
        if flag(step, "is_first")? {
            self.running = Some(Agg::new());
        }
        let Some(episode) = &mut self.running else { return Ok(()) };
        for (key, value) in step {
            if let Some(frame) = frame(value).filter(|_| self.bytes < BYTES) {
                self.bytes += frame.len();
                episode.add_video(&format!("policy_{key}"), &frame);
            }
        }
        if flag(step, "is_last")? {
            let videos = episode.result();
            self.running = None;
            let lengths = videos.values().map(|video| if let Value::Video(video) = video { video.shape[0] } else { 0 });
            self.frames += lengths.max().unwrap_or(0);
            self.whole.add_metrics(&videos, "");
        }
        Ok(())
    }

    /// The videos since the last call, by key: of whole episodes, or of the running one if none has ended. The next film
    /// begins with the next episode.
    pub fn take(&mut self) -> Metrics {
        (self.frames, self.bytes) = (0, 0);
        let (whole, running) = (self.whole.result(), self.running.take());
        if whole.is_empty() { running.map(|mut episode| episode.result()).unwrap_or_default() } else { whole }
    }
}

/// An image as a video `[1, H, W, C]`.
fn frame(value: &Array) -> Option<Array> {
    match (&value.data, &value.shape[..]) {
        (Data::U8(pixels), &[h, w, c @ (1 | 3)]) if value.dtype() == DType::U8 => {
            Some(Array::from_u8(&[1, h, w, c], pixels.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(first: bool, last: bool, pixel: u8) -> Record {
        Record::from([
            ("is_first".to_string(), Array::bool(first)),
            ("is_last".to_string(), Array::bool(last)),
            ("image".to_string(), Array::from_u8(&[1, 1, 3], vec![pixel; 3])),
            ("log/image".to_string(), Array::from_u8(&[1, 2, 1], vec![pixel; 2])),
            ("stack".to_string(), Array::from_u8(&[1, 1, 4], vec![pixel; 4])),
        ])
    }

    fn video(metrics: &Metrics, key: &str) -> Vec<u8> {
        match &metrics[key] {
            Value::Video(Array { data: Data::U8(pixels), .. }) => pixels.clone(),
            _ => panic!("{key} is no video"),
        }
    }

    #[test]
    fn whole_episodes_follow_each_other_until_they_are_enough() {
        let mut film = Film::default();
        film.add(&step(false, false, 9)).unwrap(); // amid an episode whose start nobody saw
        film.add(&step(false, true, 9)).unwrap();
        assert!(film.take().is_empty());
        for (first, last, pixel) in [(true, false, 1), (false, true, 2), (true, true, 3), (true, false, 4)] {
            film.add(&step(first, last, pixel)).unwrap();
        }
        let videos = film.take();
        assert_eq!(videos.keys().collect::<Vec<_>>(), ["policy_image", "policy_log/image"]);
        assert_eq!(video(&videos, "policy_image"), [1, 1, 1, 2, 2, 2, 3, 3, 3]);
        assert_eq!(video(&videos, "policy_log/image"), [1, 1, 2, 2, 3, 3]);
        film.add(&step(false, true, 5)).unwrap(); // the end of an episode that was cut by `take`
        assert!(film.take().is_empty());
        film.add(&step(true, false, 6)).unwrap(); // one that does not end
        assert_eq!(video(&film.take(), "policy_image"), [6, 6, 6]);
        for i in 0..3 * ENOUGH {
            film.add(&step(i % 100 == 0, i % 100 == 99, 0)).unwrap();
        }
        assert_eq!(video(&film.take(), "policy_image").len(), 3 * 300);
    }
}
