//! The fused scan against the same steps as operations of their own on the processor, values and all gradients.

use super::{Core, Layer, Scan, ScanInputs, Sizes, Together};
use crate::check::{assert_close, random};
use crate::cuda::{Meeting, Precision, test_gpu_in};
use crate::graph::{Leaf, backward};
use crate::ops::norm_act::{Act, Norm, norm_act};
use crate::ops::{Draw, DrawnRows, Term, affine, gru, latent, linear, mask_rows, stack_time, unstack_time};
use crate::sink::Sink;
use crate::tensor::{Device, Tensor};

/// A model with its inputs.
#[derive(Clone, Copy)]
struct Case {
    rows: usize,
    steps: usize,
    blocks: usize,
    own: usize,
    h: usize,
    groups: usize,
    classes: usize,
    absolute: bool,
    gumbel: bool,
    /// Deviation of Gumbel noise; large where the choice must not depend on logits.
    noise: f32,
    unimix: f32,
    /// Whether rows begin anew now and then.
    resets: bool,
}

const SMALL: Case = Case {
    rows: 3,
    steps: 4,
    blocks: 2,
    own: 8,
    h: 16,
    groups: 4,
    classes: 4,
    absolute: false,
    gumbel: true,
    noise: 1.0,
    unimix: 0.01,
    resets: true,
};

/// Names of all tensors that gradients flow to, in order.
const NAMES: [&str; 20] = [
    "start.deter",
    "start.stoch",
    "tokens",
    "actions",
    "embed deter",
    "embed deter bias",
    "embed deter scale",
    "embed stoch",
    "embed stoch bias",
    "embed stoch scale",
    "hidden",
    "hidden scale",
    "gates",
    "gates bias",
    "posterior",
    "posterior scale",
    "logits",
    "logits bias",
    "hidden bias",
    "posterior bias",
];

impl Case {
    fn shapes(&self) -> Vec<Vec<usize>> {
        let &Case { rows, steps, blocks, own, h, groups, classes, .. } = self;
        let (d, z) = (blocks * own, groups * classes);
        vec![
            vec![rows, d],
            vec![rows, z],
            vec![rows, steps, h],
            vec![rows, steps, d],
            vec![d, h],
            vec![h],
            vec![h],
            vec![z, h],
            vec![h],
            vec![h],
            vec![blocks, own + 3 * h, own], // rows for actions, too, as in the model
            vec![d],
            vec![blocks, own, 3 * own],
            vec![3 * d],
            vec![d + 5, h], // rows for tokens
            vec![h],
            vec![h, z],
            vec![z],
            vec![d],
            vec![h],
        ]
    }

    /// Random values, of sizes as in a model: weights by their rows, scales about one.
    fn values(&self) -> Vec<Tensor> {
        let shapes = self.shapes();
        let value = |(i, shape): (usize, &Vec<usize>)| {
            let rank = shape.len();
            let weight = i >= 4 && rank > 1;
            let size = if weight { 1.0 / (shape[rank - 2] as f32).sqrt() } else { 0.7 };
            let x = random(shape, i as u32, size);
            match NAMES[i].ends_with("scale") {
                true => Tensor::from_slice(shape, &x.data().iter().map(|v| 1.0 + 0.3 * v).collect::<Vec<_>>()),
                false => x,
            }
        };
        shapes.iter().enumerate().map(value).collect()
    }

    fn keep(&self) -> Tensor {
        // Episodes start in the middle, at the first step of some rows, and twice in a row.
        let keep = |i: usize| if self.resets && (i % 5 == 1 || i.is_multiple_of(7)) { 0.0 } else { 1.0 };
        let values: Vec<f32> = (0..self.rows * self.steps).map(keep).collect();
        Tensor::from_slice(&[self.rows, self.steps], &values)
    }

    fn draws(&self) -> Tensor {
        let (lead, z) = ([self.rows, self.steps], self.groups * self.classes);
        if self.gumbel {
            return random(&[lead[0], lead[1], z], 77, self.noise);
        }
        let mut u = vec![0.0; lead[0] * lead[1] * self.groups];
        crate::rng::Rng::new(5, 78, 0).uniform(0, &mut u);
        Tensor::from_slice(&[lead[0], lead[1], self.groups], &u)
    }

