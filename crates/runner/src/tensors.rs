//! Records as safetensors bytes: how checkpoints and diagnostics keep their arrays.

use anyhow::{Context, Result, anyhow};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use spaces::{Array, DType, Record};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// Writes `record` to `path`; `about` goes into the file's metadata.
pub fn write(path: &Path, record: &Record, about: &str) -> Result<()> {
    let metadata = HashMap::from([("format".to_string(), about.to_string())]);
    let views = record.iter().map(|(k, v)| (k.as_str(), Lazy(v)));
    let attempt = || -> Result<()> {
        // The library's own file would be for this user alone, whatever others may read.
        let permissions = File::create(path)?.metadata()?.permissions();
        match safetensors::serialize_to_file(views, Some(metadata), path) {
            Err(SafeTensorError::IoError(error)) => Err(error)?, // whose text would be there twice
            written => written?,
        }
        Ok(std::fs::set_permissions(path, permissions)?)
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what [`write`] wrote, or any safetensors file of bool, uint8, int32, float16 and float32.
pub fn read(path: &Path) -> Result<Record> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    let convert = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let array =
            dtype(view.dtype()).and_then(|dtype| Array::from_bytes(dtype, view.shape(), view.data())).ok_or_else(
                || anyhow!("tensor '{name}' of {} is {:?}, which cannot be read", path.display(), view.dtype()),
            )?;
        Ok((name, array))
    };
    file.tensors().into_iter().map(convert).collect()
}

/// An array whose bytes are made when the file is written, one at a time.
struct Lazy<'a>(&'a Array);

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DType::Bool => Dtype::BOOL,
            DType::U8 => Dtype::U8,
            DType::I32 => Dtype::I32,
            DType::F16 => Dtype::F16,
            DType::F32 => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.to_bytes().into()
    }

    fn data_len(&self) -> usize {
        self.0.len() * self.0.dtype().size()
    }
}

fn dtype(of: Dtype) -> Option<DType> {
    match of {
        Dtype::BOOL => Some(DType::Bool),
        Dtype::U8 => Some(DType::U8),
        Dtype::I32 => Some(DType::I32),
        Dtype::F16 => Some(DType::F16),
        Dtype::F32 => Some(DType::F32),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_and_empty_shapes_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let record = Record::from([
            ("bool".to_string(), Array::from_bool(&[2], vec![true, false])),
            ("bytes".to_string(), Array::from_u8(&[0], vec![])),
            ("dyn/deter".to_string(), Array::zeros(DType::F16, &[2, 3])),
            ("int".to_string(), Array::i32(-7)),
            ("nan".to_string(), Array::from_f32(&[2], vec![1e-40, f32::INFINITY])),
        ]);
        write(&path, &record, "test").unwrap();
        assert_eq!(read(&path).unwrap(), record);
    }

    #[test]
    fn a_truncated_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write(&path, &Record::from([("x".to_string(), Array::f32(1.0))]), "test").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("a.safetensors"));
        }
    }
}
