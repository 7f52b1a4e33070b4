//! The binary from outside: help, errors with their exit codes, printed configurations.

use std::process::{Command, Output};

/// Runs `dreamer` with the words of `line`.
fn dreamer(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dreamer"));
    command.args(line.split_whitespace()).output().expect("the binary starts")
}

#[test]
fn an_instruction_set_that_does_not_exist_is_a_sentence() {
    for line in ["bench --updates 1", "train --configs debug --run.steps 1 --logdir /nonexistent/run"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dreamer"));
        let output = command.args(line.split_whitespace()).env("ENGINE_SIMD", "sse9").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(output.status.code() == Some(1) && errors.contains("sse9") && !errors.contains("panicked"), "{errors}");
    }
}

#[test]
fn a_bench_that_could_not_write_its_figures_measures_nothing() {
    let output = dreamer("bench --configs size400m --json /nonexistent/folder/figures.json");
    let errors = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.code() == Some(1) && errors.contains("/nonexistent/folder/figures.json"), "{errors}");
}

#[test]
fn a_bench_that_fails_leaves_earlier_figures() {
    let file = std::env::temp_dir().join(format!("figures-{}.json", std::process::id()));
    std::fs::write(&file, "[]").unwrap();
    let output = dreamer(&format!("bench --env pinpad_three --env.pinpad.size 0 0 --json {}", file.display()));
    assert!(output.status.code() != Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[]");
    std::fs::remove_file(file).unwrap();
}

/// Standard output of a command that must succeed.
fn stdout(line: &str) -> String {
    let output = dreamer(line);
    let errors = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success(), "`dreamer {line}` failed: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts wrong usage: exit code 2, nothing on standard output, one sentence that says all of `parts`.
fn refuses(line: &str, parts: &[&str]) {
    let output = dreamer(line);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "`dreamer {line}`: {error}");
    assert!(output.stdout.is_empty(), "`dreamer {line}` printed something");
    assert!(error.starts_with("error: ") && error.trim_end().lines().count() == 1, "{error}");
    for part in parts {
        assert!(error.contains(part), "`dreamer {line}`: '{error}' should say '{part}'");
    }
}

/// The value that a printed configuration gives to the line `key:` at any depth.
fn value<'a>(yaml: &'a str, key: &str) -> &'a str {
    let line = yaml.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("no key {key}")).split("  #").next().unwrap().trim()
}

#[test]
fn help_is_complete_and_fits() {
    let general = stdout("--help");
    for command in ["train", "eval", "config", "envs", "plot", "bench"] {
        assert!(general.contains(&format!("\n  {command} ")), "{command}");
        let help = stdout(&format!("{command} --help"));
        assert_eq!(help, stdout(&format!("help {command}")));
        assert!(help.contains(&format!("Usage: dreamer {command}")) && help.contains("Examples:"), "{help}");
        let wide = help.lines().chain(general.lines()).find(|line| line.chars().count() > 100);
        assert_eq!(wide, None);
    }
    for (block, _) in config::blocks() {
        assert!(general.contains(&format!("\n  {block} ")), "{block}");
    }
    assert_eq!(stdout(""), general);
    assert!(stdout("--version").starts_with("dreamer 0."));
}

#[test]
fn examples_of_the_help_are_valid() {
    let helps = ["train", "config"].map(|command| stdout(&format!("{command} --help"))).concat();
    let examples = helps.lines().filter_map(|line| line.strip_prefix("  dreamer "));
    let flags: Vec<&str> = examples.filter_map(|line| line.split_once(" --")).map(|(_, rest)| rest).collect();
    assert!(flags.len() >= 6);
    for flags in flags {
        let flags = flags.split(" > ").next().unwrap().replace('\'', "");
        assert!(stdout(&format!("config --{flags}")).contains("task:"));
    }
}

