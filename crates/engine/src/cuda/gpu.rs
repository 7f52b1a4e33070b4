//! `Gpu`: memory and kernel launches, on a GPU or on its emulation; the one thing that operations use.

use super::driver::{Cuda, Driver, Module as CudaModule, Properties};
use super::emulator::{Emulator, Module as EmulatedModule};
use super::memory::Memory;
use super::{cache, kernels};
use crate::tensor::{Dtype, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard};

/// An open GPU. Lives as long as the process, so that tensors can refer to it.
pub struct Gpu {
    properties: Properties,
    precision: Precision,
    backend: Backend,
    /// Free memory by size: a training step reuses the memory of the step before.
    pool: Mutex<BTreeMap<usize, Vec<u64>>>,
    modules: Mutex<HashMap<&'static str, Module>>,
    functions: Mutex<HashMap<(&'static str, &'static str), u64>>,
    constants: Mutex<Vec<(Vec<f32>, Tensor)>>,
}

/// How matrix products and convolutions are computed. Everything else is float32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// On the ordinary units.
    #[default]
    Float32,
    /// On tensor cores: factors are rounded to bfloat16, sums are float32. Activations are kept in bfloat16.
    Bfloat16,
}

enum Backend {
    Cuda(Cuda),
    Emulator(Emulator),
}

enum Module {
    Cuda(CudaModule),
    Emulated(EmulatedModule),
}

/// How many threads run a kernel.
#[derive(Clone, Copy)]
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: u32,
    /// Bytes of dynamic shared memory for each block.
    pub shared: u32,
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
        Grid { blocks, threads, shared: 0 }
    }
}

/// An argument of a kernel: eight bytes of which it reads as many as it needs.
pub trait Arg {
    fn word(&self) -> u64;

    /// Where the argument is itself, if it is longer than that.
    fn place(&self) -> Option<*const u64> {
        None
    }
}

/// A structure of many addresses, as many as the kernel expects.
pub(crate) struct Addresses<'a>(pub &'a [u64]);

impl Arg for Addresses<'_> {
    fn word(&self) -> u64 {
        0
    }

    fn place(&self) -> Option<*const u64> {
        Some(self.0.as_ptr())
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
}

/// A tensor that may be absent: a null pointer.
impl<T: Arg> Arg for Option<T> {
    fn word(&self) -> u64 {
        self.as_ref().map_or(0, Arg::word)
    }
}

impl<T: Arg> Arg for &T {
    fn word(&self) -> u64 {
        (*self).word()
    }

    fn place(&self) -> Option<*const u64> {
        (*self).place()
    }
}

