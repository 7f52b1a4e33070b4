//! The actor's loss: REINFORCE with an entropy bonus.

use super::{linear_combination, multiply, scale_shift};
use crate::cuda::{Arg, Gpu, Grid, Table};
use crate::graph::{record1, recording};
use crate::tensor::{Device, Tensor};

/// `-weight (adv logp + scale entropy)` [n], summed over the log-probability and entropy [n] of each action key. No gradient
/// flows to `adv` [n] and `weight` [n].
pub fn actor_loss(likelihoods: &[[&Tensor; 2]], adv: &Tensor, weight: &Tensor, scale: f32) -> Tensor {
    if let Device::Gpu(gpu) = adv.device() {
        return actor_loss_gpu(gpu, likelihoods, adv, weight, scale);
    }
    let reinforce = scale_shift(&multiply(weight, adv), -1.0, 0.0);
    let explore = scale_shift(weight, -scale, 0.0);
    let terms: Vec<(&Tensor, &Tensor)> =
        likelihoods.iter().flat_map(|[logp, entropy]| [(*logp, &reinforce), (*entropy, &explore)]).collect();
    linear_combination(&terms)
}

/// Action keys of one launch, as in kernels/targets.cu.
const KEYS: usize = 120;

fn actor_loss_gpu(
    gpu: &'static Gpu,
    likelihoods: &[[&Tensor; 2]],
    adv: &Tensor,
    weight: &Tensor,
    scale: f32,
) -> Tensor {
    if likelihoods.len() > KEYS {
        let (some, rest) = likelihoods.split_at(KEYS);
        let one = super::full(adv.shape(), 1.0, adv.device());
        let [a, b] = [some, rest].map(|keys| actor_loss_gpu(gpu, keys, adv, weight, scale));
        return linear_combination(&[(&a, &one), (&b, &one)]);
    }
    let (n, keys, y) = (adv.len(), likelihoods.len(), gpu.empty(adv.shape()));
    let (adv, weight) = (gpu.full(adv), gpu.full(weight));
    let mut table = Table::default();
    let full: Vec<[Tensor; 2]> = likelihoods.iter().map(|pair| pair.map(|x| gpu.full(x))).collect();
    (0..2).for_each(|i| table.addresses(KEYS, full.iter().map(|pair| pair[i].address())));
    (0..2).for_each(|_| table.addresses(KEYS, [].into_iter()));
    table.moves(8 * keys * n);
    let args: [&dyn Arg; 7] = [&table, &keys, &adv, &weight, &scale, &n, &y];
    gpu.launch("targets", "actor_loss", Grid::elements(n), &args);
    let inputs: Vec<&Tensor> = likelihoods.iter().flatten().copied().collect();
    if !recording(&inputs) {
        return y;
    }
    let shape = adv.shape().to_vec();
    record1(&inputs, y, move |dy, _| {
        let grads: Vec<Tensor> = (0..2 * keys).map(|_| gpu.empty(&shape)).collect();
        let mut table = Table::default();
        (0..2).for_each(|_| table.addresses(KEYS, [].into_iter()));
        (0..2).for_each(|i| table.addresses(KEYS, grads.iter().skip(i).step_by(2).map(Tensor::address)));
        table.moves(8 * keys * n);
        let args: [&dyn Arg; 7] = [&table, &keys, &adv, &weight, &scale, &n, &gpu.full(dy)];
        gpu.launch("targets", "actor_loss_grad", Grid::elements(n), &args);
        grads.into_iter().map(Some).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;

    #[test]
    fn value_and_gradient_of_several_keys() {
        let (adv, weight) = ([1.5f32, -2.0, 0.5], [1.0f32, 0.9, 0.25]);
        let op = |x: &[Tensor]| {
            let [adv, weight] = [adv, weight].map(|v| Tensor::from_slice(&[3], &v).to(x[0].device()));
            actor_loss(&[[&x[0], &x[1]], [&x[2], &x[3]]], &adv, &weight, 0.3)
        };
        check(&[&[3], &[3], &[3], &[3]], op, |x| {
            let of = |i: usize, k: usize| adv[i] as f64 * x[k][i] + 0.3f32 as f64 * x[k + 1][i];
            (0..3).map(|i| -weight[i] as f64 * (of(i, 0) + of(i, 2))).collect()
        });
    }
}
