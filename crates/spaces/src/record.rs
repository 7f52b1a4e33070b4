//! Records with and without a leading axis: one environment's step, and the batch that an agent takes.

use crate::{Array, Record, Spaces};

/// Joins records of the same keys, dtypes and shapes along a new leading axis: `stack([&obs])` is a batch of one. No
/// records make an empty one. Panics where they differ.
pub fn stack<'a>(rows: impl IntoIterator<Item = &'a Record>) -> Record {
    let rows: Vec<&Record> = rows.into_iter().collect();
    let Some(first) = rows.first() else { return Record::new() };
    assert!(rows.iter().all(|row| row.len() == first.len()), "stacked records must have the same keys");
    first.keys().map(|key| (key.clone(), Array::stack(rows.iter().map(|row| &row[key])))).collect()
}

/// Element `i` of the leading axis of every value, without that axis.
pub fn row(batch: &Record, i: usize) -> Record {
    batch.iter().map(|(key, value)| (key.clone(), value.at(i))).collect()
}

/// Zeros for every key.
pub fn zeros(spaces: &Spaces) -> Record {
    spaces.iter().map(|(key, space)| (key.clone(), space.zeros())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Space;

    #[test]
    fn rows_come_back_out_of_a_stack() {
        let spaces = Spaces::from_iter([("a".to_string(), Space::float(&[2])), ("b".to_string(), Space::boolean())]);
        let mut other = zeros(&spaces);
        other.insert("a".into(), Array::from_f32(&[2], vec![1.0, 2.0]));
        let batch = stack([&zeros(&spaces), &other]);
        assert_eq!((&batch["a"].shape[..], &batch["b"].shape[..]), (&[2, 2][..], &[2][..]));
        assert_eq!([row(&batch, 0), row(&batch, 1)], [zeros(&spaces), other]);
        assert!(stack([]).is_empty());
    }

    #[test]
    #[should_panic(expected = "the same keys")]
    fn records_of_different_keys_do_not_stack() {
        let [one, two] = [1, 2].map(|n| (0..n).map(|i| (i.to_string(), Array::f32(0.0))).collect::<Record>());
        stack([&one, &two]);
    }
}
