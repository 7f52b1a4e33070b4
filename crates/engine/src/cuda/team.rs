//! `Member`: one of several GPUs of a machine that compute parts of the same thing, each driven by a thread of its own.

use super::gpu::{Backend, Gpu};
use super::nccl::{Comm, Nccl};
use super::queue::{Command, lock};
use crate::tensor::{Dtype, Tensor};
use std::sync::{Arc, Barrier, Mutex};

/// One GPU among others. What a member asks for, all of them ask for, in the same order and with the same shapes.
#[derive(Clone)]
pub struct Member {
    gpu: &'static Gpu,
    rank: usize,
    size: usize,
    link: Link,
}

#[derive(Clone)]
enum Link {
    Nccl(Arc<Nccl>, Arc<Comm>),
    Emulated(Arc<Meeting>),
}

impl Member {
    /// Connects GPUs: a member for each. The error says what is missing and how to get it.
    pub fn connect(gpus: &[&'static Gpu]) -> Result<Vec<Member>, String> {
        for (i, gpu) in gpus.iter().enumerate() {
            if gpus[..i].contains(gpu) {
                return Err(format!("{gpu:?} is named twice; each GPU can take one part"));
            }
        }
        let real = |gpu: &&Gpu| matches!(gpu.backend, Backend::Cuda(_));
        let links: Vec<Link> = if gpus.iter().all(real) {
            let nccl = Arc::new(Nccl::load()?);
            let numbers: Vec<usize> = gpus.iter().map(|gpu| gpu.properties().index).collect();
            nccl.connect(&numbers)?.into_iter().map(|comm| Link::Nccl(nccl.clone(), Arc::new(comm))).collect()
        } else if !gpus.iter().any(real) {
            let meeting = Arc::new(Meeting::new(gpus.len()));
            gpus.iter().map(|_| Link::Emulated(meeting.clone())).collect()
        } else {
            return Err("real and emulated GPUs cannot work together".into());
        };
        let member = |(rank, (&gpu, link))| Member { gpu, rank, size: gpus.len(), link };
        Ok(gpus.iter().zip(links).enumerate().map(member).collect())
    }

    pub fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    /// Its place among the members.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Replaces float32 tensors by their means over all members.
    pub fn average(&self, tensors: &mut [&mut Tensor]) {
        tensors.iter_mut().for_each(|x| x.unshare());
        assert!(tensors.iter().all(|x| x.dtype() == Dtype::F32), "means are of float32 numbers");
        let pieces = tensors.iter().map(|x| (x.address(), x.len())).collect();
        self.ask(Exchange::Average(pieces));
    }

    /// The float32 tensors of all members, one after the other [size, ..].
    pub fn gather(&self, x: &Tensor) -> Tensor {
        assert!(x.dtype() == Dtype::F32, "float32 numbers are gathered");
        let all = self.gpu.empty(&[&[self.size], x.shape()].concat());
        self.ask(Exchange::Gather { from: x.address(), len: x.len(), to: all.address() });
        all
    }

    fn ask(&self, exchange: Exchange) {
        let queue = self.gpu.queue();
        match (&self.gpu.backend, &self.link) {
            (Backend::Cuda(cuda), Link::Nccl(nccl, comm)) => {
                self.gpu.done(cuda.enter());
                let stream = queue.stream().handle();
                // SAFETY: the tensors are this GPU's, as large as they say, and its context was just entered.
                self.gpu.done(unsafe {
                    match &exchange {
                        Exchange::Average(pieces) => nccl.average(comm, pieces, stream),
                        &Exchange::Gather { from, len, to } => nccl.gather(comm, from, len, to, stream),
                    }
                });
            }
            (Backend::Emulator(_), Link::Emulated(meeting)) => {
                let (meeting, rank) = (meeting.clone(), self.rank);
                self.gpu.emulate(&queue, Command::Meet { meeting, rank, exchange });
            }
            _ => unreachable!("members are connected by what their GPUs are"),
        }
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "member {} of {} on {:?}", self.rank, self.size, self.gpu)
    }
}

