//! Where an agent computes: what `device` and `devices` mean on this machine.

use crate::log::eprintln_above;
use anyhow::{Result, anyhow, bail};
use config::Config;
use dreamer_agent::{Agent, trial};
use engine::Device;
use engine::cuda::{self, Gpu, Precision};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How long a GPU selected by `auto` may take to start and pass the trial; its kernels may have to be compiled first.
const PATIENCE: Duration = Duration::from_secs(180);

/// The GPUs by number, and their precision.
#[derive(Clone, PartialEq)]
struct Wanted {
    devices: Vec<usize>,
    precision: Precision,
}

/// Moves the agent to the devices that `config` names.
pub fn place(agent: Agent, config: &Config) -> Result<Agent> {
    match gpus(config)?.as_slice() {
        [] => Ok(agent),
        [gpu] => Ok(agent.to(Device::Gpu(gpu))),
        several => agent.spread(several),
    }
}

/// The GPUs that `config` means; none where the processor computes.
pub fn gpus(config: &Config) -> Result<Vec<&'static Gpu>> {
    let wanted = Wanted::new(config);
    Ok(match config.device.as_str() {
        "cpu" => vec![],
        "auto" => wanted.found(),
        _ => wanted.open()?,
    })
}

/// Refuses a GPU that was asked for and cannot be used.
pub fn check(config: &Config) -> Result<()> {
    if config.device == "cuda" { Wanted::new(config).open().map(drop) } else { Ok(()) }
}

impl Wanted {
    fn new(config: &Config) -> Wanted {
        let float32 = config.compute_dtype == "float32";
        let count = if config.script == "eval_only" { 1 } else { config.devices.len() };
        Wanted {
            devices: config.devices.iter().take(count).copied().collect(),
            precision: if float32 { Precision::Float32 } else { Precision::Bfloat16 },
        }
    }

    fn open(&self) -> Result<Vec<&'static Gpu>> {
        let compiling = |gpu| eprintln_above(&format!("note: compiling the kernels of {gpu:?}, which takes a while"));
        let open = |&index: &usize| cuda::open(index, self.precision, compiling);
        self.devices.iter().map(open).collect::<Result<_, _>>().map_err(|sentence| anyhow!("device 'cuda': {sentence}"))
    }

    /// What `auto` means: the GPUs, if there are any and they agree with the processor; else the processor, with a note
    /// that says why if there is a GPU. Determined once per process.
    fn found(&self) -> Vec<&'static Gpu> {
        static FOUND: Mutex<Vec<(Wanted, Vec<&'static Gpu>)>> = Mutex::new(Vec::new());
        let mut found = FOUND.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, gpus)) = found.iter().find(|(wanted, _)| wanted == self) {
            return gpus.clone();
        }
        let gpus = if cuda::is_there() { self.tried() } else { Ok(vec![]) };
        let gpus = gpus.unwrap_or_else(|error| {
            eprintln_above(&format!("note: computing on the processor, not on a GPU: {error:#}"));
            vec![]
        });
        found.push((self.clone(), gpus.clone()));
        gpus
    }

    fn tried(&self) -> Result<Vec<&'static Gpu>> {
        let wanted = self.clone();
        within(PATIENCE, move || {
            let gpus = wanted.open()?;
            gpus.iter().try_for_each(|gpu| try_out(gpu)).map(|()| gpus)
        })
    }
}

/// Tries a GPU, once for each program and version of CUDA. An error says that it disagrees with the processor.
fn try_out(gpu: &'static Gpu) -> Result<()> {
    if gpu.is_trusted() {
        return Ok(());
    }
    eprintln_above(&format!("note: trying {gpu:?} against the processor, this once; --device cpu does without"));
    trial(gpu).map_err(|error| anyhow!("{gpu:?} has failed a trial: {error:#}"))?;
    gpu.trust();
    gpu.release_pool();
    Ok(())
}

/// Runs `f` in a thread of its own, as a GPU may panic (which has said why) or never answer.
fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (send, receive) = channel();
    thread::spawn(move || send.send(f()));
    match receive.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => bail!("it gave no answer in {} seconds", limit.as_secs()),
        Err(RecvTimeoutError::Disconnected) => bail!("it failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_without_end() {
        let second = Duration::from_secs(1);
        assert_eq!(within(second, || Ok(3)).unwrap(), 3);
        assert_eq!(within(second, || bail!("a sentence") as Result<()>).unwrap_err().to_string(), "a sentence");
        let panics = within(second, || -> Result<()> { panic!("on purpose") });
        assert_eq!(panics.unwrap_err().to_string(), "it failed");
        let hangs = within(Duration::from_millis(10), || {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        assert_eq!(hangs.unwrap_err().to_string(), "it gave no answer in 0 seconds");
    }
}