    fn draw<'a>(&self, noise: &'a Tensor) -> Draw<'a> {
        if self.gumbel { Draw::Gumbel(noise) } else { Draw::Uniform(noise) }
    }

    fn model(&self, x: &[Tensor]) -> Scan {
        let layer = |w: usize, bias: usize, scale: Option<usize>| Layer {
            weight: x[w].clone(),
            bias: x[bias].clone(),
            scale: scale.map(|i| x[i].clone()),
        };
        Scan {
            core: Core {
                embeddings: [layer(4, 5, Some(6)), layer(7, 8, Some(9))],
                hidden: layer(10, 18, Some(11)),
                gates: layer(12, 13, None),
                eps: 1e-4,
            },
            posterior: layer(14, 19, Some(15)),
            logits: layer(16, 17, None),
            classes: self.classes,
            unimix: self.unimix,
            absolute: self.absolute,
        }
    }

    /// deter, stoch and logits [B, T, ..], step by step.
    fn by_steps(&self, x: &[Tensor], keep: &Tensor, noise: &Tensor) -> Vec<Tensor> {
        let normed = |y: &Tensor, scale: usize| {
            let norm = Norm { kind: crate::cpu::norm::Norm::Rms, eps: 1e-4, scale: Some(&x[scale]), shift: None };
            norm_act(y, &norm, Act::parse("silu").expect("an activation"))
        };
        let [tokens, actions, keep, noise] = [&x[2], &x[3], keep, noise].map(unstack_time);
        let (mut deter, mut stoch) = (x[0].clone(), x[1].clone());
        let mut outputs: [Vec<Tensor>; 3] = Default::default();
        for t in 0..self.steps {
            (deter, stoch) = (mask_rows(&deter, &keep[t]), mask_rows(&stoch, &keep[t]));
            let x0 = normed(&linear(&deter, &x[4], &x[5]), 6);
            let x1 = normed(&linear(&stoch, &x[7], &x[8]), 9);
            let terms = [Term::new(&deter, 0), Term::shared(&x0, self.own), Term::shared(&x1, self.own + self.h)];
            let y = normed(&affine(&terms, &x[10], None, Some(&actions[t])), 11);
            deter = gru(&linear(&y, &x[12], &x[13]), &deter, self.blocks);
            let o = match self.absolute {
                true => tokens[t].clone(),
                false => affine(&[Term::new(&deter, 0)], &x[14], None, Some(&tokens[t])),
            };
            let logit = linear(&normed(&o, 15), &x[16], &x[17]);
            stoch = latent(&logit, self.classes, self.unimix, self.draw(&noise[t]));
            [&deter, &stoch, &logit].iter().zip(&mut outputs).for_each(|(&x, list)| list.push(x.clone()));
        }
        outputs.iter().map(|list| stack_time(list)).collect()
    }

    fn fused(&self, x: &[Tensor], keep: &Tensor, noise: &Tensor, meeting: Meeting) -> Vec<Tensor> {
        let model = self.model(x);
        assert!(model.fits(keep.device()));
        let [deter, stoch, tokens, actions] = [&x[0], &x[1], &x[2], &x[3]];
        model.run_by(meeting, &ScanInputs { deter, stoch, tokens, actions, keep, draw: self.draw(noise) }).to_vec()
    }

    /// Outputs, and the gradients of all inputs for a random weighting of the outputs.
    fn evaluate(&self, device: Device, weighted: [bool; 3]) -> Evaluated {
        self.evaluate_by(device, (device != Device::Cpu).then_some(Meeting::Never), weighted)
    }

    /// The same by the fused scan with such meetings, or step by step.
    fn evaluate_by(&self, device: Device, fused: Option<Meeting>, weighted: [bool; 3]) -> Evaluated {
        let leaves: Vec<(Leaf, Vec<usize>)> = self.shapes().into_iter().map(|shape| (Leaf::new(), shape)).collect();
        let x: Vec<Tensor> = self.values().iter().zip(&leaves).map(|(x, (leaf, _))| x.to(device).leaf(*leaf)).collect();
        let (keep, noise) = (self.keep().to(device), self.draws().to(device));
        let outputs = match fused {
            Some(meeting) => self.fused(&x, &keep, &noise, meeting),
            None => self.by_steps(&x, &keep, &noise),
        };
        let mut sink = Sink::new();
        let weights = |(i, y): (usize, &Tensor)| random(y.shape(), 90 + i as u32, 1.0).to(device);
        let ends: Vec<(&Tensor, Tensor)> =
            outputs.iter().enumerate().filter(|(i, _)| weighted[*i]).map(|(i, y)| (y, weights((i, y)))).collect();
        backward(&ends, &mut sink);
        let doubles = |x: &Tensor| x.to(Device::Cpu).data().iter().map(|&v| v as f64).collect();
        (outputs.iter().map(doubles).collect(), sink.finish(&leaves).iter().map(doubles).collect())
    }

    fn check(&self, precision: Precision, tolerances: [f64; 2], weighted: [bool; 3]) {
        let Some(gpu) = test_gpu_in(precision) else { return };
        let expected = self.evaluate(Device::Cpu, weighted);
        compare(&format!("in {precision:?}"), &self.evaluate(Device::Gpu(gpu), weighted), &expected, tolerances);
    }

    /// Exact in float32; in bfloat16 with choices that do not depend on logits, as close as so few digits are.
    fn check_both(&self) {
        self.check(Precision::Float32, [1e-5, 1e-4], [true; 3]);
        let forced = Case { gumbel: true, noise: 1e3, ..*self };
        forced.check(Precision::Bfloat16, [2e-2, 5e-2], [true; 3]);
    }
}

