//! `dreamer bench`: speed and memory of a configuration, or speed of a task's environments, on this machine.

use crate::{Failure, complain, count, print};
use anyhow::{Context, Result, anyhow, bail};
use config::Args;
use runner::bench::{Case, Measurement, Stepping, Unbridged, bench, environments, plain_case, share, task_case};
use runner::unless_it_panics;
use std::fmt::Write;
use std::path::PathBuf;

/// What the command line asks for.
struct Request {
    config: config::Config,
    size: String,
    what: What,
    updates: usize,
    json: Option<PathBuf>,
}

/// What is measured: updates of an agent, or the environments of the configured task.
enum What {
    Agent(Vec<Case>),
    Environments,
}

/// Measures every case, prints a table for each and writes all of them to `--json`.
pub fn run(args: Args) -> Result<(), Failure> {
    let request = read(args).map_err(Failure::Usage)?;
    measure(&request).map_err(Failure::Run)
}

fn measure(request: &Request) -> Result<()> {
    if let Some(path) = &request.json {
        // Fails now, not after minutes of measuring, if the file cannot be written.
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.with_context(|| format!("cannot write '{}'", path.display()))?;
    }
    let mut measurements = Vec::new();
    match &request.what {
        What::Agent(cases) => {
            for case in cases {
                let measure = || bench(&request.config, &request.size, case, request.updates);
                let found = unless_it_panics(measure)?;
                print(&table(&found)).map_err(Failure::into_error)?;
                measurements.push(serde_json::to_value(&found)?);
            }
        }
        What::Environments => {
            let found = environments(&request.config)?;
            print(&stepping(&found)).map_err(Failure::into_error)?;
            measurements.push(serde_json::to_value(&found)?);
        }
    }
    if let Some(path) = &request.json {
        let text = serde_json::to_string_pretty(&measurements)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write '{}'", path.display()))?;
    }
    Ok(())
}

fn read(mut args: Args) -> Result<Request> {
    if let Some(word) = args.words.first() {
        bail!("the word '{word}' belongs to no flag; 'bench' takes flags alone");
    }
    let mut take = |key: &str| {
        let value = args.get(key).map(<[String]>::to_vec);
        args.flags.retain(|flag| flag.0 != key);
        value
    };
    let (obs, updates, json, env) = (take("obs"), take("updates"), take("json"), take("env"));
    let updates = match &updates {
        None => 10,
        Some(words) => count("updates", &words.join(" "))?,
    };
    if args.configs.is_empty() {
        args.configs.push("size1m".into());
    }
    let size = args.configs.iter().rev().find_map(|name| name.strip_prefix("size")).unwrap_or("custom").to_string();
    if let Some(env) = &env {
        if obs.is_some() || args.get("task").is_some() {
            bail!("--env measures environments alone; --obs and --task, which measure an agent, exclude it");
        }
        args.flags.push(("task".into(), env.clone()));
    }
    let task = args.get("task").is_some();
    let (config, warnings) = config::Config::resolve_with_warnings(&args.configs, &args.flags)?;
    warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    let cases = match obs {
        _ if env.is_some() => vec![],
        Some(_) if task => bail!("--obs and --task exclude each other: a task has observations of its own"),
        None if task => vec![task_case(&config)?],
        None => ["image", "vector"].into_iter().filter_map(plain_case).collect(),
        Some(words) => {
            let names = words.iter().flat_map(|word| word.split(','));
            let case = |name: &str| {
                plain_case(name).ok_or_else(|| anyhow!("'--obs' is '{name}', but must be image or vector, or both"))
            };
            names.map(case).collect::<Result<_>>()?
        }
    };
    let what = if env.is_some() { What::Environments } else { What::Agent(cases) };
    Ok(Request { config, size, what, updates, json: json.map(|words| PathBuf::from(words.join(" "))) })
}

