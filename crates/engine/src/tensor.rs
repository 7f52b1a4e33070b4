//! `Tensor`: a shaped float array on a device, with the link through which its gradient flows.

use crate::buffer::Buffer;
use crate::cpu::conv::ConvWeights;
use crate::cpu::gemm::Packed;
use crate::cuda::{Gpu, Memory};
use crate::graph::{Leaf, Origin};
use std::sync::{Arc, Mutex};

/// Where a tensor lives. Every operation matches on this where it computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    Cpu,
    Gpu(&'static Gpu),
}

/// The type of the numbers: activations on a GPU may be bfloat16 (see `Gpu::empty_act`); on the processor all are
/// float32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        }
    }
}

/// A row-major array of numbers. Cloning shares the storage; operations never write to their inputs.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    storage: Arc<Storage>,
    start: usize,
    pub(crate) origin: Origin,
}

/// Sizes of the axes, stored inline: tensors are made and cloned too often to allocate memory for them.
#[derive(Clone, Copy)]
struct Shape {
    sizes: [usize; MAX_RANK],
    rank: usize,
}

/// Axes that a tensor may have.
const MAX_RANK: usize = 6;

impl Shape {
    fn new(shape: &[usize]) -> Self {
        assert!(shape.len() <= MAX_RANK, "a tensor has at most {MAX_RANK} axes, not {shape:?}");
        let mut sizes = [0; MAX_RANK];
        sizes[..shape.len()].copy_from_slice(shape);
        Shape { sizes, rank: shape.len() }
    }
}

/// Memory shared by tensors, and the packed copies of weights in it, by where these weights begin.
struct Storage {
    values: Values,
    packs: Mutex<Vec<((usize, PackKey), Pack)>>,
}

/// The values themselves.
enum Values {
    Host(Buffer),
    Gpu(Memory, Dtype),
}

/// Which packed copy of a weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PackKey {
    /// Rows `row..row + rows` of each block of a weight [blocks, k, n], as they are or transposed.
    Matrix { blocks: usize, n: usize, row: usize, rows: usize, transposed: bool },
    /// A convolution's weight [kernel, kernel, in, out].
    Conv,
    /// The same for upsampling before the convolution.
    Upsample { sparse: bool },
    /// What products on a GPU take of a weight [.., k, n].
    Rows,
    /// What convolutions on a GPU take, for pixels of `ci` and `co` stored channels.
    Taps { ci: usize, co: usize },
    /// The same for upsampling before the convolution.
    Phases { ci: usize, co: usize, sparse: bool },
    /// What the recurrence on a GPU takes (ops/scan/pack.rs): which copy, and a size that its layout depends on.
    Scan(&'static str, usize),
}

/// A packed copy.
#[derive(Clone)]
enum Pack {
    Matrix(Arc<Vec<Packed>>),
    Conv(Arc<ConvWeights>),
    Gpu(Tensor),
}

impl Tensor {
    /// A tensor over `buffer`, which must hold as many elements as `shape` says.
    pub fn new(shape: &[usize], buffer: Buffer) -> Self {
        assert_eq!(shape.iter().product::<usize>(), buffer.len(), "shape {shape:?}");
        Self::over(shape, Values::Host(buffer))
    }

    /// A tensor over memory of a GPU, which must hold as many elements as `shape` says.
    pub(crate) fn on_gpu(shape: &[usize], dtype: Dtype, memory: Memory) -> Self {
        Self::over(shape, Values::Gpu(memory, dtype))
    }

    fn over(shape: &[usize], values: Values) -> Self {
        let storage = Storage { values, packs: Mutex::default() };
        Tensor { shape: Shape::new(shape), storage: Arc::new(storage), start: 0, origin: Origin::None }
    }

    pub fn from_slice(shape: &[usize], xs: &[f32]) -> Self {
        Self::new(shape, Buffer::from_slice(xs))
    }

    pub fn zeros(shape: &[usize]) -> Self {
        Self::full(shape, 0.0)
    }

    pub fn full(shape: &[usize], value: f32) -> Self {
        let mut buffer = Buffer::stale(shape.iter().product());
        buffer.fill(value);
        Self::new(shape, buffer)
    }

    pub fn scalar(value: f32) -> Self {
        Self::full(&[], value)
    }

    pub fn device(&self) -> Device {
        match &self.storage.values {
            Values::Host(_) => Device::Cpu,
            Values::Gpu(memory, _) => Device::Gpu(memory.gpu()),
        }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        match &self.storage.values {
            Values::Host(_) => Dtype::F32,
            Values::Gpu(_, dtype) => *dtype,
        }
    }

