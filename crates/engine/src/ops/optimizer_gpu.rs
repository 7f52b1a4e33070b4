//! The optimizer step on a GPU: all tensors in two launches (kernels/optimizer.cu).

use super::optimizer::{OptimizerStep, PARAM_NORM_MIN, Rule, Slot};
use crate::cuda::{Arg, Gpu, Grid, Table};
use crate::tensor::{Dtype, Tensor};

/// Tensors of one launch, and numbers that one block of threads takes, as in the kernels.
const TENSORS: usize = 88;
pub(super) const SLICE: usize = 8192;
/// Pairs of one launch of moving averages, and numbers of a block.
const PAIRS: usize = 160;
const BLOCK: usize = 1024;

/// One tensor as the kernels see it: parameter, gradient, moments; a watched tensor takes the gradient's place.
struct Row {
    addresses: [u64; 4],
    len: usize,
    decay: f32,
}

impl Row {
    fn slices(&self) -> usize {
        self.len.div_ceil(SLICE).max(1)
    }
}

/// Some rows as a kernel's argument, with the number of their slices; the kernel reads or writes `each` bytes for every number.
fn table(rows: &[Row], each: usize) -> (Table, usize) {
    let mut table = Table::default();
    table.moves(rows.iter().map(|row| each * row.len).sum());
    for column in 0..4 {
        table.addresses(TENSORS, rows.iter().map(|row| row.addresses[column]));
    }
    table.numbers(TENSORS, rows.iter().map(|row| row.len));
    let end = table.ends(TENSORS, rows.iter().map(Row::slices));
    table.floats(TENSORS, rows.iter().map(|row| row.decay));
    (table, end)
}

/// Updates all slots, unless a number of their gradients or of `watched` is not finite. Returns the verdict [4].
pub(super) fn launch(
    gpu: &'static Gpu,
    slots: &mut [Slot],
    watched: &[&Tensor],
    step: OptimizerStep,
    varying: &Tensor,
) -> Tensor {
    for slot in slots.iter_mut() {
        for x in [&mut *slot.param, &mut *slot.grad, &mut *slot.rms, &mut *slot.momentum] {
            x.unshare();
        }
    }
    let looked_at: Vec<Tensor> = watched.iter().map(|x| gpu.full(x)).collect();
    let looked_at = looked_at.iter().map(|x| Row { addresses: [0, x.address(), 0, 0], len: x.len(), decay: 0.0 });
    let slot = |s: &Slot| {
        let all = [&*s.param, &*s.grad, &*s.rms, &*s.momentum];
        assert!(all.iter().all(|x| x.dtype() == Dtype::F32 && x.len() == s.param.len()));
        Row { addresses: all.map(Tensor::address), len: s.param.len(), decay: s.decay }
    };
    let rows: Vec<Row> = looked_at.chain(slots.iter().map(slot)).collect();
    let slices = rows.iter().map(Row::slices).sum::<usize>();
    let sums = gpu.empty(&[slices, 4]); // two float64 a slice
    let (squares, clips, verdict) = (gpu.empty(&[rows.len(), 2]), gpu.empty(&[rows.len()]), gpu.empty(&[4]));
    let counters = gpu.counters(rows.len() + 1);
    let (mut tensor0, mut slice0) = (0, 0);
    for some in rows.chunks(TENSORS) {
        let (table, slices) = table(some, 8); // parameter and gradient
        #[rustfmt::skip] // tensors and where they begin; constants; results
        let args: [&dyn Arg; 10] = [
            &table, &some.len(), &tensor0, &slice0, &step.agc, &PARAM_NORM_MIN, &sums, &squares, &clips, &counters,
        ];
        gpu.launch("optimizer", "norms", Grid::blocks(slices, 256), &args);
        (tensor0, slice0) = (tensor0 + some.len(), slice0 + slices);
    }
    let rule = Rule::new(step, 1.0, 0.0);
    let nesterov = rule.nesterov as u32;
    let (mut tensor0, mut slice0, all) = (watched.len(), 0, rows.len());
    for some in rows[tensor0..].chunks(TENSORS) {
        let (table, slices) = table(some, 32); // reads and writes all four
        let last = tensor0 + some.len() == all;
        let total = if last { slice0 + slices } else { 0 };
        #[rustfmt::skip] // tensors and where they begin; constants; sums and results
        let args: [&dyn Arg; 18] = [
            &table, &some.len(), &tensor0, &slice0, &all, &total,
            varying, &rule.eps, &rule.beta1, &rule.beta2, &rule.new1, &rule.new2, &nesterov,
            &squares, &clips, &sums, &counters, &verdict,
        ];
        gpu.launch("optimizer", "update", Grid::blocks(slices, 256), &args);
        (tensor0, slice0) = (tensor0 + some.len(), slice0 + slices);
    }
    verdict
}

/// `target = mix source + (1 - mix) target` for all pairs, unless `verdict` says that the update was not done.
pub(super) fn ema_all(gpu: &'static Gpu, pairs: &mut [(&Tensor, &mut Tensor)], mix: f32, verdict: Option<&Tensor>) {
    pairs.iter_mut().for_each(|(_, target)| target.unshare());
    let pairs: Vec<(&Tensor, &Tensor)> = pairs.iter().map(|(source, target)| (*source, &**target)).collect();
    mix_all(gpu, &pairs, mix, verdict);
}

/// The same in the targets' memory, which others may share.
pub(super) fn mix_all(gpu: &'static Gpu, pairs: &[(&Tensor, &Tensor)], mix: f32, verdict: Option<&Tensor>) {
    for some in pairs.chunks(PAIRS) {
        let mut table = Table::default();
        table.addresses(PAIRS, some.iter().map(|(source, _)| source.address()));
        table.addresses(PAIRS, some.iter().map(|(_, target)| target.address()));
        table.numbers(PAIRS, some.iter().map(|(source, _)| source.len()));
        table.moves(some.iter().map(|(source, _)| 12 * source.len()).sum());
        let blocks = table.ends(PAIRS, some.iter().map(|(source, _)| source.len().div_ceil(BLOCK)));
        gpu.launch("optimizer", "ema", Grid::blocks(blocks, 256), &[&table, &some.len(), &mix, &verdict]);
    }
}