#[test]
fn wrong_usage_names_the_nearest() {
    refuses("trian", &["'trian'", "'train'"]);
    refuses("config --run.train_ration 64", &["'run.train_ration'", "'run.train_ratio'", "float"]);
    refuses("--run.train_ration 64", &["'run.train_ratio'"]);
    refuses("train --batch_size many", &["'batch_size'", "'many'", "int"]);
    refuses("train --configs craftr", &["'craftr'", "'crafter'"]);
    refuses("train --task cacth", &["'cacth'", "catch"]);
    refuses("train --seed", &["'--seed' needs a value"]);
    refuses("train --task cartpole", &["nearest are: cartpole_swingup, "]);
    refuses("train --env.kwargs.foo 3", &["env.kwargs.foo", "catch takes no arguments"]);
    refuses("train --logdir=", &["'logdir' is empty"]);
    refuses("train --threads 20000", &["'threads' is 20000", "1024"]);
    refuses("train --run.train_ratio -5", &["'run.train_ratio' is -5"]);
    refuses("train catch", &["'catch' belongs to no flag"]);
    refuses(r"config --.*\.detr 5", &["matches no key", "'agent.dyn.rssm.deter'"]);
    refuses("eval", &["'eval' needs", "--run.from_checkpoint"]);
    refuses("eval no/such/run", &["'no/such/run' is no run folder"]);
    refuses("plot", &["at least one run"]);
    refuses("plot x --refrence y", &["'--refrence'", "'--reference'"]);
    refuses("plot x --format svgg", &["'svgg'", "'svg'"]);
    refuses("envs no_such_task", &["unknown task 'no_such_task'"]);
    refuses("bench --obs sound", &["'sound'", "image or vector"]);
    refuses("bench --obs image --task catch", &["exclude each other"]);
    refuses("bench --updates 0", &["'--updates' is '0'"]);
    refuses("bench --task cacth", &["'cacth'", "catch"]);
    refuses("bench --configs debug --batch_size 0", &["'batch_size' is 0"]);
    assert_eq!(stdout("help --help"), stdout("help"));
    assert_eq!(stdout("--help --configs size1m"), stdout("help"));
    refuses("help trian", &["'trian'", "'train'"]);
    refuses("plot x --out curve.PNG", &[".PNG", ".svg"]);
    refuses("plot x --bins 0", &["'--bins' is '0'"]);
    refuses("plot x --xmax nan", &["'--xmax' is 'nan'"]);
    refuses("plot x y --format scores", &["one run"]);
}

