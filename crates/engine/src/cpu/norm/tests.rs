//! Every kind of normalisation and activation, forward and backward, against float64 and finite differences.

use super::*;
use crate::cpu::conv::{f32_to_lanes, group_len, lanes_to_f32, reduce_bias_grad};
use crate::cpu::simd::on_every_isa;
use crate::cpu::testing::{assert_close, noise};

const EPSILON: f64 = 1e-4;
const NORMS: [Norm; 3] = [Norm::None, Norm::Rms, Norm::Layer];
const ACTS: [Act; 10] = [
    Act::None,
    Act::Silu,
    Act::Relu,
    Act::Relu2,
    Act::Gelu,
    Act::Mish,
    Act::Tanh,
    Act::Elu,
    Act::Sigmoid,
    Act::Softplus,
];

fn act(a: Act, z: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-z).exp());
    match a {
        Act::None => z,
        Act::Silu => z * sigmoid,
        Act::Relu => z.max(0.0),
        Act::Relu2 => z.max(0.0).powi(2),
        Act::Gelu => 0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z.powi(3))).tanh()),
        Act::Mish => z * z.exp().ln_1p().tanh(),
        Act::Tanh => z.tanh(),
        Act::Elu => {
            if z > 0.0 {
                z
            } else {
                z.exp_m1()
            }
        }
        Act::Sigmoid => sigmoid,
        Act::Softplus => z.exp().ln_1p(),
    }
}

/// `act(norm(x))` of one vector of features.
fn forward(norm: Norm, a: Act, x: &[f64], scale: &[f64], shift: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let square = x.iter().map(|v| v * v).sum::<f64>() / n;
    let mean = x.iter().sum::<f64>() / n;
    let (mean, inverse) = match norm {
        Norm::None => (0.0, 1.0),
        Norm::Rms => (0.0, 1.0 / (square + EPSILON).sqrt()),
        Norm::Layer => (mean, 1.0 / ((square - mean * mean).max(0.0) + EPSILON).sqrt()),
    };
    let z = |i: usize| match norm {
        Norm::None => x[i],
        Norm::Rms => x[i] * inverse * scale[i],
        Norm::Layer => (x[i] - mean) * inverse * scale[i] + shift[i],
    };
    (0..x.len()).map(|i| act(a, z(i))).collect()
}

/// The gradient by `v` of `f` weighted with `g`, by central differences.
fn differences(v: &[f64], g: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let value = |v: &[f64]| f(v).iter().zip(g).map(|(a, b)| a * b).sum::<f64>();
    (0..v.len())
        .map(|i| {
            let (mut up, mut down) = (v.to_vec(), v.to_vec());
            up[i] += STEP;
            down[i] -= STEP;
            (value(&up) - value(&down)) / (2.0 * STEP)
        })
        .collect()
}

/// Noise whose features differ enough for float32 to see their variance.
fn spread(len: usize, n: usize, seed: u64) -> Vec<f32> {
    noise(len, seed).iter().enumerate().map(|(i, v)| v + [-1.0, 0.5, 1.0][i % n % 3]).collect()
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&v| v as f64).collect()
}

/// Output and gradients by input, scale and shift of `m` rows of `n`.
struct Want {
    y: Vec<f64>,
    dx: Vec<f64>,
    dscale: Vec<f64>,
    dshift: Vec<f64>,
}

fn reference(op: &NormAct, n: usize, x: &[f32], g: &[f32]) -> Want {
    let (scale, shift) = (wide(op.scale), wide(op.shift));
    let mut want = Want { y: vec![], dx: vec![], dscale: vec![0.0; n], dshift: vec![0.0; n] };
    for (x, g) in x.chunks_exact(n).zip(g.chunks_exact(n)) {
        let (x, g) = (wide(x), wide(g));
        want.y.extend(forward(op.norm, op.act, &x, &scale, &shift));
        want.dx.extend(differences(&x, &g, |x| forward(op.norm, op.act, x, &scale, &shift)));
        let ds = differences(&scale, &g, |s| forward(op.norm, op.act, &x, s, &shift));
        let db = differences(&shift, &g, |s| forward(op.norm, op.act, &x, &scale, s));
        (0..n).for_each(|i| {
            want.dscale[i] += ds[i];
            want.dshift[i] += db[i];
        });
    }
    want
}

