//! `Draft`: a tensor under construction, filled by copies of rows, on any device.

use crate::buffer::Buffer;
use crate::cuda::{Gpu, Grid, Table};
use crate::tensor::{Device, Dtype, Tensor};

pub(super) enum Draft {
    Cpu(Buffer),
    /// Copies are queued, and done together at the end.
    Gpu(&'static Gpu, Tensor, Vec<Job>),
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

/// A pending copy, which keeps its source alive; counted in bytes.
pub(super) struct Job {
    from: Option<Tensor>,
    addresses: [u64; 2],
    /// Outer and inner, of source and target.
    strides: [usize; 4],
    size: [usize; 3],
}

impl Draft {
    /// Room for `len` numbers, all of which must be copied to, from tensors like `x`.
    pub fn like(x: &Tensor, len: usize) -> Draft {
        Draft::of(len, x.device(), x.dtype())
    }

    /// The same for tensors of the same or different types: float32 unless all are of another one.
    pub fn joining<'a>(len: usize, xs: impl Iterator<Item = &'a Tensor>) -> Draft {
        let mut xs = xs.map(|x| (x.device(), x.dtype()));
        let (device, dtype) = xs.next().expect("at least one tensor to join");
        Draft::of(len, device, if xs.all(|(_, other)| other == dtype) { dtype } else { Dtype::F32 })
    }

    fn of(len: usize, device: Device, dtype: Dtype) -> Draft {
        match device {
            Device::Cpu => Draft::Cpu(Buffer::stale(len)),
            Device::Gpu(gpu) => Draft::Gpu(gpu, gpu.empty_as(&[len], dtype), vec![]),
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
            Draft::Gpu(gpu, out, jobs) => {
                let each = out.dtype().bytes();
                let address = |x: &Tensor, rows: Rows| x.address() + (each * rows.start) as u64;
                let from = from.map(|(x, rows)| (gpu.cast(x, out.dtype()), rows));
                let source = from.as_ref().map_or((0, 0, 0), |(x, rows)| (address(x, *rows), rows.outer, rows.inner));
                jobs.push(Job {
                    addresses: [source.0, address(out, to)],
                    strides: [source.1, source.2, to.outer, to.inner].map(|stride| each * stride),
                    size: [a, b, each * n],
                    from: from.map(|(x, _)| x),
                });
            }
        }
    }

    pub fn finish(self, shape: &[usize]) -> Tensor {
        Draft::finish_all(vec![(self, shape)]).remove(0)
    }

    /// Finishes several drafts together.
    pub fn finish_all(drafts: Vec<(Draft, &[usize])>) -> Vec<Tensor> {
        let (mut jobs, mut on) = (Vec::new(), None);
        let finish = |(draft, shape): (Draft, &[usize])| match draft {
            Draft::Cpu(out) => Tensor::new(shape, out),
            Draft::Gpu(gpu, out, more) => {
                jobs.extend(more);
                on = Some(gpu);
                out.view(0, shape)
            }
        };
        let tensors = drafts.into_iter().map(finish).collect();
        if let Some(gpu) = on {
            jobs.chunks(JOBS).for_each(|jobs| copy(gpu, jobs));
        }
        tensors
    }
}

/// Jobs of one launch, and units that one block of threads copies, as in kernels/copies.cu.
const JOBS: usize = 80;
const UNITS: usize = 1024;

/// The widest unit of bytes in which all of these numbers of bytes can be counted, up to 16.
pub(super) fn unit(bytes: impl Iterator<Item = u64>) -> usize {
    let all = bytes.fold(16, |all, x| all | x);
    1 << all.trailing_zeros()
}

fn copy(gpu: &'static Gpu, jobs: &[Job]) {
    // Along axes of one element strides do not matter.
    let strides = |job: &Job| {
        let [a, b, _] = job.size;
        let [si, sj, ti, tj] = job.strides;
        let along = |len: usize, stride: usize| if len > 1 { stride } else { 0 };
        [along(a, si), along(b, sj), along(a, ti), along(b, tj)]
    };
    let lengths = |job: &Job| {
        let sizes = strides(job).into_iter().chain([job.size[2]]).map(|x| x as u64);
        sizes.chain(job.addresses).collect::<Vec<u64>>()
    };
    debug_assert!(jobs.iter().all(|job| job.from.as_ref().is_none_or(|x| x.device() == Device::Gpu(gpu))));
    let unit = unit(jobs.iter().flat_map(lengths));
    let mut table = Table::default();
    for i in 0..2 {
        table.addresses(JOBS, jobs.iter().map(|job| job.addresses[i]));
    }
    for i in 0..4 {
        table.numbers(JOBS, jobs.iter().map(|job| strides(job)[i] / unit));
    }
    let moved = |job: &Job| job.size.iter().product::<usize>() * if job.from.is_some() { 2 } else { 1 };
    table.moves(jobs.iter().map(moved).sum());
    let len = |job: &Job| job.size.iter().product::<usize>() / unit;
    table.numbers(JOBS, jobs.iter().map(|job| job.size[1]));
    table.numbers(JOBS, jobs.iter().map(|job| job.size[2] / unit));
    table.numbers(JOBS, jobs.iter().map(len));
    let blocks = table.ends(JOBS, jobs.iter().map(|job| len(job).div_ceil(UNITS)));
    gpu.launch("copies", "copy", Grid::blocks(blocks, 256), &[&table, &jobs.len(), &unit]);
}
