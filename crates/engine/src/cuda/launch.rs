//! What a launch takes: how many threads, and the arguments of the kernel.

use crate::tensor::Tensor;
use std::ffi::c_void;

/// How many threads run a kernel.
#[derive(Clone, Copy)]
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: u32,
    /// Bytes of dynamic shared memory for each block.
    pub shared: u32,
    pub meeting: Meeting,
}

/// Whether blocks of threads wait for each other, for which all must run at the same time (kernels/meeting.cuh).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Meeting {
    #[default]
    Never,
    /// At a counter in memory: no more blocks than multiprocessors.
    Grid,
    /// As one cluster, at Hopper's cluster barrier: [`Meeting::CLUSTER`] blocks at most.
    Cluster,
}

impl Meeting {
    /// How the recurrence's blocks meet, by DREAMER_SCAN (for measurements); an error lists its valid values.
    pub(super) fn wanted() -> Result<Meeting, String> {
        match std::env::var("DREAMER_SCAN").as_deref() {
            Err(_) | Ok("launches") => Ok(Meeting::Never),
            Ok("grid") => Ok(Meeting::Grid),
            Ok("cluster") => Ok(Meeting::Cluster),
            Ok(other) => Err(format!("DREAMER_SCAN is '{other}'; it may be launches, grid or cluster")),
        }
    }

    /// The most blocks of a cluster on Hopper; more than eight have to be enabled for each kernel.
    pub const CLUSTER: usize = 16;
}

impl Grid {
    /// A thread for each of `n` elements.
    pub fn elements(n: usize) -> Grid {
        Grid::blocks(n.div_ceil(256), 256)
    }

    /// A warp of 32 threads for each of `n` rows.
    pub fn warps(n: usize) -> Grid {
        Grid::blocks(n.div_ceil(4), 128)
    }

    pub fn blocks(n: usize, threads: u32) -> Grid {
        Grid::of([n, 1, 1], threads)
    }

    pub fn of(blocks: [usize; 3], threads: u32) -> Grid {
        let blocks = blocks.map(|n| u32::try_from(n).expect("fewer than 2^32 blocks of threads"));
        assert!(
            blocks[1].max(blocks[2]) < 1 << 16,
            "{blocks:?} blocks: CUDA takes fewer than 65536 beside the first axis"
        );
        Grid { blocks, threads, shared: 0, meeting: Meeting::Never }
    }
}

/// How many neighbouring numbers a thread may process at a time (8, 4, 2 or 1), in rows of `n` numbers of all
/// `tensors`: they must divide a row and be aligned to their size, at most to 16 bytes.
pub(crate) fn at_once(n: usize, tensors: &[&Tensor]) -> usize {
    let aligned = |x: &Tensor, each: usize| x.address().is_multiple_of((each * x.dtype().bytes()).min(16) as u64);
    let fits = |each: &usize| n.is_multiple_of(*each) && tensors.iter().all(|x| aligned(x, *each));
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// An argument of a kernel: eight bytes of which it reads as many as it needs.
pub trait Arg {
    fn word(&self) -> u64;

    /// The words after the first one, if it is a structure.
    fn rest(&self) -> &[u64] {
        &[]
    }

    /// Bytes of memory that the kernel reads or writes through it, each counted once: a tensor's own.
    fn bytes(&self) -> usize {
        0
    }
}

/// Memory that a kernel reads or writes, and how much of it.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub address: u64,
    pub bytes: usize,
}

impl Piece {
    /// All of a tensor.
    pub fn of(x: &Tensor) -> Piece {
        Piece { address: x.address(), bytes: x.bytes() }
    }
}