fn stepping(m: &Stepping) -> String {
    let mut out = format!(
        "{} · {} environments, random actions\n  stepping    {:.0} steps a second\n",
        m.task, m.envs, m.steps_per_second
    );
    let mut without = |name: &str, processes: usize, without: &Unbridged| {
        let (plural, share) = (if processes == 1 { "" } else { "es" }, 100.0 * without.share);
        out += &format!(
            "  {name:<11} {:.0} in {processes} process{plural} without the bridge, which reaches {share:.0} % of it\n",
            without.steps_per_second
        );
    };
    if let Some(alone) = &m.alone {
        without("alone", m.processors, alone);
    }
    if let Some(each) = &m.each_alone {
        without("each alone", m.envs, each);
    }
    if let Some(overhead) = m.overhead_us {
        out += &format!("  overhead    {overhead:.1} microseconds of a processor a step\n");
    }
    out
}

fn table(m: &Measurement) -> String {
    let updates = 1e3 / m.update_ms;
    let steps = updates * (m.batch_size * m.batch_length) as f64;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |text: std::fmt::Arguments| writeln!(out, "{text}").unwrap_or_default();
    let Measurement { size, obs, batch_size, batch_length, threads, isa, .. } = m;
    let plural = if *threads == 1 { "" } else { "s" };
    let place = m.gpu.as_ref().map_or(format!("{threads} thread{plural} · {isa}"), |gpu| gpu.name.clone());
    line(format_args!("{size} {obs} · batch {batch_size} x {batch_length} · {place}"));
    line(format_args!("  update      {:.1} ms median, {:.1} ms least", m.update_ms, m.update_ms_min));
    line(format_args!("              {updates:.2} updates a second, {steps:.0} replayed steps a second"));
    if m.gflop > 0.0 {
        let (gflop, official) = (m.gflop, m.gflop_official);
        line(format_args!("  operations  {gflop:.1} GFLOP executed, {official:.1} as formulated officially"));
        line(format_args!(
            "  rate        {:.0} GFLOP/s, {:.0} % of the peak of {:.0} GFLOP/s",
            m.share_of_peak * m.peak_gflops,
            100.0 * m.share_of_peak,
            m.peak_gflops
        ));
    }
    line(format_args!("  acting      {:.3} ms for 1 environment, {:.3} ms for 16", m.act1_ms, m.act16_ms));
    line(format_args!("  memory      {:.0} MB at most", m.rss_mb));
    if let Some(gpu) = &m.gpu {
        line(format_args!("  GPU memory  {:.0} MB at most", gpu.memory_mb));
        line(format_args!("  copies      {:.0} GB/s at best", gpu.copy_gbs));
        line(format_args!("  start       {:.1} s to the end of the first update", gpu.first_update_s));
    }
    if !m.parts.is_empty() {
        line(format_args!("  part            forward ms   GFLOP  % peak   backward ms   GFLOP  % peak"));
    }
    let share = |gflop: f64, ms: f64| match share(gflop, ms, m.peak_gflops) {
        share if share > 0.0 => format!("{:.0}", 100.0 * share),
        _ => "-".into(),
    };
    for (name, p) in &m.parts {
        line(format_args!(
            "  {name:<14}  {:>10.1}  {:>6.2}  {:>6}   {:>11.1}  {:>6.2}  {:>6}",
            p.forward_ms,
            p.forward_gflop,
            share(p.forward_gflop, p.forward_ms),
            p.backward_ms,
            p.backward_gflop,
            share(p.backward_gflop, p.backward_ms)
        ));
    }
    for kernel in m.gpu.iter().flat_map(|gpu| gpu.kernels.iter().take(KERNELS)) {
        line(format_args!("  {:<24}  {:>8.3} ms in {:>5} launches", kernel.name, kernel.ms, kernel.launches));
    }
    out + "\n"
}

/// Kernels of a GPU that are shown, the costliest; `--json` has all.
const KERNELS: usize = 12;
