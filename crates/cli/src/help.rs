//! The help texts, at most 100 columns wide.

const GENERAL: &str = "\
DreamerV3: an agent that learns a model of the world and acts by imagining in it.

Usage: dreamer [COMMAND] [--configs BLOCK...] [--KEY VALUE...]

Commands:
  train     Train; without flags, the quick start. Flags without a command train as well.
  eval      Play with a trained agent and log its scores.
  config    Print the resolved configuration with a comment for each key.
  envs      List the tasks with what they see and do.
  devices   Show usable devices, and what is missing to use a GPU.
  plot      Draw learning curves of runs as SVG or CSV.
  bench     Measure the speed of updates and of acting on this machine.
  help      Explain a command: `dreamer help train`.

Options:
  -h, --help       This text; after a command, the help of that command.
  -V, --version    The version.

Examples:
  dreamer train
  dreamer train --configs size12m --task cartpole_swingup --logdir ~/logdir/cartpole
  dreamer eval ~/logdir/cartpole
  dreamer plot ~/logdir/cartpole --out curve.svg

Errors are one sentence on standard error. Exit codes: 0 fine, 1 the run failed, 2 wrong usage,
128 + signal where a second Ctrl-C or signal ended it at once.
";

const TRAIN: &str = "\
Train an agent.

Usage: dreamer train [--configs BLOCK...] [--KEY VALUE...]

Without --configs and --task this is the quick start: `--configs quickstart`. A CPU wants a small
model: `--configs size1m --task TASK`. Ctrl-C saves and exits; the same command with the same
--logdir resumes.
";

const EVAL: &str = "\
Play with a trained agent and log its scores, without learning.

Usage: dreamer eval RUN [--configs BLOCK...] [--KEY VALUE...]
       dreamer eval --run.from_checkpoint PATH [--configs BLOCK...] [--KEY VALUE...]

RUN is a run folder: its configuration and its newest checkpoint are used, and it is left as it
is. PATH may also be a checkpoint in it. Scores go to a new run folder or to --logdir; if --logdir
is a training run, to its subfolder `eval`. The environments have other random numbers than in
training. Plays --run.steps steps, 10,000 unless it is given, and on until every environment
has ended --run.eval_eps episodes (1).

Examples:
  dreamer eval ~/logdir/cartpole
  dreamer eval ~/logdir/cartpole --run.steps 1e4 --run.envs 8 --seed 1
";

const CONFIG: &str = "\
Print the resolved configuration as YAML, with a comment for each key. Runs nothing.

Usage: dreamer config [--configs BLOCK...] [--KEY VALUE...]

Without flags these are the defaults. The output is a file that --configs takes.
";

const ENVS: &str = "\
List the tasks with what they see and do: key, type, shape, range.

Usage: dreamer envs [TASK...] [--env.KEY VALUE...]

TASK is a name or, of built-in tasks, the beginning of names. Without one, the suites that run in
Python are listed as well, each with the command that installs it.

Examples:
  dreamer envs
  dreamer envs catch memory_50
  dreamer envs gym_CartPole-v1 --env.python ~/venv/bin/python
";

const DEVICES: &str = "\
Show where this machine can compute: its CPU, its NVIDIA GPUs, and the libraries that these need,
with where they were found or how to get them.

Usage: dreamer devices

A GPU is used if one is found and its results agree with the CPU's in a short test, or if
`--device cuda` asks for it. CUDA is not needed to build this program, nor to run it on a CPU.
Libraries are looked for in LD_LIBRARY_PATH, CUDA_HOME, the active Python environment (pip install
nvidia-cuda-nvrtc), /usr/local/cuda* and the system's folders. With `--device cuda --devices 0,1`
several GPUs share each batch; they need NCCL (pip install nvidia-nccl-cu13).
";

const PLOT: &str = "\
Draw learning curves of runs over environment frames.

Usage: dreamer plot RUN... [--FLAG VALUE...]

RUN is a run folder, a .jsonl file or a CSV `step,score`. Several are seeds of one curve: mean and
standard deviation; written NAME=RUN, there is one curve for each NAME.

Flags:
  --out FILE         Where to write; standard output without it.
  --format FORMAT    svg, csv (binned) or scores (one run: `step,score`); else by FILE.
  --key KEY          Metric to draw (episode/score).
  --reference CSV    File `task,frames,mean,sd,seeds` with a curve to draw beside.
  --task TASK        Task to take from that file.
  --bins N           Number of bins over the frames (40, or as the reference).
  --xmax FRAMES      Right end of the plot (the last frame of any run).
  --title TEXT       Text above the plot.

