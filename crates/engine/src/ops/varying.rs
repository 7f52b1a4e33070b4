//! `Varying`: what differs from one update to the next, in memory that kernels read when they run, so that an update
//! captured once can be replayed.

use super::zeros;
use crate::cuda::{Arg, Grid};
use crate::tensor::{Device, Tensor};

/// Numbers in memory that stays where it is: `[lr, correct1, correct2]` of the optimizer (see
/// [`OptimizerStep::varying`](super::OptimizerStep::varying)) and the step of the random numbers.
#[derive(Clone)]
pub struct Varying(Tensor);

impl Varying {
    /// All zero, on `device`.
    pub fn new(device: Device) -> Varying {
        Varying(zeros(&[4], device))
    }

    /// Sets everything, for kernels that are started from now on. Does not wait for a GPU.
    pub fn set(&self, rates: [f32; 3], step: u64) {
        match self.0.device() {
            Device::Cpu => panic!("the processor is told what varies by value"),
            Device::Gpu(gpu) => {
                let [lr, correct1, correct2] = &rates;
                let args: [&dyn Arg; 5] = [&self.0, lr, correct1, correct2, &(step as u32)];
                gpu.launch("elementwise", "set_words", Grid::blocks(1, 32), &args);
            }
        }
    }

    /// For [`optimizer_launch`](super::optimizer_launch): [3].
    pub fn rates(&self) -> Tensor {
        self.0.view(0, &[3])
    }

    /// For [`Rng::with_step_at`](crate::Rng::with_step_at): [1], the bits of a 32-bit number.
    pub fn step(&self) -> Tensor {
        self.0.view(3, &[1])
    }
}
