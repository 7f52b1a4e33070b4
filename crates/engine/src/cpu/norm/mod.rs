//! Normalisation and activation in one pass: `y = act(norm(x))`, over the channels of a group of images in
//! lanes or over the rows of a matrix, with gradients.

mod act;
mod lanes;
mod rows;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub use act::act_grad_slice;
pub use act::act_slice;
pub use lanes::{norm_act_lanes, norm_act_lanes_grad};
pub use rows::{norm_act_rows, norm_act_rows_grad};

/// What a vector of features is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Nothing: no scale and no shift either.
    None,
    /// The root of its mean square; then times `scale`.
    Rms,
    /// Its standard deviation, after taking off its mean; then times `scale` plus `shift`.
    Layer,
}

/// The function applied last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    None,
    Silu,
    Relu,
    /// The square of `Relu`.
    Relu2,
    /// In its tanh form.
    Gelu,
    Mish,
    Tanh,
    Elu,
    Sigmoid,
    Softplus,
}

/// A normalisation with its parameters, and an activation.
#[derive(Clone, Copy, Debug)]
pub struct NormAct<'a> {
    pub norm: Norm,
    pub act: Act,
    /// Added to the mean square or variance before its root; 1e-4 unless configured otherwise.
    pub epsilon: f32,
    /// One number per feature, for `Rms` and `Layer`; else unused.
    pub scale: &'a [f32],
    /// One number per feature, for `Layer`; else unused.
    pub shift: &'a [f32],
}

impl NormAct<'_> {
    fn check(&self, features: usize) {
        let need = |used: bool| if used { features } else { 0 };
        assert!(self.scale.len() >= need(self.norm != Norm::None), "{} scales for {features}", self.scale.len());
        assert!(self.shift.len() >= need(self.norm == Norm::Layer), "{} shifts for {features}", self.shift.len());
    }

    /// Panics if a parameter that the norm has lacks a gradient of `features` floats.
    fn check_grads(&self, features: usize, dscale: &[f32], dshift: &[f32]) {
        let need = |used: bool| if used { features } else { 0 };
        assert!(dscale.len() >= need(self.norm != Norm::None), "scale gradient of {} for {features}", dscale.len());
        assert!(dshift.len() >= need(self.norm == Norm::Layer), "shift gradient of {} for {features}", dshift.len());
    }
}
