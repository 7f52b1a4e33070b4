//! `Space`: dtype, shape and bounds of one observation or action key.

use crate::{Array, Data};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Element type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    Bool,
    U8,
    I32,
    F16,
    F32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::F16 => 2,
            DType::I32 | DType::F32 => 4,
        }
    }

    /// The name that numpy and the official configuration use.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "uint8",
            DType::I32 => "int32",
            DType::F16 => "float16",
            DType::F32 => "float32",
        }
    }
}

/// The set of values that a key may take: `shape` elements of `dtype`, each in `[low, high]`
/// for floats and in `low..high` for integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Space {
    pub dtype: DType,
    pub shape: Vec<usize>,
    #[serde(serialize_with = "bound", deserialize_with = "low")]
    pub low: f64,
    #[serde(serialize_with = "bound", deserialize_with = "high")]
    pub high: f64,
}

/// An infinite bound as null: JSON has no infinity.
fn bound<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
    x.is_finite().then_some(*x).serialize(s)
}

fn low<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or(f64::NEG_INFINITY))
}

fn high<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or(f64::INFINITY))
}

impl Space {
    /// Unbounded floats.
    pub fn float(shape: &[usize]) -> Self {
        Self::bounded(shape, f64::NEG_INFINITY, f64::INFINITY)
    }

    /// Floats within `[low, high]`.
    pub fn bounded(shape: &[usize], low: f64, high: f64) -> Self {
        Space { dtype: DType::F32, shape: shape.to_vec(), low, high }
    }

    /// A uint8 picture of `[height, width, channels]`.
    pub fn image(height: usize, width: usize, channels: usize) -> Self {
        Space { dtype: DType::U8, shape: vec![height, width, channels], low: 0.0, high: 256.0 }
    }

    /// Integers `0..classes`, `shape` of them (an empty shape is a single choice).
    pub fn discrete(shape: &[usize], classes: usize) -> Self {
        Space { dtype: DType::I32, shape: shape.to_vec(), low: 0.0, high: classes as f64 }
    }

    /// One yes or no.
    pub fn boolean() -> Self {
        Space { dtype: DType::Bool, shape: vec![], low: 0.0, high: 2.0 }
    }

    /// Integers and booleans are discrete: the agent sees them one-hot.
    pub fn is_discrete(&self) -> bool {
        matches!(self.dtype, DType::Bool | DType::U8 | DType::I32)
    }

    /// Rank-3 uint8: the agent sees it through convolutions.
    pub fn is_image(&self) -> bool {
        self.dtype == DType::U8 && self.shape.len() == 3
    }

    /// Number of classes of a discrete space.
    pub fn classes(&self) -> usize {
        debug_assert!(self.is_discrete());
        (self.high - self.low) as usize
    }

    /// Elements of one value.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Width of one value as the agent's input: one-hot for discrete keys.
    pub fn width(&self) -> usize {
        self.size() * if self.is_discrete() { self.classes() } else { 1 }
    }

    /// A value of zeros (the lowest class for discrete keys).
    pub fn zeros(&self) -> Array {
        Array::zeros(self.dtype, &self.shape)
    }

    /// Maps an agent's `action` to this space. A continuous one is clipped to `[-1, 1]` and scaled to the bounds if
    /// these are finite; a discrete one stays as it is. The result has the shape of `action`.
    pub fn from_policy(&self, action: &Array) -> Array {
        let (Data::F32(xs), DType::F32) = (&action.data, self.dtype) else { return action.clone() };
        let (low, high) = match self.low.is_finite() && self.high.is_finite() {
            true => (inner(self.low, 1.0), inner(self.high, -1.0)),
            false => (-1.0, 1.0),
        };
        // In float64, as the sum may otherwise round to beyond a bound.
        let scale = |x: f64| ((1.0 - x) / 2.0 * low + (1.0 + x) / 2.0 * high) as f32;
        Array::from_f32(&action.shape, xs.iter().map(|&x| scale(x.clamp(-1.0, 1.0) as f64)).collect())
    }

