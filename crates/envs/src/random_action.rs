//! `random_action`: what a random policy does.

use crate::Rng;
use half::f16;
use spaces::{Array, DType, Data, Record, Space, Spaces};

/// One random value for each key of an action space, `reset` false. Discrete keys are uniform
/// over their classes, bounded floats uniform within their bounds, and floats without bounds
/// uniform in `[-1, 1]`.
pub fn random_action(space: &Spaces, rng: &mut Rng) -> Record {
    let value = |(key, space): (&String, &Space)| match key.as_str() {
        "reset" => (key.clone(), Array::bool(false)),
        _ => (key.clone(), sample(space, rng)),
    };
    space.iter().map(value).collect()
}

fn sample(space: &Space, rng: &mut Rng) -> Array {
    let n = space.size();
    let data = if space.is_discrete() {
        let classes: Vec<i32> = (0..n).map(|_| space.low as i32 + rng.below(space.classes()) as i32).collect();
        match space.dtype {
            DType::Bool => Data::Bool(classes.iter().map(|&x| x != 0).collect()),
            DType::U8 => Data::U8(classes.iter().map(|&x| x as u8).collect()),
            _ => Data::I32(classes),
        }
    } else {
        let finite = space.low.is_finite() && space.high.is_finite();
        let (low, high) = if finite { (space.low, space.high) } else { (-1.0, 1.0) };
        let floats = (0..n).map(|_| low + rng.uniform() * (high - low));
        match space.dtype {
            DType::F16 => Data::F16(floats.map(f16::from_f64).collect()),
            _ => Data::F32(floats.map(|x| x as f32).collect()),
        }
    };
    Array::new(&space.shape, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_lie_in_their_space_and_reach_every_class() {
        let space = Spaces::from_iter([
            ("choice".to_string(), Space::discrete(&[2, 2], 3)),
            ("flag".to_string(), Space::boolean()),
            ("force".to_string(), Space::bounded(&[3], -2.0, 0.5)),
            ("free".to_string(), Space::float(&[])),
            ("reset".to_string(), Space::boolean()),
        ]);
        let mut rng = Rng::new(3, 0);
        let mut seen = [0; 3];
        for _ in 0..200 {
            let action = random_action(&space, &mut rng);
            assert!(action.keys().eq(["choice", "flag", "force", "free", "reset"]));
            for (key, value) in &action {
                space[key].check(key, value).unwrap();
            }
            assert_eq!(action["reset"], Array::bool(false));
            action["choice"].to_i32().iter().for_each(|&class| seen[class as usize] += 1);
        }
        assert!(seen.iter().all(|&n| n > 200), "{seen:?}");
    }
}
