//! `report`: metrics and open-loop videos on a batch, without an update (official agent.py, `report`).

use crate::agent::Agent;
use crate::batch::Batch;
use crate::data;
use crate::loss::Learner;
use crate::noise::{Noise, Purpose};
use crate::transfer::Transfer;
use crate::{Carry, Metrics};
use anyhow::{Result, ensure};
use engine::ops;
use engine::{Sink, Tensor, backward};
use spaces::{Array, Record};
use std::collections::BTreeMap;

/// What [`Agent::report`] returns: metrics, and videos uint8 [T, H, W, C] by name (`openloop/KEY`).
pub struct Reported {
    pub metrics: Metrics,
    pub videos: BTreeMap<String, Array>,
}

/// Sequences shown side by side.
const COLUMNS: usize = 6;
/// Pixels of the border, whose colour tells observed from imagined steps, and black steps at the end.
const BORDER: usize = 2;
const PAUSE: usize = 10;

impl Agent {
    /// Metrics and open-loop videos on a batch, without an update: the first half of each sequence is observed, the rest
    /// imagined from its actions. Truth, prediction and error stand above one another. `record` is as for `train`: each
    /// value [B, K + T, ...] with K steps of context.
    pub fn report(&self, carry: &mut Carry, record: &Record) -> Result<Reported> {
        if !self.config().report {
            return Ok(Reported { metrics: Metrics::new(), videos: BTreeMap::new() });
        }
        ensure!(!self.is_snapshot(), "a snapshot of an agent has no report; ask the agent itself");
        let noise = Noise::Counter {
            seed: self.config().seed,
            purpose: Purpose::Report,
            step: carry.step,
            step_at: None,
            part: 0,
        };
        carry.check(self)?;
        let batch = Batch::new(record, carry, &self.layout)?.to(self.device());
        // Nothing is kept for gradients: on a GPU there may be no room for that beside the recorded update.
        let frozen = self.params.frozen();
        let mut out = Learner { params: &frozen, ..self.learner(&noise, false) }.loss(&batch)?;
        let mut metrics = std::mem::take(&mut out.metrics).read();
        if self.config().report_gradnorms {
            let names: Vec<String> = out.losses.iter().map(|(name, _)| name.clone()).collect();
            self.gradient_norms(&batch, &noise, &names, &mut metrics)?;
        }
        let videos = self.open_loop(&batch, &out.tokens, &noise);
        carry.latent = out.observed.last();
        carry.prevact = data::last_actions(record, batch.b, &self.layout)?.to(self.device());
        carry.step += 1;
        Ok(Reported { metrics, videos })
    }

    /// The norm of the gradient of each loss alone.
    fn gradient_norms(&self, batch: &Batch, noise: &Noise, names: &[String], metrics: &mut Metrics) -> Result<()> {
        for (i, name) in names.iter().enumerate() {
            let out = self.loss(batch, noise, false)?;
            let mut sink = Sink::new();
            let total = ops::weighted_mean(&[(&out.losses[i].1, 1.0)]);
            backward(&[(&total, ops::full(&[], 1.0, total.device()))], &mut sink);
            let grads = sink.finish(&self.params.leaves());
            let square = |g: &Tensor| g.host().data().iter().map(|&x| (x as f64).powi(2)).sum::<f64>();
            let sum: f64 = grads.iter().map(square).sum();
            metrics.insert(format!("gradnorm/{name}"), sum.sqrt() as f32);
        }
        Ok(())
    }

    fn open_loop(&self, batch: &Batch, tokens: &Tensor, noise: &Noise) -> BTreeMap<String, Array> {
        let (n, half) = (batch.b.min(COLUMNS), batch.t / 2);
        if half == 0 || !self.obs_space().values().any(|s| s.is_image()) {
            return BTreeMap::new();
        }
        let p = self.params.frozen();
        let part = |x: &Tensor, from: usize, to: usize| {
            ops::stack_time(&ops::unstack_time(&ops::rows(&x.detach(), 0..n))[from..to])
        };
        let start = batch.start.map(|x| ops::rows(x, 0..n));
        let [tokens, actions, keep] = [tokens, &batch.prevact, &batch.keep].map(|x| part(x, 0, half));
        let seen = self.parts.dyn_.observe(&p, &start, &tokens, &actions, &keep, noise);
        let (deter, stoch) = self.parts.dyn_.predict(&p, &seen.last(), &part(&batch.prevact, half, batch.t), noise);
        let join = |a: &Tensor, b: &Tensor| {
            let steps: Vec<Tensor> = ops::unstack_time(a).into_iter().chain(ops::unstack_time(b)).collect();
            let x = ops::stack_time(&steps);
            ops::reshape(&x, &[n * batch.t, x.dim(2)])
        };
        let images = self.parts.dec.images(&p, &join(&seen.deter, &deter), &join(&seen.stoch, &stoch));
        images
            .into_iter()
            .map(|(key, pred)| {
                let truth = batch.obs.pixels(&key).host();
                let video = video(&truth, &self.obs_space()[&key].shape, &pred.host(), n, batch.t, half);
                (format!("openloop/{key}"), video)
            })
            .collect()
    }
}

/// A video [T + pause, 3 H + 2 border, n (W + 2 border), 3] of the truth [B, T, H, W, C] uint8, `shape` [H, W, C], and
/// the prediction [n*T, H, W, C] in [0, 1].
fn video(truth: &[u8], shape: &[usize], pred: &Tensor, n: usize, t: usize, half: usize) -> Array {
    let &[h, w, c] = shape else { unreachable!("image keys have three axes") };
    let (tile_h, tile_w) = (3 * h + 2 * BORDER, w + 2 * BORDER);
    let (height, width) = (tile_h, n * tile_w);
    let mut out = vec![0u8; (t + PAUSE) * height * width * 3];
    for step in 0..t {
        let border = if step < half { [0, 255, 0] } else { [255, 0, 0] };
        for column in 0..n {
            for y in 0..tile_h {
                for x in 0..tile_w {
                    let inside = (BORDER..tile_h - BORDER).contains(&y) && (BORDER..tile_w - BORDER).contains(&x);
                    let pixel = if inside {
                        let (row, y, x) = ((y - BORDER) / h, (y - BORDER) % h, x - BORDER);
                        let at = (((column * t + step) * h + y) * w + x) * c;
                        colour(row, &truth[at..at + c], &pred.data()[at..at + c])
                    } else {
                        border
                    };
                    let to = ((step * height + y) * width + column * tile_w + x) * 3;
                    out[to..to + 3].copy_from_slice(&pixel);
                }
            }
        }
    }
    Array::from_u8(&[t + PAUSE, height, width, 3], out)
}

/// One pixel of the truth (row 0), the prediction (1) or the error around grey (2); other than three channels as grey.
fn colour(row: usize, truth: &[u8], pred: &[f32]) -> [u8; 3] {
    let channel = |i: usize| {
        let i = if truth.len() == 3 { i } else { 0 };
        let guess = (pred[i] * 255.0).clamp(0.0, 255.0) as u8;
        match row {
            0 => truth[i],
            1 => guess,
            _ => ((guess as i32 - truth[i] as i32 + 255) / 2) as u8,
        }
    };
    [channel(0), channel(1), channel(2)]
}
