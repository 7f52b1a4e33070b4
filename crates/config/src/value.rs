//! `Value`: one setting, with the conversions that give it the type of its default.

use anyhow::{Result, bail};
use yaml_rust2::Yaml;

/// The value of one key. A list holds values of one type and is never empty in the defaults.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Only for arguments of the user's environment.
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Value>),
}

impl Value {
    /// The type in words, as errors name it: `int`, `float`, `bool`, `string`, `list of int`, ...
    pub fn type_name(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(_) => "bool".into(),
            Value::Int(_) => "int".into(),
            Value::Float(_) => "float".into(),
            Value::Str(_) => "string".into(),
            Value::List(items) => format!("list of {}", items.first().map_or("string".into(), Value::type_name)),
        }
    }

    /// This value converted to the type of `default`: `1e6` becomes an int where one is expected.
    pub fn cast(self, default: &Value) -> Result<Value> {
        match (default, self) {
            (Value::Bool(_), Value::Bool(x)) => Ok(Value::Bool(x)),
            (Value::Bool(_), Value::Int(x @ (0 | 1))) => Ok(Value::Bool(x == 1)),
            (Value::Int(_), Value::Int(x)) => Ok(Value::Int(x)),
            (Value::Int(_), Value::Float(x)) if is_integer(x) => Ok(Value::Int(x as i64)),
            (Value::Float(_), Value::Float(x)) => Ok(Value::Float(x)),
            (Value::Float(_), Value::Int(x)) => Ok(Value::Float(x as f64)),
            (Value::Str(_), Value::Str(x)) => Ok(Value::Str(x)),
            (Value::Str(_), x @ (Value::Int(_) | Value::Float(_) | Value::Bool(_))) => Ok(Value::Str(x.to_plain())),
            (Value::List(defaults), Value::List(items)) => {
                let Some(first) = defaults.first() else { return Ok(Value::List(items)) };
                if items.is_empty() {
                    bail!("an empty list, but expects {}", default.type_name());
                }
                items.into_iter().map(|x| x.cast(first)).collect::<Result<_>>().map(Value::List)
            }
            // Numbers such as `inf`, which YAML reads as strings.
            (Value::Int(_) | Value::Float(_) | Value::Bool(_), Value::Str(text)) => Value::parse(&text, default),
            (_, x) => bail!("{}, but expects {}", x.to_yaml(), default.type_name()),
        }
    }

    /// The value of a flag, given as the words after it, read as the type of `default`.
    pub fn from_words(words: &[String], default: &Value) -> Result<Value> {
        match (default, words) {
            (Value::List(defaults), words) => {
                let first = defaults.first().cloned().unwrap_or(Value::Str(String::new()));
                // One word with commas is a list too, with or without brackets.
                let parts: Vec<&str> = match words {
                    [word] => word.trim_start_matches('[').trim_end_matches(']').split(',').map(str::trim).collect(),
                    _ => words.iter().map(String::as_str).collect(),
                };
                parts.iter().map(|x| Value::parse(x, &first)).collect::<Result<_>>().map(Value::List)
            }
            (_, [word]) => Value::parse(word, default),
            (_, words) => {
                bail!("the {} values '{}', but expects one {}", words.len(), words.join(" "), default.type_name())
            }
        }
    }

    /// The value of a flag whose key has no default: of the type that YAML would read.
    pub fn guess(words: &[String]) -> Result<Value> {
        let one = |word: &String| match word.as_str() {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "None" => Value::Null,
            "" => Value::Str(String::new()),
            word => match quoted(word) {
                Some(text) => Value::Str(text.into()), // what looks like a number too, as in YAML
                None => Value::from_yaml(&Yaml::from_str(word)).unwrap_or_else(|| Value::Str(word.into())),
            },
        };
        match words {
            [] => bail!("given without a value"),
            [word] if word.starts_with('[') && word.ends_with(']') => {
                let inner = word[1..word.len() - 1].trim();
                if inner.contains(['[', '{', '"', '\'']) {
                    bail!("'{word}', but a list holds plain words or numbers: write them one after the other");
                }
                let items = inner.split(',').map(|item| one(&item.trim().to_string()));
                Ok(Value::List(if inner.is_empty() { vec![] } else { items.collect() }))
            }
            [word] => Ok(one(word)),
            words => Ok(Value::List(words.iter().map(one).collect())),
        }
    }

    /// One word read as the type of `default`, which must not be a list.
    fn parse(word: &str, default: &Value) -> Result<Value> {
        let number = || parse_number(word);
        let value = match default {
            Value::Bool(_) => match word {
                "True" | "true" | "TRUE" | "1" => Some(Value::Bool(true)),
                "False" | "false" | "FALSE" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            Value::Int(_) => match word.parse() {
                Ok(x) => Some(Value::Int(x)),
                Err(_) => number().filter(|&x| is_integer(x)).map(|x| Value::Int(x as i64)),
            },
            Value::Float(_) => number().map(Value::Float),
            Value::Str(_) => Some(Value::Str(word.into())),
            Value::Null | Value::List(_) => None,
        };
        match value {
            Some(value) => Ok(value),
            None => bail!("'{word}', but expects {}", default.type_name()),
        }
    }

    /// A scalar or a list of scalars of a YAML document; `None` for mappings and nested lists.
    pub(crate) fn from_yaml(yaml: &Yaml) -> Option<Value> {
        Some(match yaml {
            Yaml::Null => Value::Null,
            Yaml::Boolean(x) => Value::Bool(*x),
            Yaml::Integer(x) => Value::Int(*x),
            // `5e6` counts as a whole number, so that steps can be written that way; `5.0` is a float.
            Yaml::Real(text) => match parse_number(text)? {
                x if is_integer(x) && !text.contains('.') => Value::Int(x as i64),
                x => Value::Float(x),
            },
            Yaml::String(x) => Value::Str(x.clone()),
            Yaml::Array(items) => {
                let scalar = |x: &Yaml| Value::from_yaml(x).filter(|x| !matches!(x, Value::List(_)));
                Value::List(items.iter().map(scalar).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    /// As JSON; infinities, which JSON lacks, become the strings `inf` and `-inf`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Null => serde_json::Value::Null,
            Value::Bool(x) => (*x).into(),
            Value::Int(x) => (*x).into(),
            Value::Float(x) if x.is_finite() => (*x).into(),
            Value::Float(x) => x.to_string().into(),
            Value::Str(x) => x.as_str().into(),
            Value::List(items) => items.iter().map(Value::to_json).collect(),
        }
    }

    /// The inverse of [`Value::to_json`] for scalars and lists, with the type of `default`.
    pub(crate) fn from_json(json: &serde_json::Value, default: &Value) -> Option<Value> {
        use serde_json::Value as Json;
        let value = match json {
            Json::Bool(x) => Value::Bool(*x),
            Json::Number(x) => x.as_i64().map(Value::Int).or(x.as_f64().map(Value::Float))?,
            Json::String(x) => Value::Str(x.clone()),
            Json::Array(items) => {
                let Value::List(defaults) = default else { return None };
                let first = defaults.first()?;
                Value::List(items.iter().map(|x| Value::from_json(x, first)).collect::<Option<_>>()?)
            }
            _ => return None,
        };
        value.cast(default).ok()
    }

    /// The inverse of [`Value::to_json`] for scalars and lists of any type.
    pub(crate) fn free(json: &serde_json::Value) -> Option<Value> {
        use serde_json::Value as Json;
        Some(match json {
            Json::Null => Value::Null,
            Json::Bool(x) => Value::Bool(*x),
            Json::Number(x) => x.as_i64().map(Value::Int).or(x.as_f64().map(Value::Float))?,
            Json::String(x) => Value::Str(x.clone()),
            Json::Array(items) => Value::List(items.iter().map(Value::free).collect::<Option<_>>()?),
            _ => return None,
        })
    }

    /// As YAML on one line, quoted where a reader would take it for another type.
    pub fn to_yaml(&self) -> String {
        match self {
            Value::Str(x) if !is_plain(x) => quote(x),
            Value::List(items) => {
                format!("[{}]", items.iter().map(Value::to_yaml).collect::<Vec<_>>().join(", "))
            }
            _ => self.to_plain(),
        }
    }

    /// As text without quotes: `1e-20`, `true`, `catch`.
    fn to_plain(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(x) => x.to_string(),
            Value::Int(x) => x.to_string(),
            Value::Float(x) if x.is_finite() => format!("{x:?}"),
            Value::Float(x) => format!("{x}").replace("inf", ".inf"),
            Value::Str(x) => x.clone(),
            Value::List(_) => self.to_yaml(),
        }
    }
}

/// Reads a number as the official code does: exponents, underscores, `inf`.
fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim().replace('_', "");
    let text = text.replace(".inf", "inf").replace(".Inf", "inf");
    text.parse().ok().filter(|x: &f64| !x.is_nan())
}

/// Whether `x` is a whole number that an i64 holds exactly.
fn is_integer(x: f64) -> bool {
    x.fract() == 0.0 && x.abs() < 9e15
}

/// Whether YAML reads `text` as a string without quotes, in lists too.
fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_alphabetic() || "_/".contains(c)) || text.starts_with("~/");
    begins
        && text.chars().all(|c| c.is_alphanumeric() || "_./~-".contains(c))
        && parse_number(text).is_none()
        && matches!(Yaml::from_str(text), Yaml::String(_))
}

/// What stands between quotes, if the whole word does.
fn quoted(word: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|&quote| word.strip_prefix(quote)?.strip_suffix(quote))
}

/// `text` in quotes: single ones, or double ones where it holds control characters.
fn quote(text: &str) -> String {
    if text.chars().any(char::is_control) {
        return serde_json::Value::from(text).to_string();
    }
    format!("'{}'", text.replace('\'', "''"))
}