#[cfg(target_os = "linux")]
#[test]
fn outputs_that_take_nothing_do_not_change_what_a_command_says_by_its_exit_code() {
    let code = |line: &str, full_stdout: bool| {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dreamer"));
        command.args(line.split_whitespace());
        let output = if full_stdout { command.stdout(full) } else { command.stderr(full) }.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(code("config --configs nope", false).0, Some(2));
    let (status, errors) = code("config", true);
    assert!(status == Some(1) && errors.contains("cannot write to standard output"), "{errors}");
}

#[test]
fn a_python_without_the_package_is_told_its_cure_and_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    // A Python that has no packages, whatever this machine has.
    let python = dir.path().join("python");
    std::fs::write(&python, "#!/bin/sh\necho \"$0: No module named dreamer_envs\" >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let logdir = dir.path().join("run");
    let (python, folder) = (python.display(), logdir.display());
    let cure = format!(r#"run `{python} -m pip install "./python[crafter]"` in the repository"#);
    for task in [format!("train --configs crafter --logdir {folder}"), "envs crafter_reward".into()] {
        let output = dreamer(&format!("{task} --env.python {python}"));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.starts_with("error: task 'crafter_reward': ") && error.contains(&cure), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(!logdir.exists());
}

#[test]
fn devices_say_what_is_there_and_how_to_get_what_is_not() {
    let text = stdout("devices");
    assert!(text.starts_with("cpu ") && text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let labels = ["cuda", "driver", "nvrtc"];
    assert!(labels.iter().all(|label| text.lines().any(|line| line.starts_with(label))), "{text}");
    refuses("devices 0", &["takes no arguments", "'0'"]);

    if text.contains("libcuda.so.1) was not found") {
        let dir = tempfile::tempdir().unwrap();
        let logdir = dir.path().join("run");
        let output = dreamer(&format!("train --configs debug --device cuda --logdir {}", logdir.display()));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: device 'cuda': ") && error.contains("--device cpu"), "{error}");
        assert!(output.status.code() == Some(1) && !logdir.exists());
    }
}

#[test]
fn a_gpu_that_cannot_be_used_leaves_the_processor_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let line = format!("train --configs debug --run.steps 1 --logdir {}", folder.display());
    let train = |device: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dreamer"));
        command.args(line.split(' ')).args(["--device", device]);
        command.env("DREAMER_EMULATE_GPU", "1").env("CXX", "no-such-compiler").output().unwrap()
    };
    let refused = train("cuda");
    assert!(refused.status.code() == Some(1) && !folder.exists());
    let trained = train("auto");
    let errors = String::from_utf8_lossy(&trained.stderr);
    assert!(
        trained.status.success() && errors.contains("note: computing on the processor, not on a GPU: "),
        "{errors}"
    );
    assert!(errors.contains("no-such-compiler") && train("cpu").status.success());
}

#[test]
fn a_bench_measures_every_case_and_writes_json() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("speed.json");
    let flags = "--configs debug --batch_size 2 --batch_length 4 --report_length 4 --updates 2 --threads 2";
    let text = stdout(&format!("bench {flags} --json {}", file.display()));
    for word in ["image", "vector", "% of the peak", "encoder", "imagination", "optimizer", "idle"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 2);
    for m in found.as_array().unwrap() {
        assert_eq!(m["threads"], 2);
        for key in ["update_ms", "update_ms_min", "peak_gflops", "gflop", "share_of_peak", "act1_ms", "act16_ms"] {
            assert!(m[key].as_f64().unwrap() > 0.0, "{key} of {m}");
        }
        assert!(m["update_ms"].as_f64() >= m["update_ms_min"].as_f64());
        assert!(m["size"].is_string() && m["obs"].is_string() && m["rss_mb"].is_number());
        let parts = m["parts"].as_object().unwrap();
        let gflop: f64 =
            parts.values().map(|p| p["forward_gflop"].as_f64().unwrap() + p["backward_gflop"].as_f64().unwrap()).sum();
        assert!((gflop - m["gflop"].as_f64().unwrap()).abs() < 1e-9);
    }
    let task = stdout(&format!("bench {flags} --task catch --updates 1"));
    assert!(task.contains("catch"), "{task}");
}

#[test]
fn a_failed_command_exits_with_one() {
    let output = dreamer("plot no/such/run");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no/such/run"));
}

#[test]
fn printed_configuration_reads_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.yaml");
    let line = r"--configs crafter size12m --.*\.act gelu --seed 3 --logdir runs/x";
    let first = stdout(&format!("config {line}"));
    std::fs::write(&file, &first).unwrap();
    assert_eq!(stdout(&format!("config --configs {}", file.display())), first);
    assert_eq!([value(&first, "task"), value(&first, "seed"), value(&first, "act")], ["crafter_reward", "3", "gelu"]);
}

#[test]
fn patterns_reach_every_matching_key() {
    let yaml = stdout(r"config --.*\.units 32 --.*\.rssm\.deter=64");
    let units: Vec<&str> = yaml.lines().filter(|line| line.trim_start().starts_with("units: ")).collect();
    assert_eq!(units.len(), 6);
    assert!(units.iter().all(|line| line.contains("units: 32 ")), "{units:?}");
    assert_eq!(value(&yaml, "deter"), "64");
}

#[test]
fn every_key_is_printed_with_a_comment() {
    let yaml = stdout("config");
    let lines: Vec<&str> = yaml.lines().collect();
    let mut keys = 0;
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(": ") && !line.contains("# ")) {
        assert!(lines[i - 1].trim_start().starts_with("# "), "no comment: {line}");
        keys += 1;
    }
    assert!(lines.len() > 200 && keys < 20, "comments stand beside the keys, except of a few long lines");
}

