//! The recurrent state between calls.

use crate::agent::Agent;
use crate::rssm::Latent;
use anyhow::{Result, anyhow, ensure};
use engine::{Device, Tensor};
use spaces::{Array, Record};

/// Recurrent state of `n` environments (or sequences): the latent, the previous action, and how many
/// steps were taken (which keys the noise).
#[derive(Clone)]
pub struct Carry {
    pub(crate) latent: Latent,
    /// Embedded: one-hot or float, all keys in sorted order [N, A].
    pub(crate) prevact: Tensor,
    pub(crate) step: u64,
}

impl Carry {
    /// The same state with another step count, and so with other random draws.
    pub fn at_step(self, step: u64) -> Carry {
        Carry { step, ..self }
    }

    /// The same state on another device.
    pub fn to(&self, device: Device) -> Carry {
        let latent = Latent { deter: self.latent.deter.to(device), stoch: self.latent.stoch.to(device) };
        Carry { latent, prevact: self.prevact.to(device), step: self.step }
    }

    /// Copies the state over that of `to`, on the same GPU; not the count of steps.
    pub(crate) fn copy_over(&self, to: &Carry) {
        self.latent.deter.copy_over(&to.latent.deter);
        self.latent.stoch.copy_over(&to.latent.stoch);
        self.prevact.copy_over(&to.prevact);
    }

    /// Number of environments or sequences.
    pub fn len(&self) -> usize {
        self.latent.deter.dim(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The carry as named arrays, for checkpoints; the inverse of [`Carry::from_record`].
    pub fn to_record(&self) -> Record {
        let array = |x: &Tensor| Array::from_f32(x.shape(), x.host().data().to_vec());
        let step = vec![self.step as u32 as i32, (self.step >> 32) as i32];
        Record::from([
            ("deter".into(), array(&self.latent.deter)),
            ("stoch".into(), array(&self.latent.stoch)),
            ("prevact".into(), array(&self.prevact)),
            ("step".into(), Array::from_i32(&[2], step)),
        ])
    }

    /// Refuses the state of an agent of other sizes.
    pub(crate) fn check(&self, agent: &Agent) -> Result<()> {
        let found = [&self.latent.deter, &self.latent.stoch, &self.prevact].map(Tensor::shape);
        let expected = agent.sizes().map(|width| [self.len(), width]);
        ensure!(
            found == expected,
            "the carry is of another agent: its deter, stoch and previous action are {found:?}, not {expected:?}"
        );
        Ok(())
    }

    pub fn from_record(record: &Record) -> Result<Carry> {
        let get = |key: &str| record.get(key).ok_or_else(|| anyhow!("the saved carry lacks '{key}'"));
        let tensor = |key: &str| {
            let array = get(key)?;
            ensure!(
                array.shape.len() == 2,
                "the saved carry's '{key}' is {:?}, not a row for each environment",
                array.shape
            );
            Ok(Tensor::from_slice(&array.shape, &array.to_f32()))
        };
        let &[low, high] = get("step")?.to_i32().as_slice() else {
            return Err(anyhow!("the saved carry's 'step' is not two integers"));
        };
        Ok(Carry {
            latent: Latent { deter: tensor("deter")?, stoch: tensor("stoch")? },
            prevact: tensor("prevact")?,
            step: low as u32 as u64 | (high as u32 as u64) << 32,
        })
    }
}
