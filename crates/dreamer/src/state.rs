//! Saving and loading: every tensor of the agent under its official name.

use crate::agent::Agent;
use anyhow::{Context, Result, bail, ensure};
use engine::Tensor;
use regex::Regex;
use spaces::{Array, Record};

/// Every tensor of the agent by its official name: parameters, slow value, normalisers, optimizer.
pub type State = Record;

/// One entry of the state: a tensor, a float or a counter.
enum Entry<'a> {
    Tensor(&'a mut Tensor),
    /// One number of a tensor.
    Number(&'a mut Tensor, usize),
    Count(&'a mut u64),
}

impl Agent {
    /// The agent's tensors, copied to the processor. Of a [`snapshot`](Agent::snapshot) only those of acting are
    /// useful.
    pub fn save(&self) -> State {
        let mut copy = self.clone(); // shares the tensors
        let mut state = State::new();
        copy.entries(|name, entry| {
            let array = match entry {
                Entry::Tensor(x) => Array::from_f32(x.shape(), x.host().data().to_vec()),
                Entry::Number(x, at) => Array::from_f32(&[1], vec![x.host().data()[at]]),
                Entry::Count(x) => Array::from_i32(&[1], vec![*x as i32]),
            };
            state.insert(name.to_string(), array);
            Ok(())
        })
        .expect("nothing above fails");
        state
    }

    /// Takes over the tensors of `state` whose names match `regex` (all of them where it is `None`).
    /// An error names what is missing or of another shape; the agent is then unchanged.
    pub fn load(&mut self, state: &State, regex: Option<&str>) -> Result<()> {
        ensure!(!self.is_snapshot(), "a snapshot of an agent cannot be loaded into; load the agent itself");
        // Anchored at the start, as in the official code: `enc/` must not match the optimizer's `opt/state/1/1/enc/`.
        let pattern = Regex::new(&format!("^(?:{})", regex.unwrap_or("")))
            .with_context(|| format!("'{}' is not a regular expression", regex.unwrap_or("")))?;
        let mut loaded = self.clone();
        let mut count = 0;
        loaded.entries(|name, entry| {
            if !pattern.is_match(name) {
                return Ok(());
            }
            count += 1;
            let Some(array) = state.get(name) else {
                bail!("the checkpoint lacks '{name}'; it may be of another task or configuration")
            };
            if !array.is_finite() {
                bail!("'{name}' holds NaN or infinity in the checkpoint; take another one");
            }
            read_entry(name, array, entry)
        })?;
        if count == 0 {
            bail!("no tensor of the agent matches the regular expression '{}'", regex.unwrap_or(""));
        }
        // It is the same agent as before, with the same replay.
        loaded.on_gpu.kept = std::mem::take(&mut self.on_gpu.kept);
        loaded.on_gpu.followers = std::mem::take(&mut self.on_gpu.followers);
        *self = loaded;
        self.refresh_followers();
        Ok(())
    }

    /// Visits every part of the state by name.
    fn entries(&mut self, mut visit: impl FnMut(&str, Entry) -> Result<()>) -> Result<()> {
        let names: Vec<String> = self.params.iter().map(|(name, _)| name.to_string()).collect();
        let slow: Vec<String> = self.slow.iter().map(|(name, _)| name.to_string()).collect();
        for (name, x) in names.iter().zip(self.params.values_mut()) {
            visit(name, Entry::Tensor(x))?;
        }
        for (name, x) in slow.iter().zip(self.slow.values_mut()) {
            visit(name, Entry::Tensor(x))?;
        }
        visit("slowval_count/value", Entry::Count(&mut self.slow_count))?;
        let norms = &mut self.norms;
        for (key, norm) in [("retnorm", &mut norms.ret), ("valnorm", &mut norms.val), ("advnorm", &mut norms.adv)] {
            for (part, at) in norm.names() {
                visit(&format!("{key}/{part}/value"), Entry::Number(&mut norm.state, at))?;
            }
        }
        for (name, x) in names.iter().zip(&mut self.opt.rms) {
            visit(&format!("opt/state/1/1/{name}"), Entry::Tensor(x))?;
        }
        for (name, x) in names.iter().zip(&mut self.opt.momentum) {
            visit(&format!("opt/state/2/1/{name}"), Entry::Tensor(x))?;
        }
        visit("opt/step/value", Entry::Count(&mut self.opt.step))
    }
}

fn read_entry(name: &str, array: &Array, entry: Entry) -> Result<()> {
    match entry {
        Entry::Tensor(x) => {
            if array.shape != x.shape() {
                bail!("'{name}' has shape {:?} in the checkpoint and {:?} in this agent", array.shape, x.shape());
            }
            *x = Tensor::from_slice(x.shape(), &array.to_f32()).to(x.device()).leaf_of(x);
        }
        Entry::Number(x, at) if array.len() == 1 => {
            let mut values = x.host();
            values.make_mut()[at] = array.item();
            *x = values.to(x.device());
        }
        Entry::Count(x) if array.len() == 1 => *x = array.to_i32()[0] as u32 as u64,
        _ => bail!("'{name}' has {} elements in the checkpoint where one was expected", array.len()),
    }
    Ok(())
}
