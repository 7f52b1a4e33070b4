//! `Draft`: a tensor under construction, filled by copies of rows, on any device.

use crate::buffer::Buffer;
use crate::cuda::Grid;
use crate::tensor::{Device, Tensor};

pub(super) enum Draft {
    Cpu(Buffer),
    Gpu(Tensor),
}

/// Where rows lie: row (i, j) begins at `start + i outer + j inner`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub start: usize,
    pub outer: usize,
    pub inner: usize,
}

impl Rows {
    pub fn new(start: usize, outer: usize, inner: usize) -> Rows {
        Rows { start, outer, inner }
    }

    fn at(self, i: usize, j: usize) -> usize {
        self.start + i * self.outer + j * self.inner
    }
}

impl Draft {
    /// Room for `len` numbers, all of which must be copied to.
    pub fn new(len: usize, device: Device) -> Draft {
        match device {
            Device::Cpu => Draft::Cpu(Buffer::stale(len)),
            Device::Gpu(gpu) => Draft::Gpu(gpu.empty(&[len])),
        }
    }

    /// Copies `a` times `b` rows of `n` numbers from `from` to `to`; zeros where `from` is `None`.
    pub fn copy(&mut self, to: Rows, from: Option<(&Tensor, Rows)>, [a, b, n]: [usize; 3]) {
        if a * b * n == 0 {
            return;
        }
        match self {
            Draft::Cpu(out) => {
                for i in 0..a {
                    for j in 0..b {
                        let out = &mut out[to.at(i, j)..][..n];
                        match &from {
                            Some((x, rows)) => out.copy_from_slice(&x.data()[rows.at(i, j)..][..n]),
                            None => out.fill(0.0),
                        }
                    }
                }
            }
            Draft::Gpu(out) => {
                let Device::Gpu(gpu) = out.device() else { unreachable!("made on a GPU") };
                let source = from.map(|(x, rows)| (x.address() + 4 * rows.start as u64, rows.outer, rows.inner));
                let (x, outer, inner) = source.unwrap_or_default();
                let target = out.address() + 4 * to.start as u64;
                let grid = Grid::elements(a * b * n);
                gpu.launch(
                    "copies",
                    "copy_rows",
                    grid,
                    &[&x, &outer, &inner, &target, &to.outer, &to.inner, &a, &b, &n],
                );
            }
        }
    }

    pub fn finish(self, shape: &[usize]) -> Tensor {
        match self {
            Draft::Cpu(out) => Tensor::new(shape, out),
            Draft::Gpu(out) => out.view(0, shape),
        }
    }
}
