//! The rules of resolving: order, patterns, types, errors, official commands, round trips.

use config::{Args, Config, Value, blocks};
use dreamer_agent::AgentConfig;
use proptest::prelude::*;

/// Resolves a command line such as `--configs crafter --seed 1`.
fn resolve(line: &str) -> anyhow::Result<Config> {
    let args = Args::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())?;
    Config::resolve(&args.configs, &args.flags)
}

fn error(line: &str) -> String {
    format!("{:#}", resolve(line).expect_err(line))
}

/// Asserts that an error says all of `parts`, in one line.
fn assert_says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "'{error}' should say '{part}'");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn defaults_equal_the_agents_defaults() {
    assert_eq!(resolve("").unwrap().agent, AgentConfig::default());
}

#[test]
fn every_block_resolves() {
    assert!(blocks().len() >= 20);
    for (name, about) in blocks() {
        resolve(&format!("--configs {name}")).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(!about.is_empty(), "the block '{name}' has no comment");
    }
}

#[test]
fn every_block_of_a_suite_plays_that_suite() {
    let suites = resolve("").unwrap().env;
    for (name, _) in blocks() {
        let suite = name.split('_').next().unwrap_or_default();
        let task = resolve(&format!("--configs {name}")).unwrap().task;
        // Blocks without a task of their own keep the default's.
        if suites.get(suite).is_some() && task != "dummy_disc" {
            assert!(task == suite || task.starts_with(&format!("{suite}_")), "the block '{name}' plays '{task}'");
        }
    }
    assert_eq!(resolve("--configs atari100k").unwrap().task, "atari100k_pong");
}

#[test]
fn sizes_reach_every_part() {
    let sizes = [
        ("size1m", 512, 64, 4, 4, 64),
        ("size12m", 2048, 256, 16, 16, 256),
        ("size25m", 3072, 384, 24, 24, 384),
        ("size50m", 4096, 512, 32, 32, 512),
        ("size100m", 6144, 768, 48, 48, 768),
        ("size200m", 8192, 1024, 64, 64, 1024),
        ("size400m", 12288, 1536, 96, 96, 1536),
    ];
    for (name, deter, hidden, classes, depth, units) in sizes {
        let agent = resolve(&format!("--configs {name}")).unwrap().agent;
        let rssm = &agent.dynamics.rssm;
        assert_eq!([rssm.deter, rssm.hidden, rssm.classes], [deter, hidden, classes], "{name}");
        assert_eq!([agent.enc.simple.depth, agent.dec.simple.depth], [depth; 2], "{name}");
        let heads = [&agent.rewhead, &agent.conhead, &agent.policy, &agent.value].map(|head| head.units);
        assert_eq!(heads, [units; 4], "{name}");
        assert_eq!([agent.enc.simple.units, agent.dec.simple.units], [units; 2], "{name}");
    }
}

#[test]
fn blocks_apply_in_order_and_include_others() {
    let config = resolve("--configs dmc_proprio").unwrap();
    assert_eq!((config.agent.dynamics.rssm.deter, config.run.train_ratio), (512, 1024.0));
    assert_eq!(config.env["dmc"]["image"], false);
    assert_eq!(config.run.steps, 1_100_000);
    assert_eq!(resolve("--configs dmc_proprio size50m").unwrap().agent.dynamics.rssm.deter, 4096);
    assert_eq!(resolve("--configs size50m dmc_proprio").unwrap().agent.dynamics.rssm.deter, 512);
}

#[test]
fn debug_is_tiny() {
    let agent = resolve("--configs debug").unwrap().agent;
    assert_eq!((agent.value.bins, agent.policy.layers, agent.dynamics.rssm.blocks), (5, 1, 4));
    assert_eq!(agent.dynamics.rssm.imglayers, 2, "'.*\\.layers' must not reach imglayers");
}

#[test]
fn walkthrough_has_its_numbers() {
    let agent = resolve("--configs walkthrough").unwrap().agent;
    let rssm = &agent.dynamics.rssm;
    assert_eq!((rssm.deter, rssm.hidden, rssm.classes, rssm.act.as_str()), (4096, 2048, 32, "gelu"));
    assert_eq!((agent.loss_scales.dynamics, agent.loss_scales.rep), (0.5, 0.1));
}

