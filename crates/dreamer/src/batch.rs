//! `Batch`: what an update computes on, cut from a record of the replay; `Prepared`: one that is ready, or on its way to a
//! GPU.

use crate::Carry;
use crate::config::{AgentConfig, Rssm};
use crate::data::{fetch, last_actions, previous_actions, skip_steps, stored_stoch};
use crate::observations::Observations;
use crate::rssm::Latent;
use crate::transfer::{Map, Transfer};
use anyhow::{Result, anyhow, bail, ensure};
use engine::cuda::{Frames, Images, StepId, Upload};
use engine::{Device, Tensor};
use spaces::{Array, Data, Record, STEPID, Spaces};
use std::sync::{Arc, Mutex};

/// A training batch with the replay context taken off: B sequences of T steps.
pub struct Batch {
    pub b: usize,
    pub t: usize,
    pub obs: Observations,
    /// [B, T] floats of 0 and 1; `keep` is 0 where an episode starts.
    pub keep: Tensor,
    pub is_last: Tensor,
    pub is_terminal: Tensor,
    pub reward: Tensor,
    /// The state before the first step.
    pub start: Latent,
    /// Embedded previous actions [B, T, A].
    pub prevact: Tensor,
}

/// What an agent was built for, by which batches are cut.
#[derive(Clone)]
pub struct Layout {
    pub config: AgentConfig,
    /// Without metrics and `reset`.
    pub obs_space: Spaces,
    pub act_space: Spaces,
}

impl Layout {
    /// Steps K of a sequence before the first trained one.
    pub fn context(&self) -> usize {
        self.config.replay_context
    }

    pub fn rssm(&self) -> &Rssm {
        &self.config.dynamics.rssm
    }
}

impl Batch {
    /// Cuts `record` [B, K + T, ...], on the processor. Rows whose `consec` is 0 start from the latents stored at step K - 1,
    /// others from what `carry` has; previous actions are those of the step before (official agent.py,
    /// `_apply_replay_context`).
    pub fn new(record: &Record, carry: &Carry, l: &Layout) -> Result<Batch> {
        let mut batch = Batch::without_carry(record, l)?;
        batch.take_over(carry, &carried_rows(record, l)?, l)?;
        Ok(batch)
    }

    /// The same with zeros in place of what is carried.
    fn without_carry(record: &Record, l: &Layout) -> Result<Batch> {
        let flags = record.get("is_first").ok_or_else(|| anyhow!("the batch lacks the key 'is_first'"))?;
        let &[b, steps] = flags.shape.as_slice() else {
            bail!("key 'is_first' has shape {:?} in the batch where [B, T] was expected", flags.shape)
        };
        let k = l.context();
        if b == 0 {
            bail!("the batch holds no sequences");
        }
        if steps <= k {
            bail!("the batch has {steps} steps, which leaves nothing after a replay_context of {k}");
        }
        let t = steps - k;
        let float = |key: &str| -> Result<Tensor> {
            let array = skip_steps(fetch(record, key, &[b, steps], &[])?, k);
            Ok(Tensor::from_slice(&[b, t], &array.to_f32()))
        };
        let obs = Observations::new(&l.obs_space, &l.config, b * t, true, |key, space| {
            Ok(skip_steps(fetch(record, key, &[b, steps], &space.shape)?, k))
        })?;
        let keep: Vec<f32> =
            skip_steps(flags, k).to_bool().iter().map(|&first| if first { 0.0 } else { 1.0 }).collect();
        Ok(Batch {
            b,
            t,
            obs,
            keep: Tensor::from_slice(&[b, t], &keep),
            is_last: float("is_last")?,
            is_terminal: float("is_terminal")?,
            reward: float("reward")?,
            start: stored_latents(record, b, steps, l)?,
            prevact: previous_actions(record, b, steps, l)?,
        })
    }