type Evaluated = (Vec<Vec<f64>>, Vec<Vec<f64>>);

fn compare(what: &str, (got, grads): &Evaluated, (expected, expected_grads): &Evaluated, [value, gradient]: [f64; 2]) {
    for (i, name) in ["deter", "stoch", "logits"].iter().enumerate() {
        assert_close(&format!("{name} {what}"), &got[i], &expected[i], value);
    }
    for (i, name) in NAMES.iter().enumerate() {
        assert_close(&format!("gradient of {name} {what}"), &grads[i], &expected_grads[i], gradient);
    }
}

#[test]
fn values_and_gradients_with_resets() {
    SMALL.check_both();
}

#[test]
fn several_tiles_of_rows_and_columns() {
    Case { rows: 18, steps: 2, own: 24, h: 40, groups: 3, classes: 24, ..SMALL }.check_both();
}

#[test]
fn one_step_of_one_row_as_when_acting() {
    Case { rows: 1, steps: 1, ..SMALL }.check_both();
}

#[test]
fn a_posterior_without_deter() {
    Case { absolute: true, ..SMALL }.check_both();
}

#[test]
fn sizes_that_divide_nothing() {
    Case { rows: 2, own: 1, h: 3, groups: 5, classes: 3, ..SMALL }.check(Precision::Float32, [1e-5, 1e-4], [true; 3]);
    Case { rows: 2, blocks: 3, own: 21, h: 35, groups: 2, classes: 7, gumbel: false, ..SMALL }.check(
        Precision::Float32,
        [1e-5, 1e-4],
        [true; 3],
    );
}

#[test]
fn uniform_draws_and_no_mixture() {
    Case { gumbel: false, ..SMALL }.check(Precision::Float32, [1e-5, 1e-4], [true; 3]);
    Case { unimix: 0.0, classes: 8, ..SMALL }.check(Precision::Float32, [1e-5, 1e-4], [true; 3]);
}

#[test]
fn groups_wider_than_a_warp_and_than_a_pass() {
    Case { steps: 2, groups: 2, classes: 72, ..SMALL }.check_both();
}

/// So many panels that a block of threads takes several.
#[test]
fn many_panels() {
    Case { rows: 2, steps: 2, blocks: 130, own: 24, ..SMALL }.check_both();
}

#[test]
fn outputs_that_nobody_uses() {
    for weighted in [[true, false, false], [false, true, false], [false, false, true]] {
        SMALL.check(Precision::Float32, [1e-5, 1e-4], weighted);
    }
}

/// The draws of a counter are those of its own step by step, and of the processor.
#[test]
fn draws_of_a_counter() {
    check_draws(Meeting::Never);
}

#[test]
fn draws_of_a_counter_in_one_launch() {
    check_draws(Meeting::Grid);
}

