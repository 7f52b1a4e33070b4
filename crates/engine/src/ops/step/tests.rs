//! The step of the prior and small multilayer perceptrons against operations of their own on the processor.

use super::super::scan::{Core, Layer};
use super::{Step, mlp};
use crate::check::{assert_close, doubles, random};
use crate::cuda::{Precision, test_gpu_in};
use crate::ops::{Act, Draw, Norm, Term, affine, bound, gru, latent, linear, norm_act};
use crate::tensor::{Device, Tensor};

const EPS: f32 = 1e-4;

fn weight(shape: &[usize], stream: u32) -> Tensor {
    random(shape, stream, 1.0 / (shape[shape.len() - 2] as f32).sqrt())
}

/// A layer [.., k, n] with or without a norm.
fn layer(shape: &[usize], outputs: usize, normed: bool, stream: u32) -> Layer {
    let about_one = || random(&[outputs], stream + 2, 0.3).data().iter().map(|x| 1.0 + x).collect::<Vec<_>>();
    Layer {
        weight: weight(shape, stream),
        bias: random(&[outputs], stream + 1, 0.5),
        scale: normed.then(|| Tensor::from_slice(&[outputs], &about_one())),
    }
}

fn to(layer: &Layer, device: Device) -> Layer {
    Layer {
        weight: layer.weight.to(device),
        bias: layer.bias.to(device),
        scale: layer.scale.as_ref().map(|x| x.to(device)),
    }
}

fn activated(x: &Tensor, layer: &Layer) -> Tensor {
    let norm = Norm { kind: crate::cpu::norm::Norm::Rms, eps: EPS, scale: layer.scale.as_ref(), shift: None };
    norm_act(x, &norm, Act::parse("silu").expect("an activation"))
}

fn apply(x: &Tensor, layer: &Layer) -> Tensor {
    activated(&linear(x, &layer.weight, &layer.bias), layer)
}

/// Sizes of a step: rows, blocks, their width, hidden width, actions, groups, classes, layers of the prior.
#[derive(Clone, Copy)]
struct Case {
    rows: usize,
    blocks: usize,
    own: usize,
    h: usize,
    a: usize,
    groups: usize,
    classes: usize,
    layers: usize,
}

const SMALL: Case = Case { rows: 19, blocks: 2, own: 16, h: 24, a: 3, groups: 4, classes: 4, layers: 2 };

impl Case {
    fn step(&self) -> Step {
        let &Case { blocks, own, h, a, groups, classes, layers, .. } = self;
        let (d, z) = (blocks * own, groups * classes);
        let prior = |i: usize| layer(&[if i == 0 { d } else { h }, h], h, true, 60 + 3 * i as u32);
        Step {
            core: Core {
                embeddings: [layer(&[d, h], h, true, 10), layer(&[z, h], h, true, 20)],
                hidden: layer(&[blocks, own + 3 * h, own], d, true, 30),
                gates: layer(&[blocks, own, 3 * own], 3 * d, false, 40),
                eps: EPS,
            },
            actions: layer(&[a, h], h, true, 50),
            prior: (0..layers).map(prior).collect(),
            logits: layer(&[if layers == 0 { d } else { h }, z], z, false, 90),
            classes,
            unimix: 0.01,
        }
    }

    /// deter, stoch (one row of which is all zero) and actions, some of them large.
    fn inputs(&self) -> [Tensor; 3] {
        let &Case { rows, groups, classes, .. } = self;
        let hot = |i: usize| (i / classes * 7 + i / (classes * groups)) % classes == i % classes;
        let stoch: Vec<f32> = (0..rows * groups * classes)
            .map(|i| if hot(i) && i / (classes * groups) != 1 { 1.0 } else { 0.0 })
            .collect();
        let deter = random(&[rows, self.blocks * self.own], 1, 0.7);
        [deter, Tensor::from_slice(&[rows, groups * classes], &stoch), random(&[rows, self.a], 2, 1.5)]
    }

    fn by_operations(&self, step: &Step, [deter, stoch, action]: &[Tensor; 3], noise: &Tensor) -> [Tensor; 2] {
        let [of_deter, of_stoch] = &step.core.embeddings;
        let (x0, x1, x2) = (apply(deter, of_deter), apply(stoch, of_stoch), apply(&bound(action), &step.actions));
        let shared = |x, i: usize| Term::shared(x, self.own + i * self.h);
        let terms = [Term::new(deter, 0), shared(&x0, 0), shared(&x1, 1), shared(&x2, 2)];
        let hidden = &step.core.hidden;
        let y = activated(&affine(&terms, &hidden.weight, Some(&hidden.bias), None), hidden);
        let next = gru(&linear(&y, &step.core.gates.weight, &step.core.gates.bias), deter, self.blocks);
        let x = step.prior.iter().fold(next.clone(), |x, layer| apply(&x, layer));
        let logits = linear(&x, &step.logits.weight, &step.logits.bias);
        [next, latent(&logits, step.classes, step.unimix, Draw::Gumbel(noise))]
    }

