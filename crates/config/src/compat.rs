//! Official keys that mean nothing here: accepted with a warning, so that official commands keep working.

/// Official keys, or prefixes ending in a dot, with the reason why they have no effect.
const IGNORED: [(&str, &str); 21] = [
    ("jax.", "there is no JAX here"),
    ("ipv6", "a run is one process"),
    ("clock_addr", "a run is one process"),
    ("clock_port", "a run is one process"),
    ("replica", "a run is one process"),
    ("replicas", "a run is one process"),
    ("run.actor_addr", "a run is one process"),
    ("run.replay_addr", "a run is one process"),
    ("run.logger_addr", "a run is one process"),
    ("run.actor_batch", "a run is one process"),
    ("run.actor_threads", "a run is one process"),
    ("run.agent_process", "a run is one process"),
    ("run.remote_replay", "a run is one process"),
    ("run.remote_envs", "a run is one process"),
    ("run.debug", "environments run in threads, or in processes of their own"),
    ("run.usage.", "memory and processor use are logged except with run.sync"),
    ("errfile", "errors go to standard error"),
    ("method", "it only labels runs in an official viewer"),
    ("logger.timer", "it has no effect on what is learned or logged here"),
    ("logger.user", "it belongs to a logger that does not exist here"),
    ("replay.priosignal", "the official code does not read it either"),
];

/// Why the official key `key`, which is none of ours, has no effect; `None` where it is not an official key.
pub(crate) fn ignored(key: &str) -> Option<&'static str> {
    let hit = |name: &str| if name.ends_with('.') { key.starts_with(name) } else { key == name };
    IGNORED.iter().find(|(name, _)| hit(name)).map(|(_, reason)| *reason)
}

/// Our `device` for the official `jax.platform`; `None` for platforms that do not exist here.
pub(crate) fn device(platform: &str) -> Option<&'static str> {
    match platform {
        "cpu" => Some("cpu"),
        "cuda" | "gpu" => Some("cuda"),
        _ => None,
    }
}

/// Official outputs of the logger that do not exist here.
pub(crate) const IGNORED_OUTPUTS: [&str; 3] = ["scope", "wandb", "expa"];
