//! The sources of all kernels, which are part of the binary.

use super::gpu::Precision;

/// What every file of kernels starts with.
const COMMON: &str = concat!(
    include_str!("kernels/common.cuh"),
    "\n",
    include_str!("kernels/philox.cuh"),
    "\n",
    include_str!("kernels/product.cuh"),
    "\n",
    include_str!("kernels/wgmma.cuh")
);

/// What the files of the recurrence share.
macro_rules! scan_source {
    ($name:literal) => {
        concat!(
            "#line 1 \"scan.cuh\"\n",
            include_str!("kernels/scan.cuh"),
            "\n#line 1 \"meeting.cuh\"\n",
            include_str!("kernels/meeting.cuh"),
            "\n#line 1 \"",
            $name,
            "\"\n",
            include_str!(concat!("kernels/", $name))
        )
    };
}

/// Modules with their sources. A file that takes long to compile is split into several modules, which are compiled in
/// parallel and find their name in a macro (`PART_..`).
const SOURCES: [(&str, &str); 21] = [
    ("conv", CONV),
    ("conv_input_grad", CONV),
    ("conv_pack", include_str!("kernels/conv_pack.cu")),
    ("conv_weight_grad", CONV),
    ("copies", include_str!("kernels/copies.cu")),
    ("elementwise", include_str!("kernels/elementwise.cu")),
    ("gemm", GEMM),
    ("gemm_transposed", GEMM),
    ("gemm_weight_grad", GEMM),
    ("gru", include_str!("kernels/gru.cu")),
    ("heads", include_str!("kernels/heads.cu")),
    ("images", include_str!("kernels/images.cu")),
    ("latent", include_str!("kernels/latent.cu")),
    ("noise", include_str!("kernels/noise.cu")),
    ("norm", include_str!("kernels/norm.cu")),
    ("optimizer", include_str!("kernels/optimizer.cu")),
    ("peak", include_str!("kernels/peak.cu")),
    ("scan", scan_source!("scan.cu")),
    ("scan_grad", scan_source!("scan_grad.cu")),
    ("step", scan_source!("step.cu")),
    ("targets", include_str!("kernels/targets.cu")),
];

const CONV: &str = include_str!("kernels/conv.cu");
const GEMM: &str = include_str!("kernels/gemm.cu");

/// The names of all modules of kernels.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(name, _)| *name)
}

/// The whole source of the module `name`, with activations of the type that `precision` has.
pub fn source(name: &str, precision: Precision) -> String {
    let (_, source) =
        SOURCES.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no kernels are called {name}"));
    let activations = match precision {
        Precision::Float32 => "",
        Precision::Bfloat16 => "#define ACT_BF16\n",
    };
    // `#line` gives the compiler's messages the line numbers of the file.
    format!("#define PART_{name}\n{activations}{COMMON}\n#line 1 \"{name}.cu\"\n{source}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::nvrtc::Nvrtc;

    /// Every kernel for Ampere, Hopper and Blackwell. Where NVRTC may be missing this says so instead; with
    /// DREAMER_REQUIRE_NVRTC set, as in CI, it must be there.
    #[test]
    fn every_kernel_compiles() {
        let nvrtc = match Nvrtc::load(None, None) {
            Ok(nvrtc) => nvrtc,
            Err(error) => {
                assert!(std::env::var_os("DREAMER_REQUIRE_NVRTC").is_none(), "{error}");
                eprintln!("SKIPPED: kernels were not compiled: {error}");
                return;
            }
        };
        let compile = |(name, _): (&str, &str)| {
            for (precision, arch) in
                [80, 90, 120].iter().flat_map(|&arch| [(Precision::Float32, arch), (Precision::Bfloat16, arch)])
            {
                let cubin = nvrtc.compile(name, &source(name, precision), arch);
                let cubin = cubin.unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(&cubin[..4], b"\x7fELF", "{name} for sm_{arch}");
            }
        };
        std::thread::scope(|scope| SOURCES.iter().for_each(|&module| drop(scope.spawn(move || compile(module)))));
    }

    /// A kernel that is not exported would be missing in the emulator alone.
    #[test]
    fn every_kernel_is_exported() {
        for (name, source) in SOURCES {
            for kernel in
                source.lines().filter_map(|line| line.strip_prefix("KERNEL")?.split_once(' ')?.1.split('(').next())
            {
                let exports = ["EXPORT", "EXPORT_MEETING"].map(|export| format!("{export}({kernel})"));
                assert!(exports.iter().any(|export| source.contains(export)), "{kernel} in {name}.cu");
            }
        }
    }

    /// A kernel that does not would read what the one before it has yet to write, which an emulated GPU cannot show.
    #[test]
    fn every_kernel_waits_for_the_one_before_it() {
        const WAITS: [&str; 2] = ["wait_for_previous", "turn.wait();"]; // the latter as a launch, or after a meeting
        let mut seen = 0;
        for (name, source) in SOURCES {
            for (at, _) in source.match_indices("KERNEL").filter(|(at, _)| starts_a_line(source, *at)) {
                seen += 1;
                let text = &source[at..];
                let body = &text[..text.find("EXPORT").expect("kernels are exported")];
                // Either itself or the function that is all of it.
                let called =
                    body.split_once("{ ").and_then(|(_, call)| call.split(['<', '(']).next()).unwrap_or("none");
                let function =
                    source.split_once(&format!("void {called}(")).and_then(|(_, text)| text.split("\n}").next());
                let first = body.lines().next().unwrap_or_default();
                // A launch whose blocks meet waits for the one before it by itself, too.
                let enough = if text[body.len()..].starts_with("EXPORT_MEETING") { &WAITS[..1] } else { &WAITS[..] };
                let waits = |text: &str| enough.iter().any(|wait| text.contains(wait));
                assert!(waits(body) || function.is_some_and(waits), "{first} in {name}.cu");
            }
        }
        assert!(seen > 90, "{seen} kernels are not all");
    }

    fn starts_a_line(source: &str, at: usize) -> bool {
        source[..at].rsplit('\n').next().is_some_and(|before| before.trim().is_empty())
    }
}