    /// For kernels that take numbers of either type: whether these are float32.
    pub(crate) fn is_wide(&self) -> u32 {
        (self.dtype() == Dtype::F32) as u32
    }

    /// The same values on `device`, without origin: copied where they are not there yet.
    pub fn to(&self, device: Device) -> Tensor {
        match (self.device(), device) {
            (Device::Cpu, Device::Cpu) => self.detach(),
            (Device::Gpu(from), Device::Gpu(to)) if from == to => self.detach(),
            (Device::Cpu, Device::Gpu(gpu)) => {
                Tensor::on_gpu(self.shape(), Dtype::F32, Memory::from_slice(gpu, self.data()))
            }
            (Device::Gpu(gpu), Device::Cpu) => {
                let mut buffer = Buffer::stale(self.len());
                gpu.download(self, &mut buffer);
                Tensor::new(self.shape(), buffer)
            }
            (Device::Gpu(_), to) => self.to(Device::Cpu).to(to),
        }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape.sizes[..self.shape.rank]
    }

    /// Size of axis `i`.
    pub fn dim(&self, i: usize) -> usize {
        self.shape()[i]
    }

    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the last axis.
    pub fn width(&self) -> usize {
        *self.shape().last().expect("a tensor with at least one axis")
    }

    /// Number of rows where everything but the last axis is flattened.
    pub fn rows(&self) -> usize {
        self.shape()[..self.shape.rank - 1].iter().product()
    }

    /// The same values on the processor, without origin. Waits for a GPU.
    pub fn host(&self) -> Tensor {
        self.to(Device::Cpu)
    }

    /// The values of a tensor on the processor.
    pub fn data(&self) -> &[f32] {
        match &self.storage.values {
            Values::Host(buffer) => &buffer[self.start..self.start + self.len()],
            Values::Gpu(..) => {
                panic!("the values of {:?} are on {:?}; copy them with `to`", self.shape(), self.device())
            }
        }
    }

    /// Where the values of a tensor on a GPU begin: equal for tensors that share them.
    pub fn address(&self) -> u64 {
        match &self.storage.values {
            Values::Gpu(memory, dtype) => memory.address() + (dtype.bytes() * self.start) as u64,
            Values::Host(_) => panic!("the values of {:?} are on the processor; copy them with `to`", self.shape()),
        }
    }

    /// Whether nothing else holds these values, so that they may be overwritten.
    pub(crate) fn is_unshared(&mut self) -> bool {
        let whole = self.start == 0
            && match &self.storage.values {
                Values::Host(buffer) => self.len() == buffer.len(),
                Values::Gpu(..) => true, // memory comes in larger sizes than it is asked for
            };
        whole && Arc::get_mut(&mut self.storage).is_some()
    }

    /// Gives this tensor memory of its own on a GPU, by a copy if it is shared, as kernels are about to change it.
    /// Packed copies are dropped.
    pub fn unshare(&mut self) {
        let Device::Gpu(gpu) = self.device() else { return };
        if self.is_unshared() {
            self.forget_packed();
        } else {
            let copy = gpu.empty_as(self.shape(), self.dtype());
            gpu.copy(self, &copy, 0);
            *self = copy.with_origin(self.origin.clone());
        }
    }

    /// Copies these values over those of `to`, of equal length and on the same GPU; tensors that share its memory
    /// change too. Packed copies of `to` are not updated.
    pub fn copy_over(&self, to: &Tensor) {
        let Device::Gpu(gpu) = to.device() else { panic!("values on the processor are changed by `make_mut`") };
        assert_eq!(self.len(), to.len());
        gpu.copy(&gpu.cast(self, to.dtype()), to, 0);
    }

    /// The only element of a scalar, or the first of others. Waits for a GPU.
    pub fn item(&self) -> f32 {
        self.view(0, &[1]).to(Device::Cpu).data()[0]
    }

    /// Whether a gradient flows through this tensor.
    pub fn requires_grad(&self) -> bool {
        !matches!(self.origin, Origin::None)
    }

    /// The same values with the gradient stopped.
    pub fn detach(&self) -> Tensor {
        Tensor { origin: Origin::None, ..self.clone() }
    }

    /// The same values as a leaf under which `backward` collects a gradient.
    pub fn leaf(&self, leaf: Leaf) -> Tensor {
        Tensor { origin: Origin::Leaf(leaf), ..self.clone() }
    }

    /// These values as the leaf that `x` is, if it is one: a parameter that is moved or replaced.
    pub fn leaf_of(self, x: &Tensor) -> Tensor {
        match x.as_leaf() {
            Some(leaf) => self.leaf(leaf),
            None => self,
        }
    }

