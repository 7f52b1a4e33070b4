//! The randomness of sampling: counter-based draws, or noise handed in to reproduce other numbers.

use engine::ops::{self, Draw, DrawnRows};
use engine::{Buffer, Device, Rng, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;

/// Random streams below a purpose's first: one for each kind of draw, and one for each action key.
const POSTERIOR: u32 = 0;
const PRIOR: u32 = 1;
const ACTION: u32 = 2;

/// What draws are for. Each has streams of its own; the first thousand are those of parameter initialisation.
#[derive(Clone, Copy)]
pub enum Purpose {
    Act = 1000,
    Train = 2000,
    Report = 3000,
    Eval = 4000,
}

/// Where the draws of one call come from.
#[derive(Clone)]
pub enum Noise {
    /// Draws keyed by (seed, step), independent of threads and of one another. A GPU reads the low 32 bits of the step
    /// from `step_at` [1] where it is given (`engine::Rng::with_step_at`).
    Counter { seed: u64, purpose: Purpose, step: u64, step_at: Option<Tensor> },
    #[cfg_attr(not(test), allow(dead_code))] // how the golden test reproduces official numbers
    Injected(Injected),
}

/// Noise with the names and shapes of the golden files: Gumbel for latents and discrete actions, normal for
/// continuous ones. `act` is by action key.
#[derive(Clone, Default)]
pub struct Injected {
    /// [B, T, S*C] for the posterior.
    pub obs: Option<Tensor>,
    /// [N, H, S*C] for imagined latents.
    pub img: Option<Tensor>,
    /// [N, H + 1, ...] flattened to [N, H + 1, width].
    pub act: BTreeMap<String, Tensor>,
}

/// One step's draws for some rows: Gumbel [rows, groups * classes] or uniform [rows, groups].
pub enum Drawn {
    Gumbel(Tensor),
    Uniform(Tensor),
}

impl Drawn {
    pub fn draw(&self) -> Draw<'_> {
        match self {
            Drawn::Gumbel(x) => Draw::Gumbel(x),
            Drawn::Uniform(x) => Draw::Uniform(x),
        }
    }
}

/// Which rows of which step, out of how many steps, and where their draws are wanted.
#[derive(Clone)]
pub struct At {
    pub rows: Range<usize>,
    pub step: usize,
    pub steps: usize,
    pub device: Device,
}

impl At {
    fn drawn(&self, width: usize) -> DrawnRows {
        DrawnRows { rows: self.rows.clone(), step: self.step, steps: self.steps, width }
    }
}

impl Noise {
    /// For posterior latents: `groups` categoricals a row.
    pub fn posterior(&self, at: &At, groups: usize) -> Drawn {
        match self {
            Noise::Injected(n) => Drawn::Gumbel(slice(n.obs.as_ref().expect("posterior noise was injected"), at)),
            counter => Drawn::Uniform(uniform(&counter.rng(POSTERIOR), at, groups)),
        }
    }

    /// For imagined latents.
    pub fn prior(&self, at: &At, groups: usize) -> Drawn {
        match self {
            Noise::Injected(n) => Drawn::Gumbel(slice(n.img.as_ref().expect("prior noise was injected"), at)),
            counter => Drawn::Uniform(uniform(&counter.rng(PRIOR), at, groups)),
        }
    }

    /// For action key number `index`: `groups` choices a row.
    pub fn discrete(&self, key: &str, index: usize, at: &At, groups: usize) -> Drawn {
        match self {
            Noise::Injected(n) => Drawn::Gumbel(slice(&n.act[key], at)),
            counter => Drawn::Uniform(uniform(&counter.rng(ACTION + index as u32), at, groups)),
        }
    }

    /// Standard normal numbers [rows, width] for action key number `index`.
    pub fn normal(&self, key: &str, index: usize, at: &At, width: usize) -> Tensor {
        match self {
            Noise::Injected(n) => slice(&n.act[key], at),
            counter => ops::standard_normal(&counter.rng(ACTION + index as u32), &at.drawn(width), at.device),
        }
    }

    /// The draws of one kind.
    fn rng(&self, kind: u32) -> Rng {
        let Noise::Counter { seed, purpose, step, step_at } = self else { unreachable!("injected noise is not drawn") };
        let rng = Rng::new(*seed, *purpose as u32 + kind, *step);
        step_at.as_ref().map_or(rng.clone(), |at| rng.with_step_at(at))
    }
}

fn uniform(rng: &Rng, at: &At, width: usize) -> Tensor {
    ops::uniform(rng, &at.drawn(width), at.device)
}

/// Rows of one step of x [N, T, ...] as [rows, width].
fn slice(x: &Tensor, at: &At) -> Tensor {
    let steps = x.dim(1);
    let width = x.len() / (x.dim(0) * steps).max(1);
    let mut out = Buffer::stale(at.rows.len() * width);
    for (row, to) in at.rows.clone().zip(out.chunks_exact_mut(width.max(1))) {
        to.copy_from_slice(&x.data()[(row * steps + at.step) * width..][..width]);
    }
    Tensor::new(&[at.rows.len(), width], out).to(at.device)
}