#[test]
fn official_commands_are_accepted_with_warnings() {
    let output = dreamer("config --configs dmc_vision --jax.prealloc False --jax.platform cpu");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success());
    assert!(errors.starts_with("warning: the official key 'jax.prealloc' has no effect"), "{errors}");
    assert_eq!(errors.lines().count(), 1);
    assert_eq!(value(&String::from_utf8(output.stdout).unwrap(), "device"), "cpu");
}

#[test]
fn tasks_are_listed_with_their_spaces() {
    let all = stdout("envs");
    for task in envs::tasks() {
        assert!(all.contains(&format!("{}\n", task.name)), "{}", task.name);
    }
    assert_eq!(all.lines().find(|line| line.chars().count() > 100), None);
    assert!(stdout("envs catch --env.catch.size 20 30").contains("[20, 30, 3]"));
    let catch = stdout("envs catch");
    assert!(catch.contains("image") && catch.contains("uint8") && catch.contains("[64, 64, 3]"), "{catch}");
    assert!(!catch.contains("cartpole"));
    assert!(stdout("envs memory_7").starts_with("memory_7\n"));
}

#[test]
fn every_task_takes_the_options_of_the_configuration() {
    let config = config::Config::resolve(&[], &[]).unwrap();
    for task in envs::tasks() {
        let env = envs::make(&task.name, 0, 0, &config.env).unwrap();
        assert_eq!(env.obs_space(), &task.obs_space, "{}: the configuration's defaults are the task's", task.name);
    }
}

#[test]
fn training_without_blocks_is_the_quick_start_and_its_folder_can_be_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    let (run, scores) = (dir.path().join("run"), dir.path().join("scores"));
    let (run, scores) = (run.to_str().unwrap(), scores.to_str().unwrap());
    stdout(&format!("train --random_agent True --run.steps 40 --logdir {run}"));
    let config = |folder: &str| std::fs::read_to_string(format!("{folder}/config.yaml")).unwrap();
    assert_eq!(config(run), {
        let flags = ["random_agent:True", "run.steps:40", &format!("logdir:{run}")].map(|flag| {
            let (key, word) = flag.split_once(':').unwrap();
            (key.to_string(), vec![word.to_string()])
        });
        config::Config::resolve(&["quickstart".into()], &flags).unwrap().to_yaml()
    });
    stdout(&format!("eval {run}/ --run.steps 30 --logdir {scores}"));
    let yaml = config(scores);
    assert_eq!([value(&yaml, "script"), value(&yaml, "task"), value(&yaml, "steps")], ["eval_only", "catch", "30"]);
    assert_eq!(value(&yaml, "from_checkpoint"), run);
    assert!(std::fs::metadata(format!("{scores}/scores.jsonl")).is_ok());
    // A copy of the folder goes on by itself, and leaves the first one alone.
    let copy = format!("{run}-copy");
    assert!(Command::new("cp").args(["-a", run, &copy]).status().unwrap().success());
    let told = stdout(&format!("--configs {copy}/config.yaml --run.steps 80"));
    assert!(told.contains("resumed at step 40") && told.contains("result"), "{told}");
    assert_eq!(value(&config(&copy), "logdir"), copy);
    assert_eq!(value(&config(run), "steps"), "40");
    // Others may read a checkpoint where they may read the rest of the folder.
    let mode = |name: &str| std::fs::metadata(format!("{copy}/{name}")).unwrap().permissions();
    let latest = std::fs::read_to_string(format!("{copy}/ckpt/latest")).unwrap();
    assert_eq!(mode("config.yaml"), mode(&format!("ckpt/{}/agent.safetensors", latest.trim())));
    let videos: Vec<_> =
        std::fs::read_dir(format!("{scores}/videos")).unwrap().map(|x| x.unwrap().file_name()).collect();
    assert_eq!(videos, ["epstats_policy_image-0000000040.gif"], "4 environments, episodes of 10 steps");
}
