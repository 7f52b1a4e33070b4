//! `dreamer devices`: where this machine can compute, and what a GPU lacks.

use crate::{Failure, print};
use engine::cuda::{Found, Properties, survey};
use std::path::Path;
use std::thread::available_parallelism;

/// Widest line, and the width of the words in front.
const COLUMNS: usize = 100;
const LABEL: usize = 8;

/// Prints the processor, the GPUs, and the libraries that they need.
pub fn run() -> Result<(), Failure> {
    let threads = available_parallelism().map_or(1, |n| n.get());
    let isa = engine::cpu::Isa::detect().map_or_else(|sentence| sentence, |isa| isa.name().to_string());
    let mut text = line("cpu", &format!("{threads} threads · {isa}"));
    let found = survey();
    match &found.gpus {
        Ok(gpus) if gpus.is_empty() => text += &line("cuda", "no GPU"),
        Ok(gpus) => gpus.iter().for_each(|gpu| text += &line(&format!("cuda:{}", gpu.index), &describe(gpu))),
        Err(sentence) => text += &line("cuda", sentence),
    }
    text += &line("driver", &library(&found.driver));
    text += &line("nvrtc", &library(&found.nvrtc));
    if let Some(nccl) = &found.nccl {
        text += &line("nccl", &nccl.as_ref().map_or_else(Clone::clone, |path| path.display().to_string()));
    }
    if let Some(folder) = &found.cache {
        text += &line("kernels", &kernels(folder));
    }
    print(&text)
}

fn describe(gpu: &Properties) -> String {
    let (major, minor, memory) = (gpu.arch / 10, gpu.arch % 10, gpu.memory as f64 / 1e9);
    let processors = gpu.multiprocessors;
    let too_old = if gpu.is_too_old() { ", and 8.0 (Ampere) is needed" } else { "" };
    format!(
        "{} · compute capability {major}.{minor}{too_old} · {processors} multiprocessors · {memory:.0} GB",
        gpu.name
    )
}

fn library(found: &Result<Found, String>) -> String {
    match found {
        Ok(Found { path, version: (major, minor) }) => format!("CUDA {major}.{minor} · {}", path.display()),
        Err(sentence) => sentence.clone(),
    }
}

fn kernels(folder: &Path) -> String {
    match std::fs::read_dir(folder).map_or(0, Iterator::count) {
        0 => format!("none compiled yet; they will be in {}", folder.display()),
        count => format!("{count} files compiled · {}", folder.display()),
    }
}

/// A label and words beside it, wrapped at the width of the terminal.
fn line(label: &str, text: &str) -> String {
    let mut out = String::new();
    let mut line = format!("{label:LABEL$}");
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > COLUMNS {
            out += &line;
            out += "\n";
            line = " ".repeat(LABEL);
        }
        line += " ";
        line += word;
    }
    out + &line + "\n"
}
