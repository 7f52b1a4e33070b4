//! The file format of chunks, latents and batches: a JSON header, named arrays and a checksum.
//!
//! `docs/replay-format.md` describes it for readers in other languages.

use crate::files::replace;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use spaces::{Array, DType, Record};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

const MAGIC: [u8; 8] = *b"DRMREPLY";
const VERSION: u32 = 1;
/// Bytes before the JSON: magic, version, length of the JSON.
const PREFIX: usize = 16;
/// Every array starts at a multiple of this, counted from the start of the file.
const ALIGN: usize = 8;

/// What the file is about. Unused numbers are 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// `chunk`, `latent` or `batch`.
    pub kind: String,
    /// The chunk's number, its predecessor's and its successor's in the same stream; 0 is none.
    pub id: u64,
    pub pred: u64,
    pub succ: u64,
    /// Which save wrote the file.
    pub generation: u64,
    /// The stream's worker.
    pub worker: usize,
    /// Steps in the chunk.
    pub length: usize,
    /// When the last step was added, in steps of the whole replay.
    pub last_order: u64,
    /// The arrays in the order of their data.
    pub keys: Vec<Key>,
}

/// One array: little-endian, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    pub name: String,
    /// numpy's name of the element type.
    pub dtype: String,
    pub shape: Vec<usize>,
    /// Bytes from the end of the header to the first element.
    pub offset: usize,
}

/// Writes `arrays` under `header` (whose `keys` are filled in here), replacing `path` at once.
pub fn write(path: &Path, header: Header, arrays: &[(&str, &Array)]) -> Result<()> {
    replace(path, |file| encode(header, arrays, file))
}

/// Writes the content of a file.
pub fn encode(mut header: Header, arrays: &[(&str, &Array)], file: &mut impl Write) -> std::io::Result<()> {
    let mut offset = 0;
    for (name, array) in arrays {
        let (dtype, shape) = (array.dtype().name().to_string(), array.shape.clone());
        header.keys.push(Key { name: name.to_string(), dtype, shape, offset });
        offset += (array.len() * array.dtype().size()).next_multiple_of(ALIGN);
    }
    let mut json = serde_json::to_vec(&header)?;
    json.resize((PREFIX + json.len()).next_multiple_of(ALIGN) - PREFIX, b' ');
    let mut sum = crc32fast::Hasher::new();
    let mut put = |bytes: &[u8]| {
        sum.update(bytes);
        file.write_all(bytes)
    };
    put(&MAGIC)?;
    put(&VERSION.to_le_bytes())?;
    put(&(json.len() as u32).to_le_bytes())?;
    put(&json)?;
    for (_, array) in arrays {
        let bytes = array.to_bytes();
        put(&bytes)?;
        put(&[0; ALIGN][..bytes.len().next_multiple_of(ALIGN) - bytes.len()])?;
    }
    file.write_all(&sum.finalize().to_le_bytes())
}

/// The header alone, without a look at the checksum.
pub fn read_header(path: &Path) -> Result<Header> {
    let mut file = File::open(path)?;
    let mut prefix = [0; PREFIX];
    file.read_exact(&mut prefix).context("it ends within its header")?;
    let length = header_length(&prefix)?;
    ensure!((length + PREFIX) as u64 <= file.metadata()?.len(), "it ends within its header");
    let mut json = vec![0; length];
    file.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// Header and arrays, after the checksum has been found right.
pub fn read(path: &Path) -> Result<(Header, Record)> {
    decode(&fs::read(path)?)
}

/// The same from the content of a file.
pub fn decode(bytes: &[u8]) -> Result<(Header, Record)> {
    ensure!(bytes.len() >= PREFIX + 4, "it has {} bytes, fewer than an empty file of this format", bytes.len());
    let length = header_length(bytes)?;
    let (content, sum) = bytes.split_at(bytes.len() - 4);
    ensure!(crc32fast::hash(content).to_le_bytes() == sum, "its checksum is wrong: it is damaged or incomplete");
    let (Some(json), Some(data)) = (content.get(PREFIX..PREFIX + length), content.get(PREFIX + length..)) else {
        bail!("its header is longer than the file");
    };
    let header: Header = serde_json::from_slice(json)?;
    let mut record = Record::new();
    for key in &header.keys {
        let array = array(key, data).with_context(|| format!("key '{}' does not fit into the file", key.name))?;
        record.insert(key.name.clone(), array);
    }
    Ok((header, record))
}

fn array(key: &Key, data: &[u8]) -> Option<Array> {
    let dtypes = [DType::Bool, DType::U8, DType::I32, DType::F16, DType::F32];
    let dtype = dtypes.into_iter().find(|dtype| dtype.name() == key.dtype)?;
    let size = key.shape.iter().try_fold(dtype.size(), |size, &n| size.checked_mul(n))?;
    Array::from_bytes(dtype, &key.shape, data.get(key.offset..key.offset.checked_add(size)?)?)
}

/// Checks magic and version and returns the length of the JSON. `bytes` holds the prefix at least.
fn header_length(bytes: &[u8]) -> Result<usize> {
    ensure!(bytes[..8] == MAGIC, "it does not start with the mark of a replay file");
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    ensure!(number(8) == VERSION, "it is of format version {}; this program reads version {VERSION}", number(8));
    Ok(number(12) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(path: &Path) -> Record {
        let a = Array::from_f32(&[3], vec![1.0, -2.0, 0.5]);
        let b = Array::from_bool(&[3, 1], vec![true, false, true]);
        let header = Header { kind: "chunk".into(), id: 7, length: 3, ..Header::default() };
        write(path, header, &[("reward", &a), ("flag", &b)]).unwrap();
        Record::from([("reward".into(), a), ("flag".into(), b)])
    }

    #[test]
    fn files_come_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.chunk");
        let record = example(&path);
        let (header, arrays) = read(&path).unwrap();
        assert_eq!((header.id, header.length), (7, 3));
        assert_eq!(arrays, record);
        assert_eq!(read_header(&path).unwrap(), header);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.chunk");
        example(&path);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).unwrap();
            assert!(read(&path).is_err(), "flip at byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path).is_err(), "truncated to {at} bytes");
            let _ = read_header(&path);
        }
    }
}