impl Arg for Piece {
    fn word(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A structure that a kernel takes by value, at most [`Table::BYTES`] long: addresses and sizes of many tensors. Unlike
/// memory that would have to be copied to the GPU first, arguments become part of a captured graph.
#[derive(Default)]
pub struct Table {
    words: Vec<u64>,
    bytes: usize,
}

impl Table {
    /// Arguments of a launch are 4096 bytes at most; this leaves some for others.
    pub const BYTES: usize = 3872;

    /// Adds a column of `len` addresses: `values`, then zeros.
    pub fn addresses(&mut self, len: usize, values: impl Iterator<Item = u64>) {
        let end = self.words.len() + len;
        self.words.extend(values);
        assert!(self.words.len() <= end, "more than {len} addresses");
        self.words.resize(end, 0);
        assert!(8 * end <= Self::BYTES, "a table of {} bytes", 8 * end);
    }

    /// Counts bytes that the kernel reads or writes behind the addresses.
    pub fn moves(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Adds a column of `len` (an even number) 32-bit numbers: `values`, then zeros.
    pub fn numbers(&mut self, len: usize, values: impl Iterator<Item = usize>) {
        self.words(len, values.map(|x| u32::try_from(x).expect("fewer than 2^32 elements in a tensor")));
    }

    pub fn floats(&mut self, len: usize, values: impl Iterator<Item = f32>) {
        self.words(len, values.map(f32::to_bits));
    }

    fn words(&mut self, len: usize, values: impl Iterator<Item = u32>) {
        let mut values: Vec<u32> = values.collect();
        assert!(values.len() <= len && len.is_multiple_of(2), "{} of {len} numbers", values.len());
        values.resize(len, 0);
        self.addresses(len / 2, values.chunks_exact(2).map(|x| x[0] as u64 | (x[1] as u64) << 32));
    }

    /// A structure of addresses, then numbers of 32 bits, then floats, an even number of each.
    pub fn args(&mut self, addresses: &[&dyn Arg], numbers: &[&dyn Arg], floats: &[f32]) {
        self.addresses(addresses.len(), addresses.iter().map(|arg| arg.word()));
        self.words(numbers.len(), numbers.iter().map(|arg| arg.word() as u32));
        self.floats(floats.len(), floats.iter().copied());
        self.bytes += addresses.iter().map(|arg| arg.bytes()).sum::<usize>();
    }

    /// Adds a column of `len` numbers: the running sums of `values`, as `table_row` in the kernels takes them; returns
    /// the last.
    pub fn ends(&mut self, len: usize, values: impl Iterator<Item = usize>) -> usize {
        let mut end = 0;
        self.numbers(
            len,
            values.map(|x| {
                end += x;
                end
            }),
        );
        end
    }
}

impl Arg for Table {
    fn word(&self) -> u64 {
        self.words[0]
    }

    fn rest(&self) -> &[u64] {
        &self.words[1..]
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A structure of many addresses, as many as the kernel expects, and the bytes that it reads there.
pub(crate) struct Addresses<'a>(pub &'a [u64], pub usize);

impl Arg for Addresses<'_> {
    fn word(&self) -> u64 {
        self.0[0]
    }

    fn rest(&self) -> &[u64] {
        &self.0[1..]
    }

    fn bytes(&self) -> usize {
        self.1
    }
}

impl Arg for u32 {
    fn word(&self) -> u64 {
        *self as u64
    }
}

/// Numbers of elements, which kernels take as 32 bits.
impl Arg for usize {
    fn word(&self) -> u64 {
        u32::try_from(*self).expect("fewer than 2^32 elements in a tensor") as u64
    }
}

impl Arg for f32 {
    fn word(&self) -> u64 {
        self.to_bits() as u64
    }
}

impl Arg for u64 {
    fn word(&self) -> u64 {
        *self
    }
}

impl Arg for Tensor {
    fn word(&self) -> u64 {
        self.address()
    }

    fn bytes(&self) -> usize {
        self.len() * self.dtype().bytes()
    }
}

/// A tensor that may be absent: a null pointer.
impl<T: Arg> Arg for Option<T> {
    fn word(&self) -> u64 {
        self.as_ref().map_or(0, Arg::word)
    }

    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, Arg::bytes)
    }
}

impl<T: Arg> Arg for &T {
    fn word(&self) -> u64 {
        (*self).word()
    }

    fn rest(&self) -> &[u64] {
        (*self).rest()
    }

    fn bytes(&self) -> usize {
        (*self).bytes()
    }
}

/// The arguments of a launch, one after the other.
#[derive(Clone)]
pub(super) struct Arguments {
    words: Vec<u64>,
    /// The first word of each.
    starts: Vec<usize>,
}

impl Arguments {
    pub fn new(args: &[&dyn Arg]) -> Arguments {
        let (mut words, mut starts) = (Vec::with_capacity(args.len()), Vec::with_capacity(args.len()));
        for arg in args {
            starts.push(words.len());
            words.push(arg.word());
            words.extend(arg.rest());
        }
        Arguments { words, starts }
    }

    /// A pointer to each, as launches take them.
    pub fn pointers(&mut self) -> Vec<*mut c_void> {
        self.starts.iter().map(|&at| self.words[at..].as_mut_ptr().cast()).collect()
    }
}
