//! What a failed update leaves behind for whoever looks into it.

use crate::files::make_dir;
use crate::log::{Metrics, Value};
use crate::tensors;
use anyhow::Result;
use spaces::Record;
use std::path::Path;

/// Writes the batch, the agent's tensors before the update, the metrics since the last log line and the error.
pub fn save(dir: &Path, batch: &Record, agent: &Record, metrics: Metrics, error: &anyhow::Error) -> Result<()> {
    dir.parent().map_or(Ok(()), make_dir)?;
    make_dir(dir)?;
    tensors::write(&dir.join("batch.safetensors"), batch, "dreamer batch")?;
    tensors::write(&dir.join("agent.safetensors"), agent, "dreamer agent")?;
    let mut text = serde_json::Map::new();
    text.insert("error".into(), format!("{error:#}").into());
    for (name, value) in metrics {
        if let Value::Scalar(x) = value {
            text.insert(name, x.into());
        }
    }
    Ok(std::fs::write(dir.join("metrics.json"), serde_json::to_vec_pretty(&text)?)?)
}