#[test]
fn flags_override_blocks_and_take_their_types() {
    let config = resolve(
        "--configs crafter size50m --task catch --run.train_ratio 64 --agent.opt.lr 1e-4 --run.steps 1e6 --seed=7 \
         --random_agent True --agent.enc.simple.mults 1 2 3 --env.atari.size=32,48 --agent.dec.simple.mults [4,5] \
         --run.save_every -1 --env.dmc.camera -1 --replay.prio.initial 2.5 --run.from_checkpoint 12",
    )
    .unwrap();
    assert_eq!(config.task, "catch");
    assert_eq!((config.run.train_ratio, config.run.steps, config.seed), (64.0, 1_000_000, 7));
    assert_eq!((config.run.save_every, config.run.from_checkpoint.as_str()), (-1.0, "12"));
    assert!(config.random_agent);
    assert_eq!(config.agent.opt.lr, 1e-4);
    assert_eq!(config.agent.enc.simple.mults, [1, 2, 3]);
    assert_eq!(config.agent.dec.simple.mults, [4, 5]);
    assert_eq!(config.env["atari"]["size"], serde_json::json!([32, 48]));
    assert_eq!(config.replay.prio.initial, 2.5);
    assert_eq!(resolve("").unwrap().replay.prio.initial, f64::INFINITY);
}

#[test]
fn lists_can_be_appended_to() {
    let config = resolve("--agent.enc.simple.mults+ 5 6").unwrap();
    assert_eq!(config.agent.enc.simple.mults, [2, 3, 4, 4, 5, 6]);
}

#[test]
fn the_agent_takes_the_shared_values_from_the_top() {
    let agent = resolve("--seed 3 --batch_size 4 --batch_length 8 --replay_context 0 --report_length 7").unwrap().agent;
    let shared = [agent.batch_size, agent.batch_length, agent.replay_context, agent.report_length];
    assert_eq!((agent.seed, shared), (3, [4, 8, 0, 7]));
}

#[test]
fn patterns_change_every_key_they_match() {
    let agent = resolve(r"--.*\.deter 64 --.*\.(units|depth) 32 --agent\..*\.act gelu").unwrap().agent;
    assert_eq!((agent.dynamics.rssm.deter, agent.value.units, agent.dec.simple.depth), (64, 32, 32));
    assert_eq!((agent.policy.act.as_str(), agent.dynamics.rssm.act.as_str()), ("gelu", "gelu"));
    // A flag's pattern matches the whole key: `actent` is another one.
    assert_eq!(agent.imag_loss.actent, 3e-4);
}

#[test]
fn unknown_names_are_errors_with_the_nearest_one() {
    assert_says(&error("--run.train_ration 64"), &["'run.train_ration'", "'run.train_ratio'", "float"]);
    assert_says(&error("--train_ratio 64"), &["'run.train_ratio'"]);
    assert_says(&error("--agent.dyn.rssm.detr 64"), &["'agent.dyn.rssm.deter'", "int"]);
    assert_says(&error(r"--.*\.detr 64"), &[r"'.*\.detr'", "matches no key", "'agent.dyn.rssm.deter'"]);
    assert_says(&error("--run 5"), &["'run' is a section", "'run.steps'"]);
    assert_says(&error("--configs craftr"), &["'craftr'", "the nearest is 'crafter'", "size400m"]);
    assert_says(&error("--.*( 1"), &["'.*('", "not a valid regular expression"]);
    assert_says(&error("--seed"), &["'--seed' needs a value"]);
    assert_says(&error("--configs no/such/file.yaml"), &["no/such/file.yaml"]);
}

#[test]
fn wrong_types_are_errors_that_say_what_is_expected() {
    assert_says(&error("--batch_size 1.5"), &["'batch_size'", "'1.5'", "int"]);
    assert_says(&error("--batch_size many"), &["'batch_size'", "'many'", "int"]);
    assert_says(&error("--agent.opt.lr fast"), &["'agent.opt.lr'", "'fast'", "float"]);
    assert_says(&error("--random_agent maybe"), &["'random_agent'", "'maybe'", "bool"]);
    assert_says(&error("--seed 1 2"), &["'seed'", "'1 2'", "one int"]);
    assert_says(&error("--agent.enc.simple.mults 1 x"), &["'agent.enc.simple.mults'", "'x'", "int"]);
    assert_says(&error("--batch_length -3"), &["'batch_length'", "-3", "negative"]);
    assert_says(&error("--seed nan"), &["'seed'", "'nan'", "int"]);
    assert_says(&error("--agent.opt.lr nan"), &["'agent.opt.lr'", "'nan'", "float"]);
}

