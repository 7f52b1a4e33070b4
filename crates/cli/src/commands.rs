//! The subcommands: which there are, and how each turns its arguments into a call.

use crate::{Failure, bench, complain, devices, envs_list, help, plot, print};
use anyhow::anyhow;
use config::{Args, Config};

/// Every subcommand, as users type it.
const COMMANDS: [&str; 8] = ["train", "eval", "config", "envs", "devices", "plot", "bench", "help"];

/// Runs the command line `args`, without the program's name.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let (command, rest) = match args.split_first() {
        None => ("help", args),
        Some((first, _)) if ["-h", "--help"].contains(&first.as_str()) => ("help", &[][..]),
        Some((first, _)) if ["-V", "--version"].contains(&first.as_str()) => {
            return print(concat!("dreamer ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        // Flags alone train, as with the official script.
        Some((first, _)) if first.starts_with('-') => ("train", args),
        Some((first, rest)) => (first.as_str(), rest),
    };
    known(command)?;
    if command == "help" {
        let of = rest.iter().find(|word| !word.starts_with('-')).map_or("help", String::as_str);
        return known(of).and_then(|()| print(&help::text(of)));
    }
    if rest.iter().any(|arg| arg == "-h" || arg == "--help") {
        return print(&help::text(command));
    }
    let args = Args::parse(rest).map_err(Failure::Usage)?;
    match command {
        "train" => train(args),
        "eval" => eval(args),
        "config" => print(&resolve(&no_words(args)?)?.commented_yaml()),
        "envs" => envs_list::run(&args),
        "devices" => no_arguments(&args).and_then(|()| devices::run()),
        "bench" => bench::run(args),
        _ => plot::run(args),
    }
}

/// Refuses unknown commands.
fn known(command: &str) -> Result<(), Failure> {
    if COMMANDS.contains(&command) {
        return Ok(());
    }
    let near = config::nearest(command, COMMANDS).unwrap_or("help");
    Err(Failure::Usage(anyhow!(
        "unknown command '{command}'; the nearest is '{near}', and all of them are: {}",
        COMMANDS.join(", ")
    )))
}

/// Trains; without a block and a task, on the quick start.
fn train(args: Args) -> Result<(), Failure> {
    let mut args = no_words(args)?;
    if args.configs.is_empty() && args.get("task").is_none() {
        args.configs.push("quickstart".into());
    }
    start(&args)
}

/// Evaluates the run folder given as the only word, or what `--run.from_checkpoint` names.
fn eval(mut args: Args) -> Result<(), Failure> {
    if args.words.len() > 1 {
        return Err(Failure::Usage(anyhow!("'eval' takes one run folder, but got: {}", args.words.join(", "))));
    }
    // How long the run trained does not apply to its evaluation. The user's flags come later and take precedence.
    let mut own = vec![("run.steps", "1e4".to_string()), ("run.eval_eps", "1".into()), ("run.duration", "0".into())];
    if let Some(run) = args.words.pop() {
        let run = run.trim_end_matches('/').to_string();
        if !std::path::Path::new(&run).join("config.yaml").is_file() {
            return Err(Failure::Usage(anyhow!(
                "'{run}' is no run folder, as it holds no config.yaml; name the folder that `dreamer train` wrote to, or a \
                 checkpoint by --run.from_checkpoint"
            )));
        }
        args.configs.insert(0, format!("{run}/config.yaml"));
        // Nor does what it started from.
        own.push(("logdir", "~/logdir/{timestamp}".into()));
        own.push(("run.from_checkpoint", run));
        own.push(("run.from_checkpoint_regex", ".*".into()));
    }
    args.flags.splice(0..0, own.into_iter().map(|(key, value)| (key.to_string(), vec![value])));
    args.flags.push(("script".into(), vec!["eval_only".into()]));
    if args.get("run.from_checkpoint").is_none() && args.get("random_agent").is_none() {
        return Err(Failure::Usage(anyhow!(
            "'eval' needs something to evaluate: `dreamer eval RUN` with a run folder, or the flag --run.from_checkpoint"
        )));
    }
    start(&args)
}

/// Resolves the configuration, checks the task, and runs the script.
fn start(args: &Args) -> Result<(), Failure> {
    let config = resolve(args)?;
    // The task is part of the command line: what is wrong with it is wrong usage, before anything is written.
    if !envs::is_external(&config.task, &config.env) {
        envs::make(&config.task, 0, config.seed, &config.env).map_err(Failure::Usage)?;
    }
    runner::run(config).map_err(Failure::Run)
}

/// The configuration of the command line; warnings about official keys go to standard error.
fn resolve(args: &Args) -> Result<Config, Failure> {
    let (config, warnings) = Config::resolve_with_warnings(&args.configs, &args.flags).map_err(Failure::Usage)?;
    for warning in warnings {
        complain(&format!("warning: {warning}"));
    }
    Ok(config)
}

/// Refuses any argument.
fn no_arguments(args: &Args) -> Result<(), Failure> {
    match args.words.first().or(args.configs.first()).or(args.flags.first().map(|(key, _)| key)) {
        None => Ok(()),
        Some(word) => Err(Failure::Usage(anyhow!("'devices' takes no arguments, but got '{word}'"))),
    }
}

/// Refuses words before the first flag.
fn no_words(args: Args) -> Result<Args, Failure> {
    match args.words.first() {
        None => Ok(args),
        Some(word) => Err(Failure::Usage(anyhow!("the word '{word}' belongs to no flag; write --KEY {word}"))),
    }
}
