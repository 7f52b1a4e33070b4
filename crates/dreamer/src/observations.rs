//! `Observations`: what the networks see and reconstruct, where the agent is.

use crate::config::AgentConfig;
use crate::data;
use crate::transfer::{Map, Transfer};
use anyhow::{Result, bail};
use engine::{Bytes, Tensor};
use spaces::{Array, Data, Space, Spaces};
use std::collections::BTreeMap;

/// The encoded keys of some rows: steps of environments, or of sequences one after the other.
pub struct Observations {
    pub rows: usize,
    /// Vector keys as the encoder takes them, joined [rows, W]; none where there are no such keys.
    pub vectors: Option<Tensor>,
    /// Pixels of each image key.
    images: BTreeMap<String, Bytes>,
    /// The observed values [rows, K] of each vector key, to be reconstructed; empty where nothing is.
    targets: BTreeMap<String, Tensor>,
}

impl Observations {
    /// The observations of `rows` rows, on the processor. `get` returns the array of a key, its shape checked;
    /// `targets` says whether they will be reconstructed.
    pub fn new(
        obs_space: &Spaces,
        config: &AgentConfig,
        rows: usize,
        targets: bool,
        mut get: impl FnMut(&str, &Space) -> Result<Array>,
    ) -> Result<Observations> {
        let (mut images, mut values) = (BTreeMap::new(), BTreeMap::new());
        let (mut vectors, mut spaces) = (BTreeMap::new(), Vec::new());
        for (key, space) in data::encoded_space(obs_space) {
            let array = get(&key, &space)?;
            match (space.is_image(), array) {
                (true, Array { data: Data::U8(pixels), .. }) => {
                    images.insert(key, Bytes::new(pixels));
                }
                (true, array) => {
                    bail!("image key '{key}' holds {} {:?}, not bytes", array.dtype().name(), array.shape)
                }
                (false, array) => {
                    if targets {
                        values.insert(key.clone(), Tensor::from_slice(&[rows, space.size()], &array.to_f32()));
                    }
                    vectors.insert(key.clone(), array);
                    spaces.push((key, space));
                }
            }
        }
        let keys = spaces.iter().map(|(key, space)| (key, space));
        let vectors = data::vectors(keys, &vectors, rows, config.enc.simple.symlog);
        Ok(Observations { rows, vectors, images, targets: values })
    }

    /// The pixels [rows, H, W, C] of an image key of the space.
    pub fn pixels(&self, key: &str) -> &Bytes {
        &self.images[key]
    }

    /// The observed values [rows, K] of a vector key of the space, where they were asked for.
    pub fn target(&self, key: &str) -> &Tensor {
        &self.targets[key]
    }
}

impl Transfer for Observations {
    fn map(&self, f: &mut impl Map) -> Observations {
        let vectors = self.vectors.as_ref().map(|x| f.tensor(x));
        let images = self.images.iter().map(|(key, x)| (key.clone(), f.bytes(x))).collect();
        let targets = self.targets.iter().map(|(key, x)| (key.clone(), f.tensor(x))).collect();
        Observations { rows: self.rows, vectors, images, targets }
    }
}