#[test]
fn values_that_cannot_work_are_refused() {
    assert_says(&error("--script trian"), &["'script'", "'trian'", "nearest is 'train'"]);
    assert_says(&error("--device gpu"), &["'device'", "cuda"]);
    assert_says(&error("--logger.outputs jsonl tensorbord"), &["'tensorbord'", "'tensorboard'"]);
    assert_says(&error("--batch_size 0"), &["'batch_size'", "at least 1"]);
    assert_says(&error("--replay.size 1000"), &["'replay.size'", "1040"]);
    assert!(resolve("--replay.size 5000").is_ok());
    assert_says(&error("--replay.size 5000 --script train_eval"), &["'replay.size'", "5280", "evaluation"]);
    assert_says(&error("--run.save_every inf"), &["'run.save_every'", "must be finite"]);
    assert_eq!(resolve("--replay.prio.initial inf").unwrap().replay.prio.initial, f64::INFINITY);
    assert_says(&error("--replay.fracs.uniform 0.5"), &["'replay.fracs'", "0.5"]);
    assert_says(&error("--logger.filter ("), &["'logger.filter'", "regular expression"]);
}

#[test]
fn official_keys_without_meaning_only_warn() {
    let line = "--configs debug --jax.platform cpu --jax.prealloc False --ipv6 False --run.usage.psutil False \
                --logger.outputs jsonl scope --replicas 1";
    let args = Args::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>()).unwrap();
    let (config, warnings) = Config::resolve_with_warnings(&args.configs, &args.flags).unwrap();
    assert_eq!(config.device, "cpu");
    assert_eq!(config.logger.outputs, ["jsonl"]);
    let outputs = |line: &str| resolve(line).unwrap().logger.outputs;
    assert_eq!(outputs("--logger.outputs scope"), outputs(""));
    let names = ["jax.prealloc", "ipv6", "run.usage.psutil", "replicas", "scope"];
    assert_eq!(warnings.len(), names.len(), "{warnings:?}");
    for (name, warning) in names.iter().zip(&warnings) {
        assert_says(warning, &[&format!("'{name}'"), "no effect"]);
    }
    assert_eq!(resolve("--jax.platform cuda").unwrap().device, "cuda");
    assert_eq!(resolve("--jax.compute_dtype float32").unwrap().compute_dtype, "float32");
    assert_eq!(resolve("--device cuda --jax.train_devices 0,1").unwrap().devices, [0, 1]);
    assert_says(&error("--jax.compute_dtype float8"), &["'compute_dtype'", "bfloat16"]);
}

#[test]
fn several_gpus_need_a_batch_to_share() {
    assert_eq!(resolve("").unwrap().devices, [0]);
    assert_eq!(resolve("--device cuda --devices 2 0").unwrap().devices, [2, 0]);
    assert_says(&error("--devices 0 1"), &["'devices' names 2 GPUs", "'auto'", "cuda"]);
    assert_says(&error("--device cuda --devices 0 1 2"), &["'batch_size' is 16", "3 GPUs"]);
    assert_says(&error("--device cuda --devices 0 1 --consec_train 2"), &["'consec_train' must be 1"]);
}

#[test]
fn logdir_placeholders_are_expanded() {
    let mut config = resolve("--logdir runs/x/{timestamp}").unwrap();
    assert_eq!(config.logdir, "runs/x/{timestamp}", "a printed configuration is for more than one run");
    config.expand_timestamp();
    let logdir = config.logdir;
    let stamp = logdir.strip_prefix("runs/x/").unwrap();
    assert!(stamp.len() == 15 && stamp.as_bytes()[8] == b'T', "{stamp}");
    let home = std::env::var("HOME").unwrap();
    assert_eq!(resolve("--logdir ~/y").unwrap().logdir, format!("{home}/y"));
}

#[test]
fn printed_configurations_read_the_same_again() {
    for (name, _) in blocks() {
        let config = resolve(&format!("--configs {name} --seed 5 --logdir runs/{{timestamp}}")).unwrap();
        assert_eq!(Config::from_yaml(&config.to_yaml()).unwrap(), config, "{name}");
        assert_eq!(Config::from_yaml(&config.commented_yaml()).unwrap(), config, "{name}");
    }
}