Examples:
  dreamer plot ~/logdir/cartpole --out curve.svg
  dreamer plot ~/logdir/seed0 ~/logdir/seed1 --key episode/length --format csv
  dreamer plot small=~/logdir/a large=~/logdir/b --reference scores.csv --task cartpole_swingup
";

const BENCH: &str = "\
Measure the speed of updates and of acting on this machine, on random data.

Usage: dreamer bench [--configs BLOCK...] [--FLAG VALUE...] [--KEY VALUE...]

Without --configs the agent is size1m. Operations counted are those of matrix products and
convolutions; the peak is measured with multiply-adds in registers on as many threads, just before
and after. Times of parts are thread time divided by threads; with `idle` they add up to an update.
On a GPU updates follow each other as in training, parts and kernels are timed by the GPU itself,
and its memory and its rate of copies are shown as well.

Flags of bench:
  --obs image,vector  Observations: 64x64x3 with 6 discrete actions, 24 floats with 6 continuous
                      ones, or one after the other (the default).
  --task TASK         Take observations and actions of a task.
  --env TASK          Time the environments of a task instead, run.envs of them under random
                      actions; if they run in Python, also without the bridge between.
  --updates N         Updates to time (10), after two that do not count, and half a second more of
                      them on a GPU.
  --json FILE         Also write the figures to this file.

Examples:
  dreamer bench --configs size12m --obs vector
  dreamer bench --obs image --threads 1 --batch_size 4 --json speed.json
  dreamer bench --env atari_pong --env.python ~/venv/bin/python
";

const SYNTAX: &str = "
Flags:
  --configs A B C    Blocks of settings, applied in order to the defaults. A name that ends in
                     .yaml is a file, such as the config.yaml of a run folder.
  --KEY VALUE        Sets one key; flags apply after the blocks. --KEY=VALUE is the same.
  --KEY A B C        Sets a list; A,B,C is the same, and --KEY+ A appends.
  --PATTERN VALUE    Sets every key that the regular expression matches as a whole, at least one.

Keys are nested by dots: agent.dyn.rssm.deter. Values take the type of the default; whole numbers
may be written 1e6. Quote patterns, so that the shell leaves them alone.

Main keys:
  --task TASK              What to learn; `dreamer envs` lists the tasks.
  --logdir PATH            Run folder; an existing one is resumed. {timestamp} is the time.
  --seed N                 Random seed.
  --device D               cpu, cuda, or auto: a GPU if a usable one is found.
  --devices 0,1            With cuda: the GPUs that share each batch; the first one by default.
  --threads N              Threads of an update, and as many for acting; 0 takes all cores.
  --run.steps N            Policy steps after which the run ends.
  --run.train_ratio X      Replayed steps per policy step: more is slower and needs less data.
  --run.envs N             Environments that act at the same time.
  --run.sync True          Repeatable bit for bit, and slower.
  --run.log_every S        Seconds between lines of metrics; likewise report_every, save_every.
  --run.from_checkpoint P  Start from the weights of another run.
  --agent.opt.lr X         Learning rate.
`dreamer config` prints all of them.
";

const EXAMPLES: &str = "
Examples:
  dreamer train --configs size12m --task pinpad_three --logdir ~/logdir/{timestamp}
  dreamer train --configs size1m --task cartpole_swingup --run.train_ratio 512 --seed 1
  dreamer train --configs size50m --task catch '--.*\\.act' gelu --agent.opt.lr 1e-4
  dreamer config --configs crafter size50m --run.train_ratio 64 > my.yaml
";

/// The help of `command`; the general one where there is no such command.
pub fn text(command: &str) -> String {
    match command {
        "train" => [TRAIN, SYNTAX, &blocks(), EXAMPLES].concat(),
        "eval" => [EVAL, SYNTAX, &blocks()].concat(),
        "config" => [CONFIG, SYNTAX, &blocks(), EXAMPLES].concat(),
        "envs" => ENVS.into(),
        "plot" => PLOT.into(),
        "devices" => DEVICES.into(),
        "bench" => [BENCH, SYNTAX, &blocks()].concat(),
        _ => [GENERAL, SYNTAX, &blocks()].concat(),
    }
}

/// The list of blocks.
fn blocks() -> String {
    let lines = config::blocks().into_iter().map(|(name, about)| format!("  {name:<13} {about}\n"));
    ["\nBlocks for --configs:\n".to_string()].into_iter().chain(lines).collect()
}