impl Gpu {
    /// Opens GPU number `index` of the driver.
    pub fn open(driver: Arc<Driver>, index: usize, precision: Precision) -> Result<&'static Gpu, String> {
        let all = driver.devices()?;
        let Some(properties) = all.get(index) else {
            return Err(format!("there is no GPU number {index}: the driver shows {}, counted from 0", all.len()));
        };
        let backend = Backend::Cuda(Cuda::open(driver, index)?);
        Ok(Gpu::leak(properties.clone(), precision, backend))
    }

    /// A GPU emulated by the processor, for tests.
    pub fn emulated(precision: Precision) -> Result<&'static Gpu, String> {
        let properties =
            Properties { index: 0, name: "emulated GPU".into(), arch: 0, multiprocessors: 1, memory: 1 << 30 };
        Ok(Gpu::leak(properties, precision, Backend::Emulator(Emulator::open()?)))
    }

    fn leak(properties: Properties, precision: Precision, backend: Backend) -> &'static Gpu {
        let (pool, modules, functions, constants) = Default::default();
        Box::leak(Box::new(Gpu { properties, precision, backend, pool, modules, functions, constants }))
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Memory for `len` numbers, holding whatever a former owner left there.
    pub(crate) fn stale(&'static self, len: usize, dtype: Dtype) -> Memory {
        let bytes = (len * dtype.bytes()).next_multiple_of(256).max(256);
        let pooled = lock(&self.pool).get_mut(&bytes).and_then(Vec::pop);
        let address = pooled.unwrap_or_else(|| match &self.backend {
            // Memory in the pool may be of other sizes than what is asked for.
            Backend::Cuda(cuda) => self.done(cuda.alloc(bytes).or_else(|_| {
                cuda.wait()?;
                self.release_pool();
                cuda.alloc(bytes)
            })),
            Backend::Emulator(_) => Box::leak(vec![u64::MAX; bytes / 8].into_boxed_slice()).as_ptr() as u64,
        });
        Memory::new(self, address, bytes)
    }

    /// Takes memory back for the next who asks for as much.
    pub(super) fn recycle(&self, address: u64, bytes: usize) {
        lock(&self.pool).entry(bytes).or_default().push(address);
    }

    /// Gives free memory back to the driver, for instance between agents of different sizes.
    pub fn release_pool(&self) {
        for address in std::mem::take(&mut *lock(&self.pool)).into_values().flatten() {
            match &self.backend {
                // SAFETY: memory in the pool belongs to nobody, and the driver waits for what was started.
                Backend::Cuda(cuda) => self.done(unsafe { cuda.free(address) }),
                Backend::Emulator(_) => {} // tests may keep it
            }
        }
    }

    /// How activations are kept: what layers hand to layers, and the gradients of that (`act` in the kernels).
    pub(crate) fn activations(&self) -> Dtype {
        match self.precision {
            Precision::Float32 => Dtype::F32,
            Precision::Bfloat16 => Dtype::Bf16,
        }
    }

    /// A float32 tensor of whatever a former owner left in its memory; for outputs that are written whole.
    pub(crate) fn empty(&'static self, shape: &[usize]) -> Tensor {
        self.empty_as(shape, Dtype::F32)
    }

    /// The same for activations.
    pub(crate) fn empty_act(&'static self, shape: &[usize]) -> Tensor {
        self.empty_as(shape, self.activations())
    }

    pub(crate) fn empty_as(&'static self, shape: &[usize], dtype: Dtype) -> Tensor {
        Tensor::on_gpu(shape, dtype, self.stale(shape.iter().product(), dtype))
    }

    pub(crate) fn zeros(&'static self, shape: &[usize]) -> Tensor {
        self.cleared(self.empty(shape))
    }

    pub(crate) fn zeros_act(&'static self, shape: &[usize]) -> Tensor {
        self.cleared(self.empty_act(shape))
    }

    fn cleared(&self, x: Tensor) -> Tensor {
        let bytes = x.len() * x.dtype().bytes();
        // SAFETY: the tensor's memory holds as many bytes.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => self.done(cuda.zero(x.address(), bytes)),
                Backend::Emulator(_) => std::ptr::write_bytes(x.address() as *mut u8, 0, bytes),
            }
        }
        x
    }

    /// `x` as kernels take activations; converted only where it comes from elsewhere.
    pub(crate) fn act(&'static self, x: &Tensor) -> Tensor {
        self.cast(x, self.activations())
    }

    /// `x` as float32.
    pub(crate) fn full(&'static self, x: &Tensor) -> Tensor {
        self.cast(x, Dtype::F32)
    }

    /// The same values in another type, without origin.
    pub(crate) fn cast(&'static self, x: &Tensor, dtype: Dtype) -> Tensor {
        let kernel = match (x.dtype(), dtype) {
            (Dtype::F32, Dtype::Bf16) => "to_bf16",
            (Dtype::Bf16, Dtype::F32) => "to_f32",
            _ => return x.detach(),
        };
        let y = self.empty_as(x.shape(), dtype);
        self.launch("copies", kernel, Grid::elements(x.len()), &[x, &x.len(), &y]);
        y
    }

    /// Bytes as a tensor that kernels read bytes from.
    pub(crate) fn bytes(&'static self, bytes: &[u8]) -> Tensor {
        let memory = self.stale(bytes.len().div_ceil(4), Dtype::F32);
        self.upload(bytes, &memory);
        Tensor::on_gpu(&[bytes.len().div_ceil(4)], Dtype::F32, memory)
    }

    /// Numbers that operations need again and again, such as bins: copied at first use.
    pub(crate) fn constant(&'static self, values: &[f32]) -> Tensor {
        let mut constants = lock(&self.constants);
        if let Some((_, tensor)) = constants.iter().find(|(known, _)| known == values) {
            return tensor.clone();
        }
        let tensor = Tensor::on_gpu(&[values.len()], Dtype::F32, Memory::from_slice(self, values));
        constants.push((values.to_vec(), tensor.clone()));
        tensor
    }

    /// Copies `bytes` to `to`, which must hold as many.
    pub(super) fn upload(&self, bytes: &[u8], to: &Memory) {
        assert!(bytes.len() <= to.bytes(), "{} bytes into {}", bytes.len(), to.bytes());
        // SAFETY: there is room, as was just checked.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => self.done(cuda.upload(bytes, to.address())),
                Backend::Emulator(_) => {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.address() as *mut u8, bytes.len());
                }
            }
        }
    }

    /// Waits for what was started and copies a tensor's values to the processor.
    pub(crate) fn download(&self, x: &Tensor, to: &mut [f32]) {
        assert_eq!(x.len(), to.len());
        match x.dtype() {
            Dtype::F32 => self.download_bytes(x, bytemuck::cast_slice_mut(to)),
            Dtype::Bf16 => {
                let mut halves = vec![0u16; to.len()];
                self.download_bytes(x, bytemuck::cast_slice_mut(&mut halves));
                to.iter_mut().zip(&halves).for_each(|(x, &half)| *x = f32::from_bits((half as u32) << 16));
            }
        }
    }

    fn download_bytes(&self, x: &Tensor, bytes: &mut [u8]) {
        // SAFETY: the tensor's memory holds as many bytes.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => self.done(cuda.download(x.address(), bytes)),
                Backend::Emulator(_) => {
                    std::ptr::copy_nonoverlapping(x.address() as *const u8, bytes.as_mut_ptr(), bytes.len());
                }
            }
        }
    }

    /// Copies `from` over the values of `to`, which are of the same type, from element `at` on.
    pub(crate) fn copy(&self, from: &Tensor, to: &Tensor, at: usize) {
        assert!(at + from.len() <= to.len() && from.dtype() == to.dtype());
        let each = to.dtype().bytes();
        let (source, target, bytes) = (from.address(), to.address() + (each * at) as u64, each * from.len());
        // SAFETY: both tensors' memory holds as many bytes, by the check above.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => self.done(cuda.copy(source, target, bytes)),
                Backend::Emulator(_) => std::ptr::copy(source as *const u8, target as *mut u8, bytes),
            }
        }
    }

    /// Runs the kernel `name` of the file `module` with `args`, in the order in which they were asked for.
    ///
    /// Arguments must be what the kernel takes: this is the one place where the compiler cannot see that.
    pub(crate) fn launch(&self, module: &'static str, name: &'static str, grid: Grid, args: &[&dyn Arg]) {
        if grid.blocks.contains(&0) {
            return; // nothing to do, which the driver would refuse
        }
        let function = self.function(module, name, grid.shared);
        let mut words: Vec<u64> = args.iter().map(|arg| arg.word()).collect();
        let place =
            |(arg, word): (&&dyn Arg, &mut u64)| arg.place().map_or((word as *mut u64).cast(), |x| x as *mut c_void);
        let mut args: Vec<*mut c_void> = args.iter().zip(&mut words).map(place).collect();
        // SAFETY: operations hand in what their kernels take, which their tests check on every device.
        unsafe {
            match &self.backend {
                Backend::Cuda(cuda) => {
                    let started = cuda.launch(function, grid.blocks, grid.threads, grid.shared, &mut args);
                    self.done(started.map_err(|error| format!("{error} (kernel {name} of {module}.cu)")));
                }
                Backend::Emulator(emulator) => emulator.launch(function, grid.blocks, grid.threads, &mut args),
            }
        }
    }

    /// The kernel `name`, compiled and loaded at first use.
    fn function(&self, module: &'static str, name: &'static str, shared: u32) -> u64 {
        if let Some(function) = lock(&self.functions).get(&(module, name)) {
            return *function;
        }
        let mut modules = lock(&self.modules);
        let loaded = modules.entry(module).or_insert_with(|| self.done(self.load(module)));
        let function = match (&self.backend, loaded) {
            (Backend::Cuda(cuda), Module::Cuda(module)) => cuda.function(module, name, shared),
            (Backend::Emulator(emulator), Module::Emulated(module)) => emulator.function(module, name),
            _ => unreachable!("modules are loaded by the backend that runs them"),
        };
        let function = self.done(function);
        lock(&self.functions).insert((module, name), function);
        function
    }

    /// Loads every module of kernels now, so that what is missing shows before anything is computed. What is not in the
    /// cache is compiled side by side.
    pub(super) fn load_all(&self) -> Result<(), String> {
        if let Backend::Cuda(_) = &self.backend {
            let compile = |name| cache::cubin(name, &kernels::source(name, self.precision), self.properties.arch);
            std::thread::scope(|scope| {
                let all: Vec<_> = kernels::names().map(|name| scope.spawn(move || compile(name))).collect();
                all.into_iter().try_for_each(|thread| thread.join().expect("no panic while compiling").map(drop))
            })?;
        }
        for name in kernels::names() {
            let module = self.load(name)?;
            lock(&self.modules).entry(name).or_insert(module);
        }
        Ok(())
    }

    fn load(&self, module: &'static str) -> Result<Module, String> {
        let source = kernels::source(module, self.precision);
        match &self.backend {
            Backend::Cuda(cuda) => cuda.load(&cache::cubin(module, &source, self.properties.arch)?).map(Module::Cuda),
            Backend::Emulator(emulator) => emulator.load(module, &source).map(Module::Emulated),
        }
    }

    /// What a GPU was asked for; a failure leaves nothing to go on with.
    fn done<T>(&self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|error| panic!("GPU {} ({}): {error}", self.properties.index, self.properties.name))
    }
}

/// A GPU is itself alone.
impl PartialEq for Gpu {
    fn eq(&self, other: &Gpu) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GPU {} ({})", self.properties.index, self.properties.name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
