//! Kernels of a GPU: compiled and loaded at first use or all at once, and counted.

use super::cache::Wanted;
use super::driver::{Cuda, Module as CudaModule};
use super::emulator::Module as EmulatedModule;
use super::gpu::{Backend, Gpu};
use super::kernels;
use super::memory::MEMORY_CALLS;
use super::queue::lock;
use std::collections::HashMap;
use std::sync::Mutex;

#[derive(Default)]
pub(super) struct LoadedKernels {
    modules: Mutex<HashMap<&'static str, Module>>,
    /// By module and name.
    functions: Mutex<HashMap<(&'static str, &'static str), Function>>,
}

/// A loaded kernel, the number of its launches, and the dynamic shared memory that it may use: as much as its first
/// launch asked for, when it was loaded.
struct Function {
    address: u64,
    launches: u64,
    shared: u32,
}

/// Dynamic shared memory that every kernel may use: 48 KB less room for static shared memory.
pub(super) const ALWAYS: u32 = 47 << 10;

/// Errors of a driver that does not understand the machine code.
const REFUSALS: [&str; 3] =
    ["CUDA_ERROR_INVALID_IMAGE", "CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"];

enum Module {
    Cuda(CudaModule),
    Emulated(EmulatedModule),
}

impl Gpu {
    /// The kernel `name`, compiled and loaded at first use.
    pub(super) fn function(&self, module: &'static str, name: &'static str, shared: u32) -> u64 {
        if let Some(function) = lock(&self.loaded.functions).get_mut(&(module, name)) {
            function.launches += 1;
            assert!(shared <= function.shared, "kernel {name} was first launched with less shared memory");
            return function.address;
        }
        let _call = lock(&MEMORY_CALLS); // what is loaded takes memory, too
        let mut modules = lock(&self.loaded.modules);
        let loaded = modules.entry(module).or_insert_with(|| self.done(self.load(module)));
        let function = match (&self.backend, loaded) {
            (Backend::Cuda(cuda), Module::Cuda(module)) => cuda.function(module, name, shared),
            (Backend::Emulator(emulator), Module::Emulated(module)) => emulator.function(module, name),
            _ => unreachable!("modules are loaded by the backend that runs them"),
        };
        let address = self.done(function);
        lock(&self.loaded.functions)
            .insert((module, name), Function { address, launches: 1, shared: shared.max(ALWAYS) });
        address
    }

    /// How often each kernel was launched since this was last asked, the most frequent first.
    pub fn launches(&self) -> Vec<(String, u64)> {
        let mut functions = lock(&self.loaded.functions);
        let take = |(&(module, name), function): (&(&str, &str), &mut Function)| {
            (format!("{module}/{name}"), std::mem::take(&mut function.launches))
        };
        let mut launches: Vec<(String, u64)> = functions.iter_mut().map(take).filter(|(_, n)| *n > 0).collect();
        launches.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
        launches
    }

    /// Loads every module of kernels now, so that what is missing shows before anything is computed. What is not in the
    /// cache is compiled in parallel, after a call of `compiling`.
    pub(super) fn load_all(&'static self, compiling: impl Fn(&'static Gpu)) -> Result<(), String> {
        let keep = |name, module| {
            lock(&self.loaded.modules).entry(name).or_insert(module);
        };
        let Backend::Cuda(cuda) = &self.backend else {
            compiling(self);
            return kernels::names().try_for_each(|name| self.load(name).map(|module| keep(name, module)));
        };
        let cached: Vec<_> = kernels::names().map(|name| (name, self.wanted(cuda, name).cached())).collect();
        if cached.iter().any(|(_, cubin)| cubin.is_none()) {
            compiling(self);
        }
        std::thread::scope(|scope| {
            let compiled = |(name, cubin): (&'static str, Option<Vec<u8>>)| {
                (name, scope.spawn(move || cubin.map_or_else(|| self.wanted(cuda, name).compile(), Ok)))
            };
            let all: Vec<_> = cached.into_iter().map(compiled).collect();
            all.into_iter().try_for_each(|(name, thread)| {
                let cubin = thread.join().expect("no panic while compiling")?;
                self.load_cubin(cuda, name, &cubin).map(|module| keep(name, module))
            })
        })
    }

    fn load(&self, module: &'static str) -> Result<Module, String> {
        match &self.backend {
            Backend::Cuda(cuda) => self.load_cubin(cuda, module, &self.wanted(cuda, module).cubin()?),
            Backend::Emulator(emulator) => {
                emulator.load(module, &kernels::source(module, self.precision())).map(Module::Emulated)
            }
        }
    }

    /// Loads machine code that may come from the cache. If the driver does not understand it, it is compiled again: the
    /// cache may be shared with machines that have another compiler or driver.
    fn load_cubin(&self, cuda: &Cuda, module: &str, cubin: &[u8]) -> Result<Module, String> {
        let loaded = cuda.load(cubin).or_else(|refusal| {
            if !REFUSALS.iter().any(|name| refusal.contains(name)) {
                return Err(refusal);
            }
            let again = self.wanted(cuda, module).compile().map_err(|error| format!("{refusal}; {error}"))?;
            cuda.load(&again)
        });
        loaded.map(Module::Cuda)
    }

    fn wanted(&self, cuda: &Cuda, module: &str) -> Wanted {
        Wanted {
            name: module.to_string(),
            source: kernels::source(module, self.precision()),
            arch: self.properties().arch,
            major: cuda.version().0,
        }
    }
}