    /// Starts `rows` from `carry`. Waits for a GPU where there are such rows.
    fn take_over(&mut self, carry: &Carry, rows: &[usize], l: &Layout) -> Result<()> {
        if carry.len() != self.b {
            bail!("the carry has {} sequences and the batch {}", carry.len(), self.b);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let copy = |from: &Tensor, to: &mut Tensor, stride: usize| {
            let (from, width) = (from.host(), from.width());
            let to = to.make_mut();
            rows.iter().for_each(|&row| {
                to[row * stride..row * stride + width].copy_from_slice(&from.data()[row * width..(row + 1) * width]);
            });
        };
        copy(&carry.latent.deter, &mut self.start.deter, l.rssm().deter);
        copy(&carry.latent.stoch, &mut self.start.stoch, l.rssm().stoch * l.rssm().classes);
        if l.context() == 0 {
            let stride = self.t * self.prevact.width();
            copy(&carry.prevact, &mut self.prevact, stride);
        }
        Ok(())
    }
}

/// Images of the replay that stay on an agent's GPU, if any do, shared with its preparers. A clone of the agent starts
/// without them, as it may be trained from another replay.
#[derive(Default)]
pub(crate) struct Kept(pub Option<Arc<Mutex<Frames>>>);

impl Clone for Kept {
    fn clone(&self) -> Kept {
        Kept::default()
    }
}

impl Batch {
    /// Sends the batch to a GPU, without the images that it keeps already, found by the steps' `ids` [B, T, 20].
    fn send_with(&self, device: Device, kept: Option<&Mutex<Frames>>, ids: Option<&Array>) -> Option<Upload> {
        let (Some(kept), Some(Data::U8(ids))) = (kept, ids.map(|ids| &ids.data)) else { return self.send(device) };
        let Ok(mut frames) = kept.lock() else { return self.send(device) }; // after a panic the contents are unknown
        let bytes = self.bytes();
        let pixels: Vec<_> = bytes.iter().map(|(at, x)| (*at, x.host())).collect();
        let images: Vec<Images> = pixels.iter().map(|(at, pixels)| Images { at: *at, pixels }).collect();
        let ids: &[StepId] = ids.as_chunks().0;
        Some(frames.send(self.size(), &images, ids, |out| self.write_tensors(out)))
    }
}

impl Transfer for Batch {
    fn map(&self, f: &mut impl Map) -> Batch {
        let obs = self.obs.map(f);
        let [keep, is_last, is_terminal, reward, prevact] =
            [&self.keep, &self.is_last, &self.is_terminal, &self.reward, &self.prevact].map(|x| f.tensor(x));
        let start = Latent { deter: f.tensor(&self.start.deter), stoch: f.tensor(&self.start.stoch) };
        Batch { b: self.b, t: self.t, obs, keep, is_last, is_terminal, reward, start, prevact }
    }
}

/// The rows that do not start from stored latents: all of them where none are stored; none where they have no `consec`,
/// as batches that follow no other.
fn carried_rows(record: &Record, l: &Layout) -> Result<Vec<usize>> {
    let flags = record.get("is_first").ok_or_else(|| anyhow!("the batch lacks the key 'is_first'"))?;
    let (b, steps) = (flags.shape[0], flags.shape[1]);
    if l.context() == 0 {
        return Ok((0..b).collect());
    }
    if !record.contains_key("consec") {
        return Ok(vec![]);
    }
    let consec = fetch(record, "consec", &[b, steps], &[])?.to_i32();
    Ok((0..b).filter(|row| consec[row * steps] != 0).collect())
}

/// The states before step K, stored in the replay; zeros where none are.
fn stored_latents(record: &Record, b: usize, steps: usize, l: &Layout) -> Result<Latent> {
    let r = l.rssm();
    let latent = r.stoch * r.classes;
    if l.context() == 0 {
        return Ok(Latent { deter: Tensor::zeros(&[b, r.deter]), stoch: Tensor::zeros(&[b, latent]) });
    }
    let deter = fetch(record, "dyn/deter", &[b, steps], &[r.deter])?;
    let stoch = stored_stoch(record, b, steps, l)?;
    let (mut d, mut s) = (Vec::with_capacity(b * r.deter), Vec::with_capacity(b * latent));
    for at in (0..b).map(|row| row * steps + l.context() - 1) {
        d.extend(deter.floats(at * r.deter..(at + 1) * r.deter));
        s.extend(stoch(at));
    }
    Ok(Latent { deter: Tensor::from_slice(&[b, r.deter], &d), stoch: Tensor::from_slice(&[b, latent], &s) })
}

/// Cuts batches for an agent, in any thread; see [`Agent::preparer`](crate::Agent::preparer).
#[derive(Clone)]
pub struct Preparer {
    pub(crate) layout: Arc<Layout>,
    /// The device of each part of a batch (a single device takes all of it), and the images kept there.
    pub(crate) devices: Vec<(Device, Option<Arc<Mutex<Frames>>>)>,
}

/// A batch that is ready for [`Agent::train_prepared`](crate::Agent::train_prepared).
pub struct Prepared {
    record: Record,
    pub(crate) batch: Batch,
    /// On its way to a GPU, unless something carried is still missing.
    pub(crate) upload: Option<Upload>,
    carried: Vec<usize>,
    /// The embedded last action of each sequence [B, A], to carry over.
    pub(crate) last: Tensor,
    /// Ids of the trained steps [B, T, 20], where latents are written back.
    pub(crate) ids: Option<Array>,
    /// The parts of the other GPUs. The fields above are the first one's part, except the record, which is whole.
    pub(crate) others: Vec<Prepared>,
}

impl Preparer {
    /// Cuts a record [B, K + T, ...] as the replay delivers it, and starts to copy it to the agent's GPU, or a part to
    /// each of its GPUs.
    pub fn prepare(&self, record: Record) -> Result<Prepared> {
        let parts = self.devices.len();
        if parts == 1 {
            return self.prepare_for(&self.devices[0], record);
        }
        let sequences = record.get("is_first").and_then(|flags| flags.shape.first().copied()).unwrap_or(0);
        ensure!(
            sequences > 0 && sequences.is_multiple_of(parts),
            "a batch of {sequences} sequences cannot be divided among {parts} GPUs; choose a multiple as batch_size"
        );
        let rows = sequences / parts;
        let part = |(i, device)| {
            let record = record.iter().map(|(key, x)| (key.clone(), x.rows(i * rows..(i + 1) * rows))).collect();
            self.prepare_for(device, record)
        };
        let mut all = self.devices.iter().enumerate().map(part).collect::<Result<Vec<Prepared>>>()?;
        ensure!(
            all.iter().all(|part| part.carried.is_empty()),
            "several GPUs cannot carry states from batch to batch; use consec_train 1 and a replay_context of at least 1"
        );
        let mut first = all.remove(0);
        (first.record, first.others) = (record, all);
        Ok(first)
    }

    fn prepare_for(&self, (device, kept): &(Device, Option<Arc<Mutex<Frames>>>), record: Record) -> Result<Prepared> {
        let (l, context) = (&*self.layout, self.layout.context());
        let batch = Batch::without_carry(&record, l)?;
        let carried = carried_rows(&record, l)?;
        let ids = match record.get("stepid") {
            Some(_) if context > 0 => {
                Some(skip_steps(fetch(&record, "stepid", &[batch.b, batch.t + context], &[STEPID])?, context))
            }
            None if context > 0 => bail!("the batch lacks the key 'stepid', by which fresh latents are written back"),
            _ => None,
        };
        let send = || batch.send_with(*device, kept.as_deref(), ids.as_ref());
        let upload = if carried.is_empty() { send() } else { None };
        let last = last_actions(&record, batch.b, l)?;
        Ok(Prepared { record, batch, upload, carried, last, ids, others: vec![] })
    }
}

impl Prepared {
    /// What it was cut from.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Fills in what is carried. Waits for a GPU if anything is.
    pub(crate) fn complete(&mut self, carry: &Carry, l: &Layout) -> Result<()> {
        self.batch.take_over(carry, &self.carried, l)
    }
}