/// What members ask for, by addresses and numbers of float32 elements.
pub(super) enum Exchange {
    Average(Vec<(u64, usize)>),
    Gather { from: u64, len: usize, to: u64 },
}

/// Where emulated GPUs meet: each comes with its own numbers, and none leaves before all have what they wanted.
pub(super) struct Meeting {
    barrier: Barrier,
    /// What each has brought.
    brought: Mutex<Vec<Vec<(u64, usize)>>>,
}

impl Meeting {
    fn new(size: usize) -> Meeting {
        Meeting { barrier: Barrier::new(size), brought: Mutex::new(vec![vec![]; size]) }
    }

    /// # Safety
    /// Addresses are of memory as large as is said, which nobody else uses meanwhile.
    pub unsafe fn exchange(&self, rank: usize, exchange: &Exchange) {
        lock(&self.brought)[rank] = match exchange {
            Exchange::Average(pieces) => pieces.clone(),
            Exchange::Gather { from, len, .. } => vec![(*from, *len)],
        };
        self.barrier.wait();
        let brought = lock(&self.brought).clone();
        self.barrier.wait(); // all have seen what was brought, and may write now
        // SAFETY: as the caller promises; members read what they gather before anyone leaves, and one alone averages.
        unsafe {
            match exchange {
                Exchange::Average(_) if rank == 0 => average(&brought),
                Exchange::Average(_) => {}
                Exchange::Gather { len, to, .. } => {
                    for (at, pieces) in brought.iter().enumerate() {
                        let (from, to) = (pieces[0].0 as *const f32, *to as *mut f32);
                        std::ptr::copy_nonoverlapping(from, to.add(at * len), *len);
                    }
                }
            }
        }
        self.barrier.wait();
    }
}

/// # Safety
/// Addresses are of memory as large as is said, which nobody else uses meanwhile.
unsafe fn average(brought: &[Vec<(u64, usize)>]) {
    for (piece, &(_, len)) in brought[0].iter().enumerate() {
        let at = |rank: usize, i: usize| {
            assert_eq!(brought[rank][piece].1, len, "members ask for the same");
            (brought[rank][piece].0 as *mut f32).wrapping_add(i)
        };
        for i in 0..len {
            // SAFETY: as the caller promises.
            unsafe {
                let sum: f32 = (0..brought.len()).map(|rank| *at(rank, i)).sum();
                (0..brought.len()).for_each(|rank| *at(rank, i) = sum / brought.len() as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Precision;
    use crate::ops::multiply;
    use crate::tensor::Device;

    #[test]
    fn members_have_the_same_means_and_all_numbers() {
        let (Ok(a), Ok(b)) = (Gpu::emulated(Precision::Float32), Gpu::emulated(Precision::Float32)) else { return };
        let members = Member::connect(&[a, b]).unwrap();
        let work = |member: &Member| {
            let on = |xs: &[f32]| Tensor::from_slice(&[xs.len()], xs).to(Device::Gpu(member.gpu()));
            let own = on(&[1.0 + member.rank() as f32, 5.0]);
            let f = || {
                let (mut x, mut y) = (multiply(&own, &own), own.detach());
                member.average(&mut [&mut x, &mut y]);
                (x, y, member.gather(&own))
            };
            let values = |(x, y, all): &(Tensor, Tensor, Tensor)| [x, y, all].map(|x| x.host().data().to_vec());
            let once = values(&f());
            let (recording, results) = member.gpu().record(f);
            recording.run();
            assert_eq!(values(&results), once);
            assert_eq!(own.host().data()[1], 5.0, "what others hold stays");
            once
        };
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| work(&members[1]));
            (work(&members[0]), second.join().unwrap())
        });
        assert_eq!(first, second);
        assert_eq!(first, [vec![2.5, 25.0], vec![1.5, 5.0], vec![1.0, 5.0, 2.0, 5.0]]);
        assert!(Member::connect(&[a, a]).unwrap_err().contains("named twice"));
    }
}
