//! Metrics and how they are gathered between two log lines: averages, sums, extremes, rates.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use spaces::{Array, DType, Data};
use std::time::Instant;

/// One measured thing.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(f64),
    /// uint8 of `[time, height, width, channels]`, 1 or 3 channels.
    Video(Array),
}

/// Named values in the order in which they were added.
pub type Metrics = IndexMap<String, Value>;

/// Adds a scalar to `metrics`.
pub fn insert_scalar(metrics: &mut Metrics, key: impl Into<String>, x: impl Into<f64>) {
    metrics.insert(key.into(), Value::Scalar(x.into()));
}

/// How the values of one key become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    Avg,
    Sum,
    Max,
}

impl How {
    /// The last part of a key that is aggregated in several ways: `log/success/max`.
    pub fn name(self) -> &'static str {
        match self {
            How::Avg => "avg",
            How::Sum => "sum",
            How::Max => "max",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reducer {
    how: How,
    #[serde(with = "bits")]
    x: f64,
    count: u64,
}

impl Reducer {
    /// Takes in one more value. As in the official code, NaN is passed over.
    fn update(&mut self, x: f64) {
        if x.is_nan() {
            return;
        }
        if self.x.is_nan() {
            self.x = x;
            return;
        }
        self.x = match self.how {
            How::Avg | How::Sum => self.x + x,
            How::Max => self.x.max(x),
        };
        self.count += 1;
    }

    fn current(&self) -> f64 {
        if self.how == How::Avg { self.x / self.count as f64 } else { self.x }
    }
}

/// Frames that [`Agg`] keeps of one video key; more are dropped until the next result.
const MAX_FRAMES: usize = 1024;

/// Gathers metrics until a result is asked for. The first way of aggregating a key holds until then.
/// Serializes exactly (scalars only), so that a resumed run can go on where it was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Agg {
    reducers: IndexMap<String, Reducer>,
    #[serde(skip)]
    videos: IndexMap<String, Array>,
}

impl Agg {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.reducers.is_empty() && self.videos.is_empty()
    }

    /// Takes in one value of `key`.
    pub fn add(&mut self, key: &str, x: f64, how: How) {
        match self.reducers.get_mut(key) {
            Some(reducer) => reducer.update(x),
            None => drop(self.reducers.insert(key.to_string(), Reducer { how, x, count: 1 })),
        }
    }

    /// Takes in one value under `key/avg`, `key/max` and so on.
    pub fn add_each(&mut self, key: &str, x: f64, hows: &[How]) {
        for &how in hows {
            self.add(&format!("{key}/{}", how.name()), x, how);
        }
    }

    /// Appends frames `[T, H, W, C]` to a video; frames of another size start it anew.
    pub fn add_video(&mut self, key: &str, video: &Array) {
        match self.videos.get_mut(key) {
            Some(old) if old.shape[1..] == video.shape[1..] => append(old, video),
            _ => drop(self.videos.insert(key.to_string(), video.clone())),
        }
    }

    /// Takes in every value: scalars by their mean, videos one after the other in time.
    pub fn add_metrics(&mut self, metrics: &Metrics, prefix: &str) {
        for (key, value) in metrics {
            let key = join(prefix, key);
            match value {
                Value::Scalar(x) => self.add(&key, *x, How::Avg),
                Value::Video(video) => self.add_video(&key, video),
            }
        }
    }

    /// What was gathered since the last result, in the order of first appearance; starts anew.
    pub fn result(&mut self) -> Metrics {
        let scalars = std::mem::take(&mut self.reducers).into_iter().map(|(k, r)| (k, Value::Scalar(r.current())));
        let videos = std::mem::take(&mut self.videos).into_iter().map(|(k, v)| (k, Value::Video(v)));
        scalars.chain(videos).collect()
    }
}

/// `prefix/key`, or `key` where the prefix is empty.
pub fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_string() } else { format!("{prefix}/{key}") }
}

fn append(video: &mut Array, more: &Array) {
    let room = MAX_FRAMES.saturating_sub(video.shape[0]).min(more.shape[0]);
    if let (DType::U8, Data::U8(old), Data::U8(new)) = (more.dtype(), &mut video.data, &more.rows(0..room).data) {
        old.extend_from_slice(new);
        video.shape[0] += room;
    }
}

/// Counts events and tells how many a second there were since the last result.
pub struct Fps {
    start: Instant,
    total: u64,
}

impl Default for Fps {
    fn default() -> Self {
        Fps { start: Instant::now(), total: 0 }
    }
}

impl Fps {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn step(&mut self, amount: u64) {
        self.total += amount;
    }

    /// Events a second since the last result; starts anew.
    pub fn result(&mut self) -> f64 {
        let old = std::mem::take(self);
        old.total as f64 / old.start.elapsed().as_secs_f64().max(1e-9)
    }
}

/// Floats as their bits, since JSON rounds some and has neither NaN nor infinity.
mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(x.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        u64::deserialize(d).map(f64::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(metrics: &Metrics, key: &str) -> f64 {
        match metrics[key] {
            Value::Scalar(x) => x,
            Value::Video(_) => panic!("{key} is a video"),
        }
    }

    /// The names and numbers of the official episode statistics.
    #[test]
    fn episode_statistics() {
        let mut epstats = Agg::new();
        for rewards in [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]] {
            let mut episode = Agg::new();
            for r in rewards {
                episode.add("score", r, How::Sum);
                episode.add_each("log/success", r, &[How::Avg, How::Max, How::Sum]);
            }
            epstats.add_metrics(&episode.result(), "epstats");
            assert!(episode.is_empty());
        }
        let result = epstats.result();
        let keys: Vec<_> = result.keys().map(String::as_str).collect();
        let names = ["score", "log/success/avg", "log/success/max", "log/success/sum"];
        assert_eq!(keys, names.map(|n| format!("epstats/{n}")));
        assert_eq!(scalar(&result, "epstats/score"), 2.0);
        assert_eq!(scalar(&result, "epstats/log/success/avg"), (1.0 / 3.0 + 1.0) / 2.0);
        assert_eq!(scalar(&result, "epstats/log/success/max"), 1.0);
    }

    #[test]
    fn nan_is_passed_over_and_state_survives_json() {
        let mut agg = Agg::new();
        for x in [f64::NAN, 0.1, f64::NAN, 0.3] {
            agg.add("a", x, How::Avg);
            agg.add("b", x, How::Max);
        }
        agg.add("c", f64::INFINITY, How::Max);
        let mut back: Agg = serde_json::from_str(&serde_json::to_string(&agg).unwrap()).unwrap();
        agg.add("a", 0.7, How::Avg);
        back.add("a", 0.7, How::Avg);
        let result = agg.result();
        assert_eq!(result, back.result());
        assert_eq!(scalar(&result, "a"), (0.1 + 0.3 + 0.7) / 3.0);
        assert_eq!(scalar(&result, "b"), 0.3);
        assert_eq!(scalar(&result, "c"), f64::INFINITY);
    }

    #[test]
    fn videos_are_joined_in_time() {
        let mut agg = Agg::new();
        agg.add_video("v", &Array::from_u8(&[2, 1, 1, 1], vec![1, 2]));
        agg.add_video("v", &Array::from_u8(&[1, 1, 1, 1], vec![3]));
        assert_eq!(agg.result()["v"], Value::Video(Array::from_u8(&[3, 1, 1, 1], vec![1, 2, 3])));
    }

    #[test]
    fn rates_start_anew() {
        let mut fps = Fps::new();
        fps.step(5);
        assert!(fps.result() > 0.0);
        assert_eq!(fps.result(), 0.0);
    }
}
