//! `Film`: what the first environment shows in whole episodes, as videos.

use crate::log::{Agg, Metrics};
use anyhow::Result;
use envs::record::flag;
use spaces::{Array, Data, Record};

/// Once a film has this many frames, no further episode is begun.
const ENOUGH: usize = 256;
/// Most bytes of images kept of an episode; later ones are left out. A film with as many begins no further episode.
const BYTES: usize = 64 << 20;

/// The images of whole episodes, one after the other until the film has [`ENOUGH`] frames. It is part of no checkpoint:
/// after a resume it begins with the next episode.
#[derive(Default)]
pub struct Film {
    /// The running episode, if it was seen from its first step on.
    running: Option<Episode>,
    whole: Agg,
    frames: usize,
    bytes: usize,
}

#[derive(Default)]
struct Episode {
    images: Agg,
    frames: usize,
    bytes: usize,
}

impl Film {
    /// Takes in a step of all environments: of the first one its uint8 images `[H, W, C]`, C 1 or 3. Their names get the
    /// prefix `policy_`, as in the official code.
    pub fn add(&mut self, steps: &[Record]) -> Result<()> {
        let Some(step) = steps.first() else { return Ok(()) };
        if flag(step, "is_first")? {
            self.running = (self.frames < ENOUGH && self.bytes < BYTES).then(Episode::default);
        }
        let Some(episode) = &mut self.running else { return Ok(()) };
        for (key, value) in step {
            if let Some(frame) = frame(value).filter(|_| episode.bytes < BYTES) {
                episode.bytes += frame.len();
                episode.images.add_video(&format!("policy_{key}"), &frame);
            }
        }
        episode.frames += 1;
        if flag(step, "is_last")? {
            self.frames += episode.frames;
            self.bytes += episode.bytes;
            self.whole.add_metrics(&episode.images.result(), "");
            self.running = None;
        }
        Ok(())
    }

    /// The videos of the episodes that have ended since the last call, by key.
    pub fn take(&mut self) -> Metrics {
        (self.frames, self.bytes) = (0, 0);
        self.whole.result()
    }

    /// The same at the end of a run; if no episode has ended, the video of the running one.
    pub fn finish(mut self) -> Metrics {
        if self.whole.is_empty()
            && let Some(mut episode) = self.running.take()
        {
            return episode.images.result();
        }
        self.take()
    }
}

/// An image as a video `[1, H, W, C]`.
fn frame(value: &Array) -> Option<Array> {
    match (&value.data, &value.shape[..]) {
        (Data::U8(pixels), &[h, w, c @ (1 | 3)]) => Some(Array::from_u8(&[1, h, w, c], pixels.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Value;

    fn step(first: bool, last: bool, pixel: u8) -> [Record; 1] {
        [Record::from([
            ("is_first".to_string(), Array::bool(first)),
            ("is_last".to_string(), Array::bool(last)),
            ("image".to_string(), Array::from_u8(&[1, 1, 3], vec![pixel; 3])),
            ("log/image".to_string(), Array::from_u8(&[1, 2, 1], vec![pixel; 2])),
            ("stack".to_string(), Array::from_u8(&[1, 1, 4], vec![pixel; 4])),
        ])]
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
        // An episode that goes on while videos are taken stays whole.
        assert!(film.take().is_empty());
        film.add(&step(false, true, 5)).unwrap();
        assert_eq!(video(&film.take(), "policy_log/image"), [4, 4, 5, 5]);
        for i in 0..3 * ENOUGH {
            film.add(&step(i % 100 == 0, i % 100 == 99, 0)).unwrap();
        }
        assert_eq!(video(&film.take(), "policy_image").len(), 3 * 300);
    }

    #[test]
    fn the_end_has_the_running_episode_only_if_none_has_ended() {
        for ended in [false, true] {
            let mut film = Film::default();
            film.add(&step(true, ended, 1)).unwrap();
            film.add(&step(ended, false, 2)).unwrap();
            let expected: &[u8] = if ended { &[1; 3] } else { &[1, 1, 1, 2, 2, 2] };
            assert_eq!(video(&film.finish(), "policy_image"), expected);
        }
    }

    #[test]
    fn a_large_episode_is_cut() {
        let (mut film, side) = (Film::default(), 4096);
        for i in 0..4 {
            let mut steps = step(i == 0, i == 3, 0);
            steps[0].insert("image".into(), Array::from_u8(&[side, side, 3], vec![0; 3 * side * side]));
            film.add(&steps).unwrap();
        }
        assert_eq!(video(&film.take(), "policy_image").len(), 2 * 3 * side * side);
    }
}
