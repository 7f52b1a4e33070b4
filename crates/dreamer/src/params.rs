//! Named parameters: how they are initialised, looked up and handed to the layers.

use engine::{Buffer, Device, Leaf, Rng, Tensor, par_items};
use std::sync::Arc;

/// Index of a parameter in its [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

/// Parameters in the order of their creation, under their official names. Cloning shares the values.
#[derive(Clone, Default)]
pub struct Params {
    names: Arc<Vec<String>>,
    values: Vec<Tensor>,
}

impl Params {
    pub fn get(&self, id: Id) -> &Tensor {
        &self.values[id.0]
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }

    pub fn values_mut(&mut self) -> &mut [Tensor] {
        &mut self.values
    }

    /// Where the parameters are. All are in one place.
    pub fn device(&self) -> Device {
        self.values.first().map_or(Device::Cpu, Tensor::device)
    }

    /// The same parameters on `device`.
    pub fn to(&self, device: Device) -> Params {
        let values = self.values.iter().map(|x| x.to(device).leaf_of(x)).collect();
        Params { names: self.names.clone(), values }
    }

    /// Other values under the same names, without gradients.
    pub fn map(&self, f: impl Fn(&str, &Tensor) -> Tensor) -> Params {
        Params { names: self.names.clone(), values: self.iter().map(|(name, x)| f(name, x)).collect() }
    }

    /// The same values without gradients.
    pub fn frozen(&self) -> Params {
        self.map(|_, x| x.detach())
    }

    /// Drops packed copies: see [`Tensor::forget_packed`].
    pub fn forget_packed(&self) {
        self.values.iter().for_each(Tensor::forget_packed);
    }

    /// Leaves and shapes in order, as the engine's sink wants them.
    pub fn leaves(&self) -> Vec<(Leaf, Vec<usize>)> {
        let leaf = |x: &Tensor| (x.as_leaf().expect("trainable parameters are leaves"), x.shape().to_vec());
        self.values.iter().map(leaf).collect()
    }

    /// Elements of all parameters whose name starts with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, x)| x.len()).sum()
    }

    fn push(&mut self, name: String, value: Tensor) -> Id {
        let id = self.values.len();
        Arc::make_mut(&mut self.names).push(name);
        self.values.push(value.leaf(Leaf::new()));
        Id(id)
    }
}

/// Creates parameters under a name prefix. The draws of a parameter depend on the seed and its number alone.
pub struct Builder<'a> {
    params: &'a mut Params,
    prefix: String,
    seed: u64,
}

/// Random stream of parameter initialisation.
const INIT_STREAM: u32 = 0;

impl<'a> Builder<'a> {
    pub fn new(params: &'a mut Params, seed: u64) -> Self {
        Builder { params, prefix: String::new(), seed }
    }

    /// A builder for the parts below `name`.
    pub fn scope(&mut self, name: &str) -> Builder<'_> {
        let prefix = format!("{}{name}/", self.prefix);
        Builder { params: self.params, prefix, seed: self.seed }
    }

    pub fn constant(&mut self, name: &str, shape: &[usize], value: f32) -> Id {
        self.params.push(format!("{}{name}", self.prefix), Tensor::full(shape, value))
    }

    /// A weight drawn by the official `Initializer` named `winit` (`trunc_normal_in`, `uniform_avg`, ...), times `outscale`.
    pub fn kernel(&mut self, name: &str, shape: &[usize], winit: &str, outscale: f32) -> Id {
        let mut values = Buffer::zeros(shape.iter().product());
        let rng = Rng::new(self.seed, INIT_STREAM, self.params.len() as u64);
        initialise(&rng, winit, shape, &mut values);
        values.iter_mut().for_each(|x| *x *= outscale);
        self.params.push(format!("{}{name}", self.prefix), Tensor::new(shape, values))
    }
}

/// The distributions and fans of official nets.py, `Initializer`.
pub const INITIALIZERS: [&str; 5] = ["trunc_normal", "normal", "uniform", "normed", "zeros"];

