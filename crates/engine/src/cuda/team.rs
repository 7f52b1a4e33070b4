//! `Member`: one of several GPUs of a machine that compute parts of the same thing, each driven by a thread of its own.

use super::gpu::{Backend, Gpu};
use super::memory::MEMORY_CALLS;
use super::nccl::{Comm, Nccl};
use super::queue::{Command, lock};
use crate::tensor::{Dtype, Tensor};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex};

/// One GPU among others. All members have to make the same calls, in the same order and with the same shapes.
#[derive(Clone)]
pub struct Member {
    gpu: &'static Gpu,
    rank: usize,
    team: Arc<Team>,
}

/// What all members share.
pub(super) struct Team {
    meeting: Meeting,
    /// With a communicator for each member; none on emulated GPUs.
    nccl: Option<(Nccl, Vec<Comm>)>,
    /// Addresses and lengths of the numbers that each emulated GPU brings to an exchange.
    brought: Mutex<Vec<Vec<(u64, usize)>>>,
}

impl Member {
    /// Connects GPUs: a member for each. The error says what is missing and how to get it.
    pub fn connect(gpus: &[&'static Gpu]) -> Result<Vec<Member>, String> {
        for (i, gpu) in gpus.iter().enumerate() {
            if gpus[..i].contains(gpu) {
                return Err(format!("{gpu:?} is named twice; each GPU can take one part"));
            }
        }
        let real = gpus.iter().filter(|gpu| matches!(gpu.backend, Backend::Cuda(_))).count();
        if real > 0 && real < gpus.len() {
            return Err("real and emulated GPUs cannot work together".into());
        }
        let arch = |gpu: &&Gpu| gpu.properties().arch;
        if let Some(other) = gpus.iter().find(|gpu| arch(gpu) != arch(&gpus[0])) {
            // Their optimizers need not round alike, and parameters would drift apart unseen.
            return Err(format!(
                "{:?} is sm_{} and {other:?} sm_{}; GPUs that work together must be of one architecture",
                gpus[0],
                arch(&gpus[0]),
                arch(other)
            ));
        }
        let nccl = match real {
            0 => None,
            _ => {
                let nccl = Nccl::load()?;
                let numbers: Vec<usize> = gpus.iter().map(|gpu| gpu.properties().index).collect();
                let comms = nccl.connect(&numbers)?;
                Some((nccl, comms))
            }
        };
        let brought = Mutex::new(vec![vec![]; gpus.len()]);
        let team = Arc::new(Team { meeting: Meeting::new(gpus.len()), nccl, brought });
        let member = |(rank, &gpu)| Member { gpu, rank, team: team.clone() };
        Ok(gpus.iter().enumerate().map(member).collect())
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
        let all = self.gpu.empty(&[&[self.team.meeting.size], x.shape()].concat());
        self.ask(Exchange::Gather { from: x.address(), len: x.len(), to: all.address() });
        all
    }

    fn ask(&self, exchange: Exchange) {
        let (gpu, queue) = (self.gpu, self.gpu.queue());
        let (Backend::Cuda(cuda), Some((nccl, comms))) = (&gpu.backend, &self.team.nccl) else {
            return gpu.emulate(&queue, Command::Exchange { team: self.team.clone(), rank: self.rank, exchange });
        };
        let comm = &comms[self.rank];
        let start = || {
            let stream = queue.stream().handle();
            // SAFETY: the tensors are this GPU's, as large as they say, and its context is entered.
            cuda.enter().and_then(|()| unsafe {
                match &exchange {
                    Exchange::Average(pieces) => nccl.average(comm, pieces, stream),
                    &Exchange::Gather { from, len, to } => nccl.gather(comm, from, len, to, stream),
                }
            })
        };
        gpu.done(if queue.recording { start() } else { self.together(start) });
    }

    /// Starts something in which GPUs wait for each other. All members meet first, and none goes on before all have
    /// started; meanwhile nobody asks the driver for memory. Such a call may wait for every GPU, including one that
    /// waits for a GPU whose part would be started after the call: a deadlock.
    pub fn together<T>(&self, start: impl FnOnce() -> T) -> T {
        // On failure, GPUs must stop waiting for each other before the panic unwinds, which may wait for this GPU.
        let meet = || self.gpu.done(self.team.meeting.meet().inspect_err(|_| self.leave()));
        meet();
        let quiet = (self.rank == 0).then(|| lock(&MEMORY_CALLS));
        meet();
        let started = catch_unwind(AssertUnwindSafe(start)).unwrap_or_else(|panic| {
            self.leave(); // the others wait, and one of them holds a lock that unwinding needs
            resume_unwind(panic)
        });
        meet();
        drop(quiet);
        started
    }

    /// Makes all members stop waiting for each other, as one has failed. They cannot do anything together any more.
    pub fn leave(&self) {
        self.team.meeting.end();
        let comms = self.team.nccl.iter().flat_map(|(_, comms)| comms);
        let open: Vec<usize> = comms.enumerate().filter(|(_, comm)| comm.close()).map(|(rank, _)| rank).collect();
        for rank in open {
            let team = self.team.clone();
            // Not joined: it unblocks the GPU at once, but returns only when recordings that use the communicator are
            // gone.
            let abort = move || team.nccl.iter().for_each(|(nccl, comms)| nccl.abort(&comms[rank]));
            drop(std::thread::Builder::new().name("abort".into()).spawn(abort));
        }
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "member {} of {} on {:?}", self.rank, self.team.meeting.size, self.gpu)
    }
}