fn check_draws(meeting: Meeting) {
    let Some(gpu) = test_gpu_in(Precision::Float32) else { return };
    let case = Case { gumbel: false, ..SMALL };
    let (device, keep) = (Device::Gpu(gpu), case.keep());
    let at = DrawnRows { rows: 0..case.rows * case.steps, step: 0, steps: 1, width: case.groups };
    let rng = crate::rng::Rng::new(5, 78, 0);
    let noise = crate::ops::uniform(&rng, &at, Device::Cpu);
    let x = case.values();
    let expected = case.by_steps(&x, &keep, &noise.view(0, &[case.rows, case.steps, case.groups]));
    let x: Vec<Tensor> = x.iter().map(|x| x.to(device)).collect();
    let [deter, stoch, tokens, actions] = [&x[0], &x[1], &x[2], &x[3]];
    let (keep, draw) = (&keep.to(device), Draw::Counter(&rng, &at));
    let got = case.model(&x).run_by(meeting, &ScanInputs { deter, stoch, tokens, actions, keep, draw });
    assert_eq!(got[1].host().data(), expected[1].data());
}

/// As in training, forward: a recording, again and again.
#[test]
fn one_launch_is_recorded() {
    let Some(gpu) = test_gpu_in(Precision::Float32) else { return };
    let (device, noise) = (Device::Gpu(gpu), SMALL.draws());
    let x: Vec<Tensor> = SMALL.values().iter().map(|x| x.to(device)).collect();
    let (keep, noise) = (SMALL.keep().to(device), noise.to(device));
    let expected = SMALL.fused(&x, &keep, &noise, Meeting::Never)[1].host();
    for meeting in [Meeting::Grid, Meeting::Cluster] {
        let run = || SMALL.fused(&x, &keep, &noise, meeting)[1].clone();
        run(); // loads the kernels
        let (recording, stoch) = gpu.record(run);
        for _ in 0..3 {
            gpu.upload(bytemuck::cast_slice(&vec![9.0f32; stoch.len()]), stoch.address(), 4 * stoch.len());
            recording.run();
            assert_eq!(stoch.host().data(), expected.data(), "{meeting:?}");
        }
    }
}

/// The kernels are the same, and so are the numbers, where a block of threads takes as many panels.
#[test]
fn one_launch_for_all_steps() {
    let [grid, cluster] = [Meeting::Grid, Meeting::Cluster];
    let wide = Case { rows: 5, blocks: 5, own: 56, h: 24, ..SMALL };
    // Whether a block takes several panels on an emulated GPU, where sixteen can be a cluster and 32 run at the same time.
    let cases = [
        (SMALL, grid, false),
        (SMALL, cluster, false),
        (Case { steps: 5, absolute: true, gumbel: false, ..SMALL }, cluster, false),
        (Case { rows: 18, own: 24, h: 40, groups: 3, classes: 24, ..SMALL }, grid, false),
        (wide, cluster, true),
        (Case { rows: 18, ..wide }, grid, true),
    ];
    for (precision, tolerances) in [(Precision::Float32, [1e-5, 1e-4]), (Precision::Bfloat16, [2e-2, 5e-2])] {
        let Some(gpu) = test_gpu_in(precision) else { return };
        for (case, meeting, many) in cases {
            // In bfloat16 with choices that do not depend on logits: another compiler may round these differently.
            let case = Case { noise: 1e3, gumbel: case.gumbel || precision == Precision::Bfloat16, ..case };
            let found = Together::new(gpu, &Sizes::new(&case.model(&case.values()), case.rows, case.steps), meeting);
            let found = found.expect("a model that is small enough for one launch");
            assert!(!gpu.is_emulated() || (found.meeting, found.many) == (meeting, many), "{found:?}");
            let run = |meeting| case.evaluate_by(Device::Gpu(gpu), Some(meeting), [true; 3]);
            let (once, launches) = (run(meeting), run(Meeting::Never));
            let what = format!("of {} blocks of {} in {precision:?}, {meeting:?}", case.blocks, case.own);
            compare(&what, &once, &launches, tolerances);
            // A compiler may round differently where it has more in sight.
            assert!(!gpu.is_emulated() || found.many || once == launches, "{what}: other numbers than by launches");
        }
    }
}

