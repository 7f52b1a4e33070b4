//! TensorBoard event files: TFRecord frames around hand-written protocol buffers, scalars and GIFs.

use super::appender::Appender;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One event file, open for writing. A process start makes a new one; TensorBoard joins them.
pub struct EventWriter {
    pub file: Appender,
}

impl EventWriter {
    /// Creates the next event file in `dir`. With `resume`, TensorBoard is told to forget what
    /// earlier files say of larger steps.
    pub fn create(dir: &Path, resume: Option<u64>) -> Result<Self> {
        let time = wall_time() as u64;
        let stem = format!("events.out.tfevents.{time:010}.{}.{}", host(), std::process::id());
        // The count tells files of one process and second apart.
        let path = (0..).map(|i| dir.join(format!("{stem}.{i}"))).find(|p| !p.exists()).unwrap_or_default();
        let mut writer = EventWriter { file: Appender::open(&path)? };
        writer.event(0, |event| event.bytes(3, b"brain.Event:2"));
        if let Some(step) = resume {
            // Everything after this step is about to be written again: a session log with status START (1).
            writer.event(step + 1, |event| event.message(7, |session| session.varint(1, 1)));
        }
        writer.file.flush()?;
        Ok(writer)
    }

    /// Adds one number, for the file's next flush.
    pub fn scalar(&mut self, step: u64, tag: &str, x: f64) {
        self.summary(step, tag, |value| value.float(2, x as f32));
    }

    /// Adds one encoded picture (PNG or GIF) of `height` x `width` pixels; `channels` is 1 for grey, 3 for colour.
    pub fn image(&mut self, step: u64, tag: &str, size: [usize; 3], encoded: &[u8]) {
        let [height, width, channels] = size;
        self.summary(step, tag, |value| {
            value.message(4, |image| {
                image.varint(1, height as u64);
                image.varint(2, width as u64);
                image.varint(3, channels as u64);
                image.bytes(4, encoded);
            })
        });
    }

    fn summary(&mut self, step: u64, tag: &str, what: impl FnOnce(&mut Message)) {
        self.event(step, |event| {
            event.message(5, |summary| {
                summary.message(1, |value| {
                    value.bytes(1, tag.as_bytes());
                    what(value);
                })
            })
        });
    }

    fn event(&mut self, step: u64, what: impl FnOnce(&mut Message)) {
        let mut event = Message::default();
        event.double(1, wall_time());
        event.varint(2, step);
        what(&mut event);
        self.file.add(&record(&event.0));
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// The machine's name, of letters that every file system takes.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// A protocol buffer under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut x: u64) {
        while x >= 0x80 {
            self.0.push(x as u8 | 0x80);
            x >>= 7;
        }
        self.0.push(x as u8);
    }

    fn varint(&mut self, field: u64, x: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(x);
    }

    fn double(&mut self, field: u64, x: f64) {
        self.raw_varint(field << 3 | 1);
        self.0.extend(x.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn float(&mut self, field: u64, x: f32) {
        self.raw_varint(field << 3 | 5);
        self.0.extend(x.to_le_bytes());
    }

    fn message(&mut self, field: u64, what: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        what(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// A TFRecord: length, its checksum, the bytes, their checksum.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(bytes.len() + 16);
    out.extend(length);
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend(bytes);
    out.extend(masked(crc32c(bytes)).to_le_bytes());
    out
}

/// TFRecords mask their checksums, since a checksum over data that holds checksums is weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The Castagnoli CRC, one table look-up a byte.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ b)])
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Check values of RFC 3720, appendix B.4, and the usual one.
    #[test]
    fn checksums() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// Takes a file apart again: frames with valid checksums, whose bytes are these fields.
    #[test]
    fn records_hold_the_event() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), Some(299)).unwrap();
        writer.scalar(300, "a/b", 1.5);
        writer.image(300, "v", [2, 3, 1], b"GIF89a");
        writer.file.flush().unwrap();
        let name = writer.file.path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents."), "{name}");

        let bytes = fs::read(&writer.file.path).unwrap();
        let mut rest = &bytes[..];
        let mut events = vec![];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(crc32c(&rest[..8])).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(crc32c(data)).to_le_bytes());
            events.push(data[9..].to_vec()); // after the wall time
            rest = &rest[16 + length..];
        }
        assert_eq!(events[0], [b"\x10\x00\x1a\x0dbrain.Event:2".as_slice()].concat());
        assert_eq!(events[1], b"\x10\xac\x02\x3a\x02\x08\x01");
        assert_eq!(events[2], b"\x10\xac\x02\x2a\x0c\x0a\x0a\x0a\x03a/b\x15\x00\x00\xc0\x3f");
        assert_eq!(events[3], b"\x10\xac\x02\x2a\x15\x0a\x13\x0a\x01v\x22\x0e\x08\x02\x10\x03\x18\x01\x22\x06GIF89a");
    }

    #[test]
    fn every_start_has_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        EventWriter::create(dir.path(), None).unwrap();
        EventWriter::create(dir.path(), None).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