    fn check(&self, precision: Precision, small: bool) {
        let Some(gpu) = test_gpu_in(precision) else { return };
        let device = Device::Gpu(gpu);
        let step = self.step();
        // In bfloat16 the noise decides, as the logits are not exact.
        let (tolerance, size) = if precision == Precision::Float32 { (1e-5, 1.0) } else { (1e-2, 1e3) };
        let noise = random(&[self.rows, self.groups * self.classes], 3, size);
        let expected = self.by_operations(&step, &self.inputs(), &noise);
        let there = Step {
            core: Core {
                embeddings: [0, 1].map(|i| to(&step.core.embeddings[i], device)),
                hidden: to(&step.core.hidden, device),
                gates: to(&step.core.gates, device),
                eps: EPS,
            },
            actions: to(&step.actions, device),
            prior: step.prior.iter().map(|layer| to(layer, device)).collect(),
            logits: to(&step.logits, device),
            ..step
        };
        assert!(there.fits(device));
        assert_eq!(there.is_small(), small);
        let [deter, stoch, action] = self.inputs().map(|x| gpu.act(&x.to(device)));
        let noise = noise.to(device);
        for large in [false, true] {
            let run = if large || !small { Step::run_large } else { Step::run_small };
            let [next, sample] = run(&there, gpu, &deter, &stoch, &action, Draw::Gumbel(&noise));
            assert_close(&format!("deter in {precision:?}"), &doubles(&next), &doubles(&expected[0]), tolerance);
            assert_eq!(sample.host().data(), expected[1].data(), "samples in {precision:?}");
        }
    }
}

#[test]
fn steps_of_the_prior() {
    // The last has more panels than warps, which go on to a second one.
    let wide = Case { rows: 3, own: 144, ..SMALL };
    for case in [SMALL, Case { rows: 1, layers: 1, ..SMALL }, Case { layers: 3, groups: 3, classes: 24, ..SMALL }, wide]
    {
        case.check(Precision::Float32, true);
        case.check(Precision::Bfloat16, true);
    }
}

#[test]
fn steps_of_sizes_that_divide_nothing() {
    Case { own: 5, h: 7, classes: 3, blocks: 3, ..SMALL }.check(Precision::Float32, true);
    Case { own: 40, h: 3, classes: 5, groups: 1, layers: 0, ..SMALL }.check(Precision::Float32, true);
}

/// Hidden layers wider than deter do not fit where the layers take turns.
#[test]
fn steps_of_a_model_that_is_not_small() {
    Case { rows: 3, own: 8, ..SMALL }.check(Precision::Float32, false);
    Case { rows: 2, own: 8, h: 520, ..SMALL }.check(Precision::Bfloat16, false);
}

#[test]
fn small_perceptrons() {
    // Rows, widths of both inputs, width and number of layers; the last ones have a first layer that does not fit.
    const CASES: [(usize, [usize; 2], usize, usize); 6] = [
        (21, [40, 16], 24, 3),
        (2, [8, 0], 72, 1),
        (3, [40, 16], 264, 2),
        (18, [1600, 8], 192, 3),
        (1, [1608, 0], 200, 2),
        (17, [13, 5], 40, 4), // in bfloat16
    ];
    for (precision, tolerance) in [(Precision::Float32, 1e-5), (Precision::Bfloat16, 1e-2)] {
        let Some(gpu) = test_gpu_in(precision) else { return };
        let device = Device::Gpu(gpu);
        for (rows, [k0, k1], n, count) in CASES {
            let layers: Vec<Layer> =
                (0..count).map(|i| layer(&[if i == 0 { k0 + k1 } else { n }, n], n, true, 10 + 3 * i as u32)).collect();
            let xs = [random(&[rows, k0], 1, 1.0), random(&[rows, k1], 2, 1.0)];
            let parts: Vec<&Tensor> = xs.iter().filter(|x| x.width() > 0).collect();
            let expected = layers.iter().fold(crate::ops::concat_last(&parts), |x, layer| apply(&x, layer));
            let there: Vec<Layer> = layers.iter().map(|layer| to(layer, device)).collect();
            let parts: Vec<Tensor> = parts.iter().map(|x| x.to(device)).collect();
            let got = mlp(&parts.iter().collect::<Vec<_>>(), &there, EPS).expect("it is small");
            assert_close(&format!("in {precision:?}"), &doubles(&got), &doubles(&expected), tolerance);
        }
    }
}

/// Neither one large layer, nor many rows after one, nor layers of several widths.
#[test]
fn perceptrons_that_are_not_small() {
    let Some(gpu) = test_gpu_in(Precision::Float32) else { return };
    let device = Device::Gpu(gpu);
    let dense = |k: usize, n: usize| to(&layer(&[k, n], n, true, 10), device);
    let fits = |rows: usize, layers: &[Layer]| {
        let x = Tensor::full(&[rows, layers[0].weight.dim(0)], 0.5).to(device);
        mlp(&[&x], layers, EPS).is_some()
    };
    let layers = [dense(1608, 192), dense(192, 192)];
    assert_eq!([fits(2, &layers), fits(2, &layers[..1]), fits(2049, &layers)], [true, false, false]);
    assert!(![dense(16, 64), dense(6008, 64)].into_iter().any(|first| fits(2, &[first, dense(64, 128)])));
}
