//! Placeholder until the convolution kernels land.

use crate::config::{SimpleDecoder, SimpleEncoder};
use crate::params::{Builder, Params};
use anyhow::Result;
use engine::Tensor;
use spaces::{Record, Spaces};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Cnn {}
impl Cnn {
    pub fn new(_b: &mut Builder, space: &Spaces, _c: &SimpleEncoder) -> Option<Cnn> {
        space.values().any(|s| s.is_image()).then_some(Cnn {})
    }
    pub fn width(&self) -> usize {
        0
    }
    pub fn apply(&self, _p: &Params, _obs: &Record, _rows: usize) -> Result<Tensor> {
        todo!()
    }
}


#[derive(Clone, Debug)]
pub struct Deconv {}
impl Deconv {
    pub fn new(_b: &mut Builder, space: &Spaces, _deter: usize, _latent: usize, _c: &SimpleDecoder) -> Option<Deconv> {
        space.values().any(|s| s.is_image()).then_some(Deconv {})
    }
    pub fn losses(&self, _p: &Params, _d: &Tensor, _s: &Tensor, _obs: &Record) -> Result<Vec<(String, Tensor)>> {
        todo!()
    }
    pub fn predict(&self, _p: &Params, _d: &Tensor, _s: &Tensor) -> BTreeMap<String, Tensor> {
        todo!()
    }
}