#[test]
fn a_model_too_large_for_one_launch_has_many() {
    let Some(gpu) = test_gpu_in(Precision::Float32) else { return };
    let together = |case: Case, meeting| {
        let sizes = Sizes::new(&case.model(&case.values()), case.rows, case.steps);
        let found = Together::new(gpu, &sizes, meeting);
        assert!(found.is_none_or(|found| found.meeting != Meeting::Cluster || found.blocks.is_power_of_two()));
        found.map(|found| found.meeting)
    };
    assert_eq!(together(SMALL, Meeting::Never), None);
    assert_eq!(together(Case { steps: 1, ..SMALL }, Meeting::Grid), None);
    assert_eq!(together(Case { own: 40, ..SMALL }, Meeting::Cluster), Some(Meeting::Cluster)); // of ten blocks and six spare
    assert_eq!(together(Case { rows: 17, ..SMALL }, Meeting::Cluster), Some(Meeting::Grid));
    assert_eq!(together(Case { rows: 4000, ..SMALL }, Meeting::Cluster), None);
}

#[test]
fn one_launch_without_some_gradients() {
    let Some(gpu) = test_gpu_in(Precision::Float32) else { return };
    for weighted in [[true, false, false], [false, true, false], [false, false, true]] {
        let run = |meeting| SMALL.evaluate_by(Device::Gpu(gpu), Some(meeting), weighted);
        let (once, launches) = (run(Meeting::Grid), run(Meeting::Never));
        compare(&format!("of {weighted:?}"), &once, &launches, [1e-5, 1e-4]);
        assert!(!gpu.is_emulated() || once == launches, "of {weighted:?}: other numbers than by launches");
    }
}

#[test]
fn nothing_to_scan() {
    let Some(gpu) = test_gpu_in(Precision::Float32) else { return };
    let (outputs, grads) = Case { rows: 0, ..SMALL }.evaluate(Device::Gpu(gpu), [true; 3]);
    assert!(outputs.iter().all(Vec::is_empty));
    assert!(grads.iter().flatten().all(|&x| x == 0.0));
}

#[test]
fn the_same_numbers_every_time() {
    let Some(gpu) = test_gpu_in(Precision::Bfloat16) else { return };
    let once = || SMALL.evaluate(Device::Gpu(gpu), [true; 3]);
    assert_eq!(once(), once());
}

/// As many blocks of threads as in training, whose kernels overlap: what an emulation cannot show.
#[test]
fn a_training_batch_on_a_real_gpu() {
    check_a_training_batch(&[Meeting::Never]);
}

#[test]
fn a_training_batch_on_a_real_gpu_in_one_launch() {
    check_a_training_batch(&[Meeting::Grid, Meeting::Cluster]);
}

fn check_a_training_batch(meetings: &[Meeting]) {
    for (precision, tolerances) in [(Precision::Float32, [1e-4, 1e-3]), (Precision::Bfloat16, [3e-2, 1e-1])] {
        let Some(gpu) = test_gpu_in(precision) else { return };
        if gpu.properties().arch == 0 {
            return eprintln!("SKIPPED: a scan as in training would take minutes on an emulated GPU");
        }
        let sizes = [(64, 64, 4), (256, 256, 16), (512, 512, 32)]; // of size1m, size12m, size50m
        for ((own, h, classes), resets) in sizes.into_iter().flat_map(|size| [(size, true), (size, false)]) {
            // A class that falls the other way, as logits round, would change all that follows.
            let case =
                Case { rows: 16, steps: 64, blocks: 8, own, h, groups: 32, classes, noise: 1e5, resets, ..SMALL };
            let run = |fused| case.evaluate_by(Device::Gpu(gpu), fused, [true; 3]);
            let by_steps = run(None);
            let sizes = Sizes::new(&case.model(&case.values()), case.rows, case.steps);
            for &meeting in meetings {
                if Together::new(gpu, &sizes, meeting).map_or(Meeting::Never, |found| found.meeting) != meeting {
                    eprintln!("SKIPPED: blocks of {own} do not fit into one launch, {meeting:?}");
                    continue;
                }
                let (once, what) = (run(Some(meeting)), format!("with blocks of {own} in {precision:?}, {meeting:?}"));
                compare(&what, &once, &by_steps, tolerances);
                for _ in 0..3 {
                    assert!(run(Some(meeting)) == once, "two runs of a scan {what} differ");
                }
            }
        }
    }
}