/// Splits `trunc_normal_in` into distribution and fan.
pub fn split_winit(winit: &str) -> (&str, &str) {
    match winit.rsplit_once('_') {
        Some((dist, fan @ ("in" | "out" | "avg"))) => (dist, fan),
        _ => (winit, "in"),
    }
}

fn initialise(rng: &Rng, winit: &str, shape: &[usize], out: &mut [f32]) {
    let (dist, fan) = split_winit(winit);
    let (fan_in, fan_out) = fans(shape);
    let fan = match fan {
        "out" => fan_out,
        "avg" => (fan_in + fan_out) / 2.0,
        _ => fan_in,
    };
    let scale = (1.0 / fan).sqrt() as f32;
    match dist {
        "zeros" => out.fill(0.0),
        "uniform" => {
            rng.uniform(0, out);
            out.iter_mut().for_each(|x| *x = (2.0 * *x - 1.0) * scale);
        }
        "normal" => {
            rng.normal(0, out);
            out.iter_mut().for_each(|x| *x *= scale);
        }
        "normed" => {
            rng.uniform(0, out);
            out.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
            normalise_columns(out, shape[shape.len() - 1]);
        }
        _ => {
            truncated_normal(rng, out);
            // The factor makes the variance of the truncated distribution one.
            out.iter_mut().for_each(|x| *x *= 1.1368 * scale);
        }
    }
}

/// Divides each output column by its norm.
fn normalise_columns(out: &mut [f32], columns: usize) {
    for j in 0..columns {
        let norm = out.iter().skip(j).step_by(columns).map(|x| x * x).sum::<f32>().sqrt();
        out.iter_mut().skip(j).step_by(columns).for_each(|x| *x /= norm);
    }
}

/// Fan in and out of a kernel [.., in, out]; leading axes are space (or blocks, as in the official code).
fn fans(shape: &[usize]) -> (f64, f64) {
    match shape {
        [] => (1.0, 1.0),
        [n] => (1.0, *n as f64),
        [space @ .., i, o] => {
            let space: usize = space.iter().product();
            ((i * space) as f64, (o * space) as f64)
        }
    }
}

/// Standard normal numbers within [-2, 2], by rejection: draw `k` of element `i` has the index `k * len + i`, so that
/// pieces can be drawn side by side.
fn truncated_normal(rng: &Rng, out: &mut [f32]) {
    const PIECE: usize = 1 << 14;
    let len = out.len() as u64;
    let work = 100 * out.len(); // what a number costs in multiply-adds, about
    par_items(out.chunks_mut(PIECE), work, |piece, out| {
        let start = (piece * PIECE) as u64;
        rng.normal(start, out);
        for (i, x) in out.iter_mut().enumerate() {
            let mut index = start + i as u64;
            while x.abs() > 2.0 {
                index += len;
                rng.normal(index, std::slice::from_mut(x));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_depend_on_how_they_are_drawn() {
        let rng = Rng::new(3, INIT_STREAM, 5);
        let mut all = vec![0.0; 40_000]; // several pieces, the last one shorter
        truncated_normal(&rng, &mut all);
        for (i, &x) in all.iter().enumerate() {
            let draw = |k: u64| {
                let mut x = [0.0];
                rng.normal(k * 40_000 + i as u64, &mut x);
                x[0]
            };
            assert_eq!(Some(x), (0..).map(draw).find(|x| x.abs() <= 2.0), "number {i}");
        }
    }

    #[test]
    fn kernels_have_the_official_spread() {
        let mut params = Params::default();
        let mut builder = Builder::new(&mut params, 3);
        let id = builder.scope("dyn").kernel("dynhid0/kernel", &[8, 40, 50], "trunc_normal_in", 0.5);
        let x = params.get(id).data();
        let std = (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32).sqrt();
        // A block-linear layer's fan in is its full input width.
        let expected = 0.5 * (1.0f32 / 320.0).sqrt();
        assert!((std / expected - 1.0).abs() < 0.03, "{std} {expected}");
        assert!(x.iter().all(|v| v.abs() <= 2.0 * 1.1368 * expected * 1.0001));
        assert!(params.iter().any(|(name, _)| name == "dyn/dynhid0/kernel"));
    }
}