fn each_kind(n: usize, f: impl Fn(&NormAct)) {
    let (scale, shift) = (noise(n, 11), noise(n, 12));
    for norm in NORMS {
        for act in ACTS {
            f(&NormAct { norm, act, epsilon: EPSILON as f32, scale: &scale, shift: &shift });
        }
    }
}

fn check_rows(m: usize, n: usize) {
    let (x, g) = (spread(m * n, n, 1), noise(m * n, 2));
    each_kind(n, |op| {
        let want = reference(op, n, &x, &g);
        on_every_isa(|| {
            let name = format!("rows {m}x{n} {:?} {:?}", op.norm, op.act);
            let (mut y, mut stats, mut dx) = (vec![9.0; m * n], vec![9.0; 2 * m], vec![9.0; m * n]);
            norm_act_rows(op, m, n, &x, &mut y, &mut stats);
            assert_close(&name, &y, &want.y, 1e-5);
            let (mut dscale, mut dshift) = (vec![0.0; n], vec![0.0; n]);
            norm_act_rows_grad(op, m, n, &x, &stats, &g, &mut dx, &mut dscale, &mut dshift);
            assert_close(&format!("{name} dx"), &dx, &want.dx, 1e-4);
            if op.norm != Norm::None {
                assert_close(&format!("{name} dscale"), &dscale, &want.dscale, 1e-4);
            }
            if op.norm == Norm::Layer {
                assert_close(&format!("{name} dshift"), &dshift, &want.dshift, 1e-4);
            }
        });
    });
}

#[test]
fn rows_of_awkward_lengths() {
    for (m, n) in [(0, 5), (3, 2), (2, 64), (4, 67), (1, 131)] {
        check_rows(m, n);
    }
}

fn check_lanes(h: usize, w: usize, c: usize, pads: [usize; 4]) {
    on_every_isa(|| {
        let l = crate::cpu::lanes();
        let (x, g) = (spread(l * h * w * c, c, 3), noise(l * h * w * c, 4));
        let group = |v: &[f32], pad: usize| {
            let mut out = vec![0.0; group_len(c, h, w, pad)];
            f32_to_lanes(v, l, h, w, c, &mut out, pad);
            out
        };
        let rows = |group: &[f32], pad: usize| {
            let mut out = vec![0.0; l * h * w * c];
            lanes_to_f32(group, l, h, w, c, pad, &mut out);
            out
        };
        each_kind(c, |op| {
            let want = reference(op, c, &x, &g);
            let name = format!("lanes {h}x{w}x{c} {:?} {:?}", op.norm, op.act);
            let [xpad, opad, gpad, dpad] = pads;
            let mut y = vec![9.0; group_len(c, h, w, opad)];
            norm_act_lanes(op, c, h, w, &group(&x, xpad), xpad, &mut y, opad);
            assert_close(&name, &rows(&y, opad), &want.y, 1e-5);
            let mut dx = vec![9.0; group_len(c, h, w, dpad)];
            let (mut dscale, mut dshift) = (vec![0.0; c * l], vec![0.0; c * l]);
            let (xs, gs) = (group(&x, xpad), group(&g, gpad));
            norm_act_lanes_grad(op, c, h, w, &xs, xpad, &gs, gpad, &mut dx, dpad, &mut dscale, &mut dshift);
            assert_close(&format!("{name} dx"), &rows(&dx, dpad), &want.dx, 1e-4);
            let outside: f32 = y.iter().chain(&dx).map(|v| v.abs()).sum();
            let inside: f32 = rows(&y, opad).iter().chain(&rows(&dx, dpad)).map(|v| v.abs()).sum();
            assert!((outside - inside).abs() <= 1e-3 * inside, "{name}: padding is not zero");
            let (mut ds, mut db) = (vec![0.0; c], vec![0.0; c]);
            reduce_bias_grad(&dscale, &mut ds);
            reduce_bias_grad(&dshift, &mut db);
            if op.norm != Norm::None {
                assert_close(&format!("{name} dscale"), &ds, &want.dscale, 2e-4);
            }
            if op.norm == Norm::Layer {
                assert_close(&format!("{name} dshift"), &db, &want.dshift, 2e-4);
            }
        });
    });
}

