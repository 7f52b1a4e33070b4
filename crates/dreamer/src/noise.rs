//! The randomness of sampling: counter-based draws, or injected noise that reproduces given numbers.

use engine::ops::{Draw, DrawnRows, NormalDraw};
use engine::{Buffer, Device, Rng, Tensor};
use std::collections::BTreeMap;
use std::ops::Range;

/// Random streams, counted from a purpose's first: one for each kind of draw, and one for each action key.
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
    /// from `step_at` [1] where it is given (`engine::Rng::with_step_at`). With several GPUs of equally many rows,
    /// number `part` draws for the rows that follow those of the parts before it.
    Counter { seed: u64, purpose: Purpose, step: u64, step_at: Option<Tensor>, part: usize },
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

/// One step's draws for some rows: given numbers, or how to draw them.
pub enum Drawn {
    /// Gumbel [rows, groups * classes], or standard normal [rows, width].
    Given(Tensor),
    Counter(Rng, DrawnRows),
}

impl Drawn {
    /// For categoricals.
    pub fn draw(&self) -> Draw<'_> {
        match self {
            Drawn::Given(x) => Draw::Gumbel(x),
            Drawn::Counter(rng, at) => Draw::Counter(rng, at),
        }
    }

    /// For normal distributions.
    pub fn normal(&self) -> NormalDraw<'_> {
        match self {
            Drawn::Given(x) => NormalDraw::Given(x),
            Drawn::Counter(rng, at) => NormalDraw::Counter(rng, at),
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
    /// The same, with the low 32 bits of the step read from `at` [1] where a GPU draws.
    pub fn with_step_at(self, at: &Tensor) -> Noise {
        match self {
            Noise::Counter { seed, purpose, step, part, .. } => {
                Noise::Counter { seed, purpose, step, step_at: Some(at.clone()), part }
            }
            injected => injected,
        }
    }

    /// For posterior latents: `groups` categoricals a row.
    pub fn posterior(&self, at: &At, groups: usize) -> Drawn {
        match self {
            Noise::Injected(n) => Drawn::Given(slice(n.obs.as_ref().expect("posterior noise was injected"), at)),
            counter => counter.drawn(POSTERIOR, at, groups),
        }
    }

    /// The same for all `steps` of `rows` sequences at once, [rows, steps, ..].
    pub fn posterior_steps(&self, rows: usize, steps: usize, groups: usize, device: Device) -> Drawn {
        match self {
            Noise::Injected(n) => Drawn::Given(n.obs.as_ref().expect("posterior noise was injected").to(device)),
            // Row r of step t draws the same numbers as row r steps + t of a single step.
            counter => counter.posterior(&At { rows: 0..rows * steps, step: 0, steps: 1, device }, groups),
        }
    }

    /// For imagined latents.
    pub fn prior(&self, at: &At, groups: usize) -> Drawn {
        match self {
            Noise::Injected(n) => Drawn::Given(slice(n.img.as_ref().expect("prior noise was injected"), at)),
            counter => counter.drawn(PRIOR, at, groups),
        }
    }

    /// For action key number `index`: `width` choices or normal numbers a row.
    pub fn action(&self, key: &str, index: usize, at: &At, width: usize) -> Drawn {
        match self {
            Noise::Injected(n) => Drawn::Given(slice(&n.act[key], at)),
            counter => counter.drawn(ACTION + index as u32, at, width),
        }
    }

    fn drawn(&self, kind: u32, at: &At, width: usize) -> Drawn {
        let mut drawn = at.drawn(width);
        if let Noise::Counter { part: part @ 1.., .. } = self {
            let rows = drawn.rows.len();
            assert_eq!(drawn.rows.start, 0, "a GPU takes all rows of its part at once");
            drawn.rows = part * rows..(part + 1) * rows;
        }
        Drawn::Counter(self.rng(kind), drawn)
    }

    /// The draws of one kind.
    fn rng(&self, kind: u32) -> Rng {
        let Noise::Counter { seed, purpose, step, step_at, .. } = self else {
            unreachable!("injected noise is not drawn")
        };
        let rng = Rng::new(*seed, *purpose as u32 + kind, *step);
        step_at.as_ref().map_or(rng.clone(), |at| rng.with_step_at(at))
    }
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
