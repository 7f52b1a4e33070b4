//! Reading the command line: `--configs a b --key value --key=value --list 1 2 3`.

use anyhow::{Result, bail};

/// The command line after the subcommand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args {
    /// Words before the first flag.
    pub words: Vec<String>,
    /// The blocks after `--configs`, in order; empty where the flag is absent.
    pub configs: Vec<String>,
    /// Every other flag without its dashes, with the words after it, in order.
    pub flags: Vec<(String, Vec<String>)>,
}

impl Args {
    /// Splits `args` into flags. Words that begin with a single dash, such as `-1`, are values.
    pub fn parse(args: &[String]) -> Result<Args> {
        let mut out = Args::default();
        let mut flags: Vec<(String, Vec<String>)> = vec![];
        for arg in args {
            match (arg.strip_prefix("--"), flags.last_mut()) {
                (Some(flag), _) => match flag.split_once('=') {
                    Some((key, value)) => flags.push((key.into(), vec![value.into()])),
                    None => flags.push((flag.into(), vec![])),
                },
                (None, Some((_, words))) => words.push(arg.clone()),
                (None, None) => out.words.push(arg.clone()),
            }
        }
        for (key, words) in flags {
            if words.is_empty() {
                bail!("the flag '--{key}' needs a value after it");
            }
            match key.as_str() {
                "configs" => {
                    let names = words.iter().flat_map(|word| word.split(','));
                    out.configs.extend(names.filter(|name| !name.is_empty()).map(String::from));
                }
                _ => out.flags.push((key, words)),
            }
        }
        Ok(out)
    }

    /// The last value given for the flag `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.flags.iter().rev().find(|flag| flag.0 == key).map(|flag| flag.1.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_take_the_words_after_them() {
        let args = parse("run --configs a b --x 1 2 --y=-3 --configs c,d --z -1 --q=a=b").unwrap();
        assert_eq!(args.words, ["run"]);
        assert_eq!(args.configs, ["a", "b", "c", "d"]);
        let flag = |key: &str| args.get(key).unwrap().join(" ");
        assert_eq!([flag("x"), flag("y"), flag("z"), flag("q")], ["1 2", "-3", "-1", "a=b"]);
        assert_eq!(args.get("nope"), None);
    }

    #[test]
    fn a_flag_without_value_is_an_error() {
        let error = parse("--a 1 --run.sync --b 2").unwrap_err().to_string();
        assert!(error.contains("'--run.sync' needs a value"), "{error}");
    }
}