/// What members exchange, by addresses and numbers of float32 elements.
pub(super) enum Exchange {
    Average(Vec<(u64, usize)>),
    Gather { from: u64, len: usize, to: u64 },
}

impl Team {
    /// An exchange of emulated GPUs: none returns before all are done.
    ///
    /// # Safety
    /// Addresses are of memory as large as is said, which nobody else uses meanwhile.
    pub unsafe fn exchange(&self, rank: usize, exchange: &Exchange) -> Result<(), String> {
        lock(&self.brought)[rank] = match exchange {
            Exchange::Average(pieces) => pieces.clone(),
            Exchange::Gather { from, len, .. } => vec![(*from, *len)],
        };
        self.meeting.meet()?;
        let brought = lock(&self.brought).clone();
        self.meeting.meet()?; // all have seen what was brought, and may write now
        // SAFETY: as the caller promises; members read what they gather before anyone returns, and only one averages.
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
        self.meeting.meet()
    }
}

/// Where the members' threads wait for each other.
struct Meeting {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How many members have arrived, and how often all have.
    arrived: usize,
    rounds: u64,
    ended: bool,
}

impl Meeting {
    fn new(size: usize) -> Meeting {
        Meeting { size, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until all members have arrived; an error if one never will.
    fn meet(&self) -> Result<(), String> {
        let mut state = lock(&self.state);
        let round = state.rounds;
        if !state.ended {
            state.arrived += 1;
        }
        if state.arrived == self.size {
            (state.arrived, state.rounds) = (0, round + 1);
            self.changed.notify_all();
        }
        while state.rounds == round && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if state.rounds == round { Err("another GPU that it works with has failed".into()) } else { Ok(()) }
    }

    fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
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
    use crate::cuda::emulated_test_gpu;
    use crate::ops::multiply;
    use crate::tensor::Device;

    #[test]
    fn members_have_the_same_means_and_all_numbers() {
        let [a, b] = [(); 2].map(|()| emulated_test_gpu());
        let (Some(a), Some(b)) = (a, b) else { return };
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
            member.together(|| recording.run());
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

    #[test]
    fn nobody_waits_for_a_member_that_failed() {
        let meeting = Meeting::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (meeting.meet(), meeting.meet()));
            meeting.meet().unwrap();
            meeting.end();
            let (first, second) = waiting.join().unwrap();
            assert!(first.is_ok() && second.unwrap_err().contains("has failed"));
        });
        assert!(meeting.meet().is_err());
    }
}