#[test]
fn printed_numbers_are_short() {
    let yaml = resolve("").unwrap().to_yaml();
    for line in ["    rep: 0.1\n", "    eps: 1e-20\n", "    lr: 4e-5\n", "    actent: 0.0003\n", "    initial: .inf\n"]
    {
        assert!(yaml.contains(line), "{line}");
    }
}

#[test]
fn every_key_is_commented_and_fits_a_terminal() {
    let yaml = resolve("").unwrap().commented_yaml();
    let lines: Vec<&str> = yaml.lines().filter(|line| !line.is_empty()).collect();
    for (i, line) in lines.iter().enumerate() {
        let above = i > 0 && lines[i - 1].trim_start().starts_with('#');
        assert!(line.contains("# ") || above, "no comment: {line}");
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }
    assert!(lines.len() > 200);
}

#[test]
fn flat_lists_every_key() {
    let flat = resolve("--seed 9").unwrap().flat();
    assert_eq!(flat["seed"], Value::Int(9));
    assert_eq!(flat["agent.opt.lr"], Value::Float(4e-5));
    assert_eq!(flat["env.catch.size"], Value::List(vec![Value::Int(64); 2]));
}

proptest! {
    /// Whatever a string, a float or an int holds, the printed file gives it back.
    #[test]
    fn any_value_survives_printing(task in "\\PC*", filter in "[ -~]{0,12}", lr: f64, agc: f32, seed in 0..i64::MAX) {
        prop_assume!(lr.is_finite() && agc.is_finite());
        let mut config = resolve("--logdir runs/x").unwrap();
        config.task = task;
        config.run.from_checkpoint = filter;
        config.agent.opt.lr = lr;
        config.agent.opt.agc = agc;
        (config.seed, config.agent.seed) = (seed as u64, seed as u64);
        prop_assume!(!config.run.from_checkpoint.starts_with('~'));
        prop_assert_eq!(Config::from_yaml(&config.to_yaml()).unwrap(), config);
    }

    /// Nonsense is an error, never a panic.
    #[test]
    fn any_command_line_is_read_or_refused(words in prop::collection::vec("(--)?[a-z.*\\\\=,\\[\\]{}0-9-]{0,8}", 0..6)) {
        if let Ok(args) = Args::parse(&words) {
            let _ = Config::resolve(&[], &args.flags);
        }
    }

    #[test]
    fn any_file_is_read_or_refused(text in "[a-z:.\\-\\[\\]{}&*#\"'0-9 \n]{0,80}") {
        let _ = Config::from_yaml(&text);
    }
}

#[test]
fn the_users_own_arguments_take_any_name_and_survive_the_printed_form() {
    let line = "--task py:my.py:Env --env.kwargs.length 30 --env.kwargs.fast true --env.kwargs.map small \
                --env.kwargs.size [64,64] --env.kwargs.names a b --env.kwargs.one [1] --env.kwargs.none [] \
                --env.kwargs.seed None --env.kwargs.team.red.size 3 --env.kwargs.version '1' \
                --env.kwargs.empty= --env.kwargs.team.0 x \
                --env.kwargs.team.blue null --env.kwargs.word null --env.kwargs.word \"null\"";
    let config = resolve(line).unwrap();
    let kwargs = serde_json::json!({"length": 30, "fast": true, "map": "small", "size": [64, 64], "names": ["a", "b"],
        "one": [1], "none": [], "seed": null, "team": {"red": {"size": 3}, "0": "x", "blue": null},
        "version": "1", "empty": "", "word": "null"});
    assert_eq!(config.env_options()["kwargs"], kwargs);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, config.commented_yaml()).unwrap();
    let again = resolve(&format!("--configs {}", file.display())).unwrap();
    assert_eq!(again.env_options()["kwargs"], kwargs);
    let replaced = |line: &str| resolve(line).unwrap().env_options()["kwargs"].clone();
    assert_eq!(replaced("--env.kwargs.a.b 1 --env.kwargs.a 2"), serde_json::json!({"a": 2}));
    assert_eq!(replaced("--env.kwargs.a 2 --env.kwargs.a.b 1"), serde_json::json!({"a": {"b": 1}}));
    assert_says(&error("--env.kwarg.length 30"), &["'env.kwarg.length'"]);
    assert_says(&error("--seed null"), &["'seed'"]);
    assert_says(&error("--env.kwargs.goals [[1,2],[3,4]]"), &["'env.kwargs.goals'", "one after the other"]);
}