    /// The leaf that this tensor is, if it is one.
    pub fn as_leaf(&self) -> Option<Leaf> {
        match self.origin {
            Origin::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    pub(crate) fn with_origin(mut self, origin: Origin) -> Tensor {
        self.origin = origin;
        self
    }

    /// Elements `start..` of this tensor under `shape`, without origin.
    pub fn view(&self, start: usize, shape: &[usize]) -> Tensor {
        let (count, len) = (shape.iter().product::<usize>(), self.len());
        assert!(start <= len && count <= len - start, "elements {start}.. as {shape:?} of a tensor of {len}");
        Tensor {
            shape: Shape::new(shape),
            storage: self.storage.clone(),
            start: self.start + start,
            origin: Origin::None,
        }
    }

    /// Mutable access to the values on the processor, copied first where they are shared. Packed copies are dropped.
    pub fn make_mut(&mut self) -> &mut [f32] {
        if !self.is_unshared() {
            let values = Values::Host(Buffer::from_slice(self.data()));
            self.storage = Arc::new(Storage { values, packs: Mutex::default() });
            self.start = 0;
        }
        let storage = Arc::get_mut(&mut self.storage).expect("unshared, as made above");
        storage.packs.get_mut().expect("no panic while packing").clear();
        match &mut storage.values {
            Values::Host(buffer) => buffer,
            Values::Gpu(..) => panic!("values on a GPU are changed by kernels alone"),
        }
    }

    /// Packed copies of rows `row..row + rows` of each block of a weight [blocks, k, n] (or [k, n]).
    pub(crate) fn packed(&self, row: usize, rows: usize, transposed: bool) -> Arc<Vec<Packed>> {
        let rank = self.shape.rank;
        let (k, n) = (self.dim(rank - 2), self.dim(rank - 1));
        let blocks = if rank == 3 { self.dim(0) } else { 1 };
        let pack = self.pack(PackKey::Matrix { blocks, n, row, rows, transposed }, |data| {
            let pack = |block: &[f32]| {
                let w = &block[row * n..(row + rows) * n];
                if transposed { Packed::transposed(w, n, rows, n) } else { Packed::new(w, rows, n, n) }
            };
            Pack::Matrix(Arc::new((0..blocks).map(|g| pack(&data[g * k * n..(g + 1) * k * n])).collect()))
        });
        match pack {
            Pack::Matrix(pack) => pack,
            _ => unreachable!("matrix keys hold matrices"),
        }
    }

    /// A packed copy of a convolution's weight, made by `pack` at first use.
    pub(crate) fn packed_conv(&self, key: PackKey, pack: impl FnOnce(&[f32]) -> ConvWeights) -> Arc<ConvWeights> {
        match self.pack(key, |data| Pack::Conv(Arc::new(pack(data)))) {
            Pack::Conv(pack) => pack,
            _ => unreachable!("convolution keys hold convolutions"),
        }
    }

    /// A copy of a weight on a GPU as kernels want it, made by `pack` at first use.
    pub(crate) fn packed_gpu(&self, key: PackKey, pack: impl FnOnce() -> Tensor) -> Tensor {
        let Device::Gpu(gpu) = self.device() else { panic!("a weight on the processor is packed for the processor") };
        match self.pack_with(key, || Pack::Gpu(gpu.packing(pack))) {
            Pack::Gpu(pack) => pack,
            _ => unreachable!("keys of a GPU hold tensors"),
        }
    }

    /// Drops packed copies, for callers that let kernels change a weight without `unshare`, as a recorded update does
    /// when it runs again.
    pub fn forget_packed(&self) {
        self.storage.packs.lock().expect("no panic while packing").clear();
    }

    /// A packed copy, made at first use and kept until the weight changes.
    fn pack(&self, key: PackKey, make: impl FnOnce(&[f32]) -> Pack) -> Pack {
        self.pack_with(key, || make(self.data()))
    }

    fn pack_with(&self, key: PackKey, make: impl FnOnce() -> Pack) -> Pack {
        let mut packs = self.storage.packs.lock().expect("no panic while packing");
        let place = (self.start, key);
        if let Some((_, pack)) = packs.iter().find(|(other, _)| *other == place) {
            return pack.clone();
        }
        let pack = make();
        packs.push((place, pack.clone()));
        pack
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.view(0, &[self.len().min(8)]).to(Device::Cpu);
        write!(f, "Tensor{:?} {:?}", self.shape(), first.data())
    }
}