#[test]
fn channels_of_images_in_lanes() {
    check_lanes(1, 1, 1, [0, 0, 0, 0]);
    check_lanes(2, 5, 3, [1, 2, 0, 3]);
    check_lanes(1, 4, 8, [0, 2, 0, 0]);
}

#[test]
fn a_constant_vector_has_no_variance_and_no_gradient_through_it() {
    on_every_isa(|| {
        let (n, x) = (20, vec![0.7f32; 20]);
        let op = NormAct { norm: Norm::Layer, act: Act::None, epsilon: 1e-4, scale: &[1.0; 20], shift: &[0.5; 20] };
        let (mut y, mut stats, mut dx) = (vec![0.0; n], vec![0.0; 2], vec![0.0; n]);
        norm_act_rows(&op, 1, n, &x, &mut y, &mut stats);
        assert!(y.iter().all(|v| (v - 0.5).abs() < 1e-4), "{y:?}");
        let (mut ds, mut db) = (vec![0.0; n], vec![0.0; n]);
        norm_act_rows_grad(&op, 1, n, &x, &stats, &noise(n, 1), &mut dx, &mut ds, &mut db);
        assert!(dx.iter().all(|v| v.is_finite()) && dx.iter().sum::<f32>().abs() < 0.1, "{dx:?}");
    });
}

#[test]
fn a_variance_that_rounding_makes_negative_is_zero_and_has_no_gradient() {
    let (n, g) = (24, noise(24, 1));
    // Squares near 1e6 are rounded to sixteenths: some of these variances, of 1e-5, come out below zero.
    let rows: Vec<Vec<f32>> = (0..64).map(|i| noise(n, i).iter().map(|v| 1000.0 + 0.003 * v).collect()).collect();
    let mean = g.iter().sum::<f32>() / n as f32;
    let want: Vec<f64> = g.iter().map(|g| ((g - mean) / 1e-4f32.sqrt()) as f64).collect();
    let op = NormAct { norm: Norm::Layer, act: Act::None, epsilon: 1e-4, scale: &[1.0; 24], shift: &[0.0; 24] };
    on_every_isa(|| {
        let mut clamped = 0;
        for x in &rows {
            let (mut y, mut stats, mut dx) = (vec![0.0; n], vec![0.0; 2], vec![0.0; n]);
            norm_act_rows(&op, 1, n, x, &mut y, &mut stats);
            if stats[1] != 1e-4f32.sqrt().recip() {
                continue;
            }
            clamped += 1;
            let (mut ds, mut db) = (vec![0.0; n], vec![0.0; n]);
            norm_act_rows_grad(&op, 1, n, x, &stats, &g, &mut dx, &mut ds, &mut db);
            assert_close("dx", &dx, &want, 1e-4);
        }
        assert!(clamped > 0, "no variance was rounded below zero");
    });
}

#[test]
fn activations_of_slices() {
    for a in ACTS {
        let x: Vec<f32> = (-300..300).map(|i| i as f32 * 0.1 + 0.05).collect();
        let want: Vec<f64> = x.iter().map(|&v| act(a, v as f64)).collect();
        let slope: Vec<f64> =
            x.iter().map(|&v| 2.0 * (act(a, v as f64 + 1e-6) - act(a, v as f64 - 1e-6)) / 2e-6).collect();
        on_every_isa(|| {
            let (mut y, mut g) = (x.clone(), vec![2.0; x.len()]);
            act_slice(a, &mut y);
            act_grad_slice(a, &x, &mut g);
            assert_close(&format!("{a:?}"), &y, &want, 1e-6);
            assert_close(&format!("{a:?} gradient"), &g, &slope, 1e-5);
            let mut zero = [0.0f32, f32::NAN];
            act_slice(a, &mut zero);
            assert!(zero[1].is_nan(), "{a:?} loses NaN");
            let mut at_zero = [1.0];
            act_grad_slice(a, &[0.0], &mut at_zero);
            if matches!(a, Act::Relu | Act::Relu2) {
                assert_eq!(at_zero, [0.0]); // as JAX has it
            }
        });
    }
}
