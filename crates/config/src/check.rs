//! Values that no run can work with.

use crate::{Config, nearest};
use anyhow::{Result, anyhow, bail, ensure};
use regex::Regex;

impl Config {
    /// Refuses values that no run can work with, with a sentence that names the key. The agent checks its own part when
    /// it is built.
    pub fn check(&self) -> Result<()> {
        let config = self;
        choice("script", &config.script, &["train", "train_eval", "eval_only"])?;
        ensure!(
            config.device != "gpu" && !config.device.starts_with("cuda:"),
            "'device' is '{}', but must be one of auto, cpu, cuda; --device cuda --devices 1 means GPU number 1",
            config.device
        );
        choice("device", &config.device, &["auto", "cpu", "cuda"])?;
        ensure!(!config.logdir.is_empty(), "'logdir' is empty, but must name a folder");
        ensure!(config.threads <= 1024, "'threads' is {}, but must be at most 1024", config.threads);
        let ratio = config.run.train_ratio;
        ensure!(
            ratio >= 0.0 || ratio == -1.0,
            "'run.train_ratio' is {ratio}, but must be 0 or more, or -1 for an update after each step"
        );
        let duration = config.run.duration;
        ensure!(duration >= 0.0, "'run.duration' is {duration}, but must be seconds, or 0 for no end");
        choice("compute_dtype", &config.compute_dtype, &["bfloat16", "float32"])?;
        config.check_devices()?;
        for output in &config.logger.outputs {
            choice("logger.outputs", output, &["jsonl", "tensorboard"])?;
        }
        let positive = [
            ("batch_size", config.batch_size),
            ("batch_length", config.batch_length),
            ("report_length", config.report_length),
            ("consec_train", config.consec_train),
            ("consec_report", config.consec_report),
            ("replay.chunksize", config.replay.chunksize),
            ("run.envs", config.run.envs),
            ("run.report_batches", config.run.report_batches),
            ("logger.fps", config.logger.fps as usize),
        ];
        for (key, value) in positive {
            ensure!(value > 0, "'{key}' is 0, but must be at least 1");
        }
        let parts = |count: usize, length: usize| count.saturating_mul(length);
        let report = parts(config.consec_report, config.report_length);
        let train = parts(config.consec_train, config.batch_length);
        ensure!(
            report <= train,
            "'consec_report' * 'report_length' is {report}, more than 'consec_train' * 'batch_length', {train}: \
             reports are cut from sequences of training; lower 'report_length'"
        );
        let share = config.replay.memory_share;
        ensure!(share > 0.0 && share <= 1.0, "'replay.memory_share' is {share}, but must be above 0 and at most 1");
        let kept = config.replay.gpu_gb;
        ensure!((0.0..1e6).contains(&kept), "'replay.gpu_gb' is {kept}, but must be gigabytes, from 0 to a million");
        let needed = parts(config.batch_size, train.saturating_add(config.replay_context));
        let size = config.replay.size;
        ensure!(size >= needed, "'replay.size' is {size}, but must be at least {needed} steps: one training batch");
        let needed = parts(parts(10, config.batch_size), report.saturating_add(config.replay_context));
        ensure!(
            config.script != "train_eval" || size >= needed,
            "'replay.size' is {size}, but must be at least {needed} steps: the replay of evaluation is a tenth of it, \
             and holds one batch of reports"
        );
        let fracs = &config.replay.fracs;
        for (key, frac) in [("uniform", fracs.uniform), ("priority", fracs.priority), ("recency", fracs.recency)] {
            ensure!(frac >= 0.0, "'replay.fracs.{key}' is {frac}, but must not be negative");
        }
        let sum = fracs.uniform + fracs.priority + fracs.recency;
        ensure!((sum - 1.0).abs() < 1e-6, "'replay.fracs' add up to {sum}, but must add up to 1");
        let patterns = [
            ("logger.filter", &config.logger.filter),
            ("run.from_checkpoint_regex", &config.run.from_checkpoint_regex),
            ("agent.opt.wdregex", &config.agent.opt.wdregex),
        ];
        for (key, pattern) in patterns {
            Regex::new(pattern)
                .map_err(|_| anyhow!("'{key}' is '{pattern}', which is not a valid regular expression"))?;
        }
        Ok(())
    }

    /// Checks what several GPUs need.
    fn check_devices(&self) -> Result<()> {
        let count = self.devices.len();
        ensure!(count > 0, "'devices' is empty, but must name at least one GPU, such as 0");
        if count == 1 {
            return Ok(());
        }
        let twice = (1..count).find(|&i| self.devices[..i].contains(&self.devices[i]));
        if let Some(i) = twice {
            bail!("'devices' names GPU {} twice; each can take one part of the batch", self.devices[i]);
        }
        ensure!(self.device == "cuda", "'devices' names {count} GPUs, but 'device' is '{}'; use cuda", self.device);
        let size = self.batch_size;
        ensure!(
            size.is_multiple_of(count),
            "'batch_size' is {size}, which {count} GPUs of 'devices' cannot share equally"
        );
        ensure!(
            self.consec_train == 1 && self.replay_context > 0,
            "several GPUs carry no states from batch to batch: 'consec_train' must be 1 and 'replay_context' at least 1"
        );
        Ok(())
    }
}

/// Refuses a `value` that is not among the `valid` ones.
fn choice(key: &str, value: &str, valid: &[&str]) -> Result<()> {
    if valid.contains(&value) {
        return Ok(());
    }
    let near = nearest(value, valid.iter().copied()).unwrap_or_default();
    bail!("'{key}' is '{value}', but must be one of {}; the nearest is '{near}'", valid.join(", "))
}
