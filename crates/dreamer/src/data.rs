//! From records to tensors: observations, actions, latents.

use crate::batch::Layout;
use anyhow::{Result, anyhow, bail};
use engine::Tensor;
use engine::ops::{concat_last, symlog};
use spaces::{Array, Data, Record, Space, Spaces};

/// Keys that every environment has and that the agent neither encodes nor decodes.
pub const FLAGS: [&str; 4] = ["is_first", "is_last", "is_terminal", "reward"];

/// The observation keys that the agent encodes and decodes, in the environment's order.
pub fn encoded_space(obs_space: &Spaces) -> Spaces {
    let encoded = |key: &str| !FLAGS.contains(&key) && !spaces::is_log(key);
    obs_space.iter().filter(|(k, _)| encoded(k)).map(|(k, s)| (k.clone(), s.clone())).collect()
}

/// A named array of the record with its leading axes checked.
pub fn fetch<'a>(record: &'a Record, key: &str, lead: &[usize], tail: &[usize]) -> Result<&'a Array> {
    let array = record.get(key).ok_or_else(|| anyhow!("the batch lacks the key '{key}'"))?;
    let expected = [lead, tail].concat();
    if array.shape != expected {
        bail!("key '{key}' has shape {:?} in the batch where {expected:?} was expected", array.shape);
    }
    Ok(array)
}

/// Sub-steps `from..` of an array [B, L, ...] -> [B, L - from, ...], copied once: images are large.
pub fn skip_steps(array: &Array, from: usize) -> Array {
    if from == 0 {
        return array.clone();
    }
    let (b, steps) = (array.shape[0], array.shape[1]);
    let step: usize = array.shape[2..].iter().product();
    fn cut<T: Copy>(xs: &[T], row: usize, skip: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(xs.len());
        xs.chunks_exact(row.max(1)).for_each(|row| out.extend_from_slice(&row[skip..]));
        out
    }
    let (row, skip) = (steps * step, from * step);
    let data = match &array.data {
        Data::Bool(xs) => Data::Bool(cut(xs, row, skip)),
        Data::U8(xs) => Data::U8(cut(xs, row, skip)),
        Data::I32(xs) => Data::I32(cut(xs, row, skip)),
        Data::F16(xs) => Data::F16(cut(xs, row, skip)),
        Data::F32(xs) => Data::F32(cut(xs, row, skip)),
    };
    let mut shape = array.shape.clone();
    (shape[0], shape[1]) = (b, steps - from);
    Array::new(&shape, data)
}

/// Vector keys as the networks see them: sorted, floats squashed where `squash`, discrete values one-hot, values that
/// are not available (-inf or -1) zero: [rows, sum of widths]; none without keys. `record` has `rows` values of each.
pub fn vectors<'a>(
    keys: impl Iterator<Item = (&'a String, &'a Space)>,
    record: &Record,
    rows: usize,
    squash: bool,
) -> Option<Tensor> {
    let mut keys: Vec<(&String, &Space)> = keys.collect();
    keys.sort_by_key(|(name, _)| *name);
    let parts: Vec<Tensor> = keys.iter().map(|(key, space)| vector(&record[*key], space, rows, squash)).collect();
    (!parts.is_empty()).then(|| concat_last(&parts.iter().collect::<Vec<_>>()))
}

fn vector(array: &Array, space: &Space, rows: usize, squash: bool) -> Tensor {
    let size = space.size();
    if !space.is_discrete() {
        let mut xs = array.to_f32();
        for row in xs.chunks_exact_mut(size.max(1)) {
            if row.contains(&f32::NEG_INFINITY) {
                row.fill(0.0);
            } else if squash {
                row.iter_mut().for_each(|x| *x = symlog(*x));
            }
        }
        return Tensor::from_slice(&[rows, size], &xs);
    }
    let classes = space.classes();
    let mut out = vec![0.0; rows * size * classes];
    let signed = matches!(array.data, Data::I32(_));
    for (row, xs) in out.chunks_exact_mut((size * classes).max(1)).zip(array.to_i32().chunks_exact(size.max(1))) {
        if signed && xs.contains(&-1) {
            continue;
        }
        for (hot, &x) in row.chunks_exact_mut(classes).zip(xs) {
            if (0..classes as i32).contains(&x) {
                hot[x as usize] = 1.0;
            }
        }
    }
    Tensor::from_slice(&[rows, size * classes], &out)
}

/// Looks up a step's stored stoch, one-hot [S*C]; the record has it as class indices [S] or one-hot floats [S, C].
pub fn stored_stoch<'a>(
    record: &'a Record,
    b: usize,
    steps: usize,
    l: &'a Layout,
) -> Result<impl Fn(usize) -> Vec<f32> + 'a> {
    let r = l.rssm();
    let indices = record.get("dyn/stoch").is_some_and(|a| a.shape.len() == 3);
    let tail: &[usize] = if indices { &[r.stoch] } else { &[r.stoch, r.classes] };
    let array = fetch(record, "dyn/stoch", &[b, steps], tail)?;
    let width = tail.iter().product::<usize>();
    Ok(move |at: usize| {
        let row = array.floats(at * width..(at + 1) * width);
        if !indices {
            return row;
        }
        let mut hot = vec![0.0; r.stoch * r.classes];
        for (group, &class) in hot.chunks_exact_mut(r.classes).zip(&row) {
            group[(class as usize).min(r.classes - 1)] = 1.0;
        }
        hot
    })
}

/// Embedded actions taken before each of the steps from K on [B, T, A]; zeros where that is before the batch.
pub fn previous_actions(record: &Record, b: usize, steps: usize, l: &Layout) -> Result<Tensor> {
    for (key, space) in &l.act_space {
        fetch(record, key, &[b, steps], &space.shape)?;
    }
    let all =
        vectors(l.act_space.iter(), record, b * steps, false).ok_or_else(|| anyhow!("the action space is empty"))?;
    let (width, t) = (all.width(), steps - l.context());
    let mut out = Vec::with_capacity(b * t * width);
    for row in 0..b {
        if l.context() == 0 {
            out.resize(out.len() + width, 0.0);
        }
        let first = l.context().saturating_sub(1);
        let span = (row * steps + first) * width..((row + 1) * steps - 1) * width;
        out.extend_from_slice(&all.data()[span]);
    }
    Ok(Tensor::from_slice(&[b, t, width], &out))
}

/// The embedded action of the last step of each sequence [B, A], to carry over.
pub fn last_actions(record: &Record, b: usize, l: &Layout) -> Result<Tensor> {
    let mut last = Record::new();
    for key in l.act_space.keys() {
        let array = record.get(key).ok_or_else(|| anyhow!("the batch lacks the key '{key}'"))?;
        let steps = array.shape[1];
        let rows: Vec<Array> = (0..b).map(|row| array.at(row).at(steps - 1)).collect();
        last.insert(key.clone(), Array::stack(&rows));
    }
    vectors(l.act_space.iter(), &last, b, false).ok_or_else(|| anyhow!("the action space is empty"))
}