    /// Checks that `value` has this dtype and shape and lies within the bounds; the error is a sentence.
    pub fn check(&self, key: &str, value: &Array) -> Result<(), String> {
        if value.dtype() != self.dtype || value.shape != self.shape {
            return Err(format!(
                "key '{key}' holds {} {:?} where its space says {} {:?}",
                value.dtype().name(),
                value.shape,
                self.dtype.name(),
                self.shape
            ));
        }
        let outside = |x: &f64| !x.is_finite() || !(self.low..=self.high).contains(x);
        let bad = match &value.data {
            Data::F32(xs) => {
                // The bounds as the values have them: 0.3 in single precision is above 0.3.
                let (low, high) = (self.low as f32, self.high as f32);
                let outside = |x: &&f32| !x.is_finite() || !(low..=high).contains(*x);
                xs.iter().find(outside).map(|&x| x as f64)
            }
            Data::F16(xs) => xs.iter().map(|x| x.to_f64()).find(outside),
            Data::I32(xs) => xs.iter().map(|&x| x as f64).find(|x| !(self.low..self.high).contains(x)),
            Data::U8(xs) => xs.iter().map(|&x| x as f64).find(|x| !(self.low..self.high).contains(x)),
            Data::Bool(_) => None,
        };
        match bad {
            Some(x) if !x.is_finite() => Err(format!("key '{key}' holds {x}, which is no finite number")),
            Some(x) => {
                let whole = matches!(self.dtype, DType::I32 | DType::U8);
                let high = if whole { self.high - 1.0 } else { self.high };
                Err(format!("key '{key}' holds {x}, outside its bounds {} to {high}", self.low))
            }
            None => Ok(()),
        }
    }
}

/// The float32 nearest to a bound that does not lie beyond it; `inwards` is the sign of the direction inside.
fn inner(bound: f64, inwards: f64) -> f64 {
    let x = bound as f32;
    let beyond = (x as f64 - bound) * inwards < 0.0;
    (if !beyond {
        x
    } else if inwards > 0.0 {
        x.next_up()
    } else {
        x.next_down()
    }) as f64
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype.name(), self.shape)?;
        if self.is_image() || self.dtype == DType::Bool {
            Ok(())
        } else if self.is_discrete() {
            write!(f, " of {} classes", self.classes())
        } else if self.low.is_finite() || self.high.is_finite() {
            write!(f, " in [{}, {}]", self.low, self.high)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_the_precision_of_the_values() {
        let space = Space { low: -0.3, high: 0.3, ..Space::float(&[2]) };
        let check = |low: f32, high: f32| space.check("x", &Array::from_f32(&[2], vec![low, high]));
        assert_eq!(check(-0.3, 0.3), Ok(()));
        assert!(check(0.0, 0.300_001).is_err() && check(f32::NEG_INFINITY, 0.0).is_err());
    }

    #[test]
    fn a_space_is_the_same_after_json_has_carried_it() {
        let half = Space { low: -0.1, ..Space::float(&[3]) };
        for space in
            [half, Space::float(&[]), Space::bounded(&[2], -1e-9, 0.3), Space::image(2, 3, 1), Space::boolean()]
        {
            let text = serde_json::to_string(&space).unwrap();
            assert_eq!(serde_json::from_str::<Space>(&text).unwrap(), space, "{text}");
        }
    }

    #[test]
    fn what_a_policy_says_becomes_an_action_of_the_space() {
        let said = Array::from_f32(&[1, 5], vec![-7.0, -1.0, 0.0, 0.5, 7.0]);
        let meant = |space: Space| space.from_policy(&said);
        let expected = Array::from_f32(&[1, 5], vec![-2.0, -2.0, 1.0, 2.5, 4.0]);
        assert_eq!(meant(Space::bounded(&[5], -2.0, 4.0)), expected);
        let cut = Array::from_f32(&[1, 5], vec![-1.0, -1.0, 0.0, 0.5, 1.0]);
        assert_eq!(meant(Space::float(&[5])), cut);
        let choice = Array::from_i32(&[1], vec![2]);
        assert_eq!(Space::discrete(&[], 3).from_policy(&choice), choice);
    }
}
