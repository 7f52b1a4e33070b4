//! An update in a thread of its own, while the environments go on with the agent as it was before.

use anyhow::{Context, Result, anyhow};
use dreamer_agent::{Agent, Begun, Carry, Prepared};
use std::thread::JoinHandle;

/// An update that has been started.
pub struct Flight(JoinHandle<Landed>);

/// What comes back: the inputs and the update, which a processor has done by then, while a GPU may be busy with it.
pub struct Landed {
    pub agent: Agent,
    pub carry: Carry,
    pub batch: Prepared,
    pub begun: Result<Begun>,
}

impl Flight {
    pub fn start(mut agent: Agent, mut carry: Carry, mut batch: Prepared) -> Result<Self> {
        let work = move || {
            let begun = agent.begin(&mut carry, &mut batch);
            Landed { agent, carry, batch, begun }
        };
        let thread = std::thread::Builder::new().name("update".into()).spawn(work);
        Ok(Flight(thread.context("cannot start a thread for the update")?))
    }

    /// Waits for agent and carry.
    pub fn land(self) -> Result<Landed> {
        self.0.join().map_err(|_| anyhow!("the update panicked; what it said is above"))
    }
}
