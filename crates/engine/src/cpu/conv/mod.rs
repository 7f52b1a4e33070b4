//! Convolutions on the *lanes layout*: one vector holds the same pixel and channel of several images.
//!
//! A group of [`lanes`](super::lanes) images is `[channels][height][width + 2 pad][lanes]`, with `pad`
//! columns of zeros at either side; rows above and below are skipped by the kernels. Every load is one
//! aligned vector whatever the number of channels, and pooling and normalisation need no shuffles.
//! A group with fewer images has zeros in the other lanes, which add nothing to any gradient.
//!
//! Every function works on one group. A function that writes a padded buffer also writes its zeros.

mod forward;
mod image;
mod input_grad;
mod layout;
mod pool;
mod tile;
mod upsample;
mod weight_grad;
mod weights;

#[cfg(test)]
mod tests;

pub use forward::conv;
pub use image::{Image, conv_image};
pub use input_grad::conv_input_grad;
pub use layout::{f32_to_lanes, lanes_to_f32, u8_to_lanes};
pub use pool::{conv_pool, unpool};
pub use upsample::{UpsampleShape, reduce_upsample_grad, split_phases, upsample_conv};
pub use weight_grad::{conv_bias_grad, conv_weight_grad, reduce_bias_grad, reduce_weight_grad};
pub use weights::ConvWeights;

/// One convolution with a square kernel of odd size and SAME padding, as XLA pads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input height and width.
    pub h: usize,
    pub w: usize,
    /// Input and output channels.
    pub ci: usize,
    pub co: usize,
    /// Kernel size, odd.
    pub k: usize,
    /// 1 or 2.
    pub stride: usize,
}

impl ConvShape {
    /// Output height.
    pub fn out_h(&self) -> usize {
        self.h.div_ceil(self.stride)
    }

    /// Output width.
    pub fn out_w(&self) -> usize {
        self.w.div_ceil(self.stride)
    }

    /// Columns of zeros that the kernels need on either side of `x`, and of `dy` for the input gradient.
    pub fn pad(&self) -> usize {
        self.k / 2
    }

    /// Floats of the lane accumulators that [`conv_weight_grad`] adds to.
    pub fn weight_grad_len(&self) -> usize {
        self.k * self.k * self.ci * self.co * super::lanes()
    }

    /// Floating-point operations for one image as executed: kernel rows outside the image are skipped, columns are not.
    /// The gradients of input and weights take as many each.
    pub fn flops(&self) -> usize {
        let (top, k) = (self.before(self.h), self.k);
        let rows = (0..self.out_h()).map(|y| y * self.stride);
        let taps: usize = rows.map(|y| (y + k).min(top + self.h).saturating_sub(y.max(top))).sum();
        2 * taps * self.out_w() * k * self.ci * self.co
    }

    /// Floating-point operations for one image if no kernel row is skipped.
    pub fn dense_flops(&self) -> usize {
        2 * self.out_h() * self.out_w() * self.k * self.k * self.ci * self.co
    }

    /// Rows or columns of SAME padding before an input of `size`: half of the total, rounded down.
    fn before(&self, size: usize) -> usize {
        let last = (size.div_ceil(self.stride).max(1) - 1) * self.stride;
        (last + self.k).saturating_sub(size) / 2
    }

    fn check(&self) {
        assert!(self.k % 2 == 1, "convolution kernels of even size ({}) are not supported", self.k);
        assert!(matches!(self.stride, 1 | 2), "a stride of {} is not supported, only 1 and 2", self.stride);
        assert!(self.h > 0 && self.w > 0, "an image of {} x {} has no pixels", self.h, self.w);
    }
}

/// Floats of one group in the lanes layout.
pub fn group_len(channels: usize, h: usize, w: usize, pad: usize) -> usize {
    let len = || pad.checked_mul(2)?.checked_add(w)?.checked_mul(h)?.checked_mul(channels)?.checked_mul(super::lanes());
    len().unwrap_or_else(|| panic!("[{channels}, {h}, {w} + 2 * {pad}] in lanes is more than memory has addresses"))
}

/// Panics unless `len` floats hold a group with at least `least` columns of padding.
pub(super) fn check_group(name: &str, len: usize, [channels, h, w]: [usize; 3], pad: usize, least: usize) {
    assert!(pad >= least, "{name} has {pad} columns of padding, the kernel wants {least}");
    let need = group_len(channels, h, w, pad);
    assert!(len >= need, "{name}: {len} floats given, [{channels}, {h}, {w} + 2 * {pad}] in lanes needs {need}");
}

/// Zeroes the padding on both sides of `rows` rows of `w` pixels.
pub(super) fn zero_padding(out: &mut [f32], rows: usize, w: usize, pad: usize) {
    if pad > 0 {
        let l = super::lanes();
        for row in out.chunks_exact_mut((w + 2 * pad) * l).take(rows) {
            row[..pad * l].fill(0.0);
            row[(pad + w) * l..].fill(0.0);
        }
    }
}
