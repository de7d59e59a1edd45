//! A configuration file as a tree: reading it, overriding single values, and handing out typed sections.
//!
//! Every failure names the file or `--set`, and the full path of the key. Which keys a section knows, and which of them
//! are text, is asked of the section's own type, so there is no second list that could drift from the struct.

use std::fs::File;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::fields::{Kind, fields_of, kind_of};
use super::origin::Origin;
use super::yaml;
use crate::error::Error;

/// A parsed configuration file with its `--set` overrides applied.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    tree: Map<String, Value>,
    sets: Vec<Set>,
    origin: Origin,
}

/// A `--set` override.
#[derive(Clone, Debug)]
struct Set {
    argument: String,
    key: String,
    /// The value as given, for keys that are text.
    text: String,
    /// Why the value is not YAML, which matters for the other keys.
    fault: Option<String>,
}

/// Tells if `text` is one of the official files' `$replace_this_with_…` values.
pub fn is_placeholder(text: &str) -> bool {
    text.starts_with("$replace_this")
}

impl ConfigFile {
    /// Reads `path` and applies each `path.to.key=value`.
    ///
    /// The value of a key that is text or a path is taken literally, but for quotes around all of it. Any other value
    /// is parsed as YAML.
    ///
    /// # Errors
    /// If the file cannot be read, is no YAML mapping, or an override is none.
    pub fn load(path: &Path, sets: &[String]) -> Result<ConfigFile, Error> {
        let text = File::open(path).and_then(yaml::read);
        let text = text.map_err(|cause| Error::ConfigRead {
            path: path.to_owned(),
            cause,
        })?;
        let text = text.map_err(|wrong| syntax(path, wrong.at, wrong.problem))?;
        ConfigFile::parse(path, &text, sets)
    }

    /// Parses a file's text and applies overrides; `path` is only used in errors.
    ///
    /// # Errors
    /// If it is no YAML mapping, or an override is none.
    pub fn parse(path: &Path, text: &str, sets: &[String]) -> Result<ConfigFile, Error> {
        let parsed = yaml::parse(text);
        let tree = match parsed.map_err(|wrong| syntax(path, wrong.at, wrong.problem))? {
            Value::Object(tree) => tree,
            Value::Null => Map::new(),
            _ => {
                let problem = "the file is not a mapping of sections (data:, mask:, …)";
                return Err(syntax(path, None, problem.to_owned()));
            }
        };
        let mut file = ConfigFile {
            tree,
            sets: Vec::new(),
            origin: Origin::new(path.to_owned()),
        };
        for argument in sets {
            file.set(argument)?;
        }
        Ok(file)
    }

    /// Returns the file this came from.
    pub fn path(&self) -> &Path {
        self.origin.path()
    }

    /// Returns where its values come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    fn set(&mut self, argument: &str) -> Result<(), Error> {
        let fault = |problem: &str| set_syntax(argument, problem);
        let (key, text) = argument
            .split_once('=')
            .ok_or_else(|| fault("expected path.to.key=value"))?;
        let parts: Vec<&str> = key.split('.').collect();
        if parts.len() < 2 || parts.iter().any(|part| part.is_empty()) {
            return Err(fault(
                "expected a section and a key, as in data.batch_size=64",
            ));
        }
        let (value, wrong) = match yaml::parse(text) {
            Ok(value) => (value, None),
            Err(wrong) => (Value::String(text.to_owned()), Some(wrong.problem)),
        };
        let (last, sections) = parts.split_last().expect("at least two parts");
        let mut map = &mut self.tree;
        for name in sections {
            let child = map.entry(*name).or_insert(Value::Null);
            if child.is_null() {
                *child = Value::Object(Map::new());
            }
            map = child
                .as_object_mut()
                .ok_or_else(|| fault(&format!("{name} is a value, not a section")))?;
        }
        map.insert((*last).to_owned(), value);
        self.origin.add_set(key);
        self.sets.push(Set {
            argument: argument.to_owned(),
            key: key.to_owned(),
            text: text.to_owned(),
            fault: wrong,
        });
        Ok(())
    }

    /// Returns the override of `key` that counts.
    fn set_of(&self, key: &str) -> Option<&Set> {
        self.sets.iter().rfind(|set| set.key == key)
    }

    /// Refuses sections outside `known`.
    ///
    /// # Errors
    /// The first unknown section, with the nearest known one.
    pub fn check_sections(&self, known: &[&str]) -> Result<(), Error> {
        unknown_key(self.tree.keys(), known, "").map_err(|error| self.origin.place(error))
    }

    /// Refuses keys of the section `name` that a `T` does not know.
    ///
    /// [`ConfigFile::section`] does so as well. Who reads several sections checks all of them first: a mistyped key in
    /// one may be what is missing in another.
    ///
    /// # Errors
    /// The first unknown key, with the nearest known one.
    pub fn check_keys<T: DeserializeOwned>(&self, name: &str) -> Result<(), Error> {
        let Some(Value::Object(keys)) = self.tree.get(name) else {
            return Ok(());
        };
        let outcome = unknown_key(keys.keys(), fields_of::<T>(), &format!("{name}."));
        outcome.map_err(|error| self.origin.place(error))
    }

    /// Returns the section `name` as a `T`. A section that is absent or empty counts as one without keys.
    ///
    /// # Errors
    /// A key that `T` does not know, a missing key without default, or a value of the wrong type.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.check_keys::<T>(name)?;
        let mut value = match self.tree.get(name) {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(value) => value.clone(),
        };
        let Value::Object(keys) = &mut value else {
            return Err(self.origin.place(Error::Value {
                key: name.to_owned(),
                value: value.to_string(),
                problem: "is not a section of keys".to_owned(),
            }));
        };
        for field in fields_of::<T>() {
            if let Some(set) = self.set_of(&format!("{name}.{field}")) {
                match kind_of::<T>(field) {
                    Kind::Text => drop(keys.insert((*field).to_owned(), set.literal())),
                    Kind::OptionalText if !set.is_null() => {
                        keys.insert((*field).to_owned(), set.literal());
                    }
                    Kind::OptionalText | Kind::Other => set.check()?,
                }
            }
        }
        typed(&value, name).map_err(|error| self.origin.place(error))
    }

    /// Returns a value by its dotted path, `None` where it is absent or null. It must not be text.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        if let Some(set) = self.set_of(key) {
            set.check()?;
        }
        let mut parts = key.split('.');
        let mut found = parts.next().and_then(|first| self.tree.get(first));
        for part in parts {
            found = found.and_then(|value| value.get(part));
        }
        match found {
            None | Some(Value::Null) => Ok(None),
            Some(value) => typed(value, key)
                .map(Some)
                .map_err(|error| self.origin.place(error)),
        }
    }
}

impl Set {
    /// Returns the value of a key that is text: as it stands, or what stands in quotes.
    fn literal(&self) -> Value {
        let quoted = ['"', '\'']
            .iter()
            .any(|&quote| self.text.starts_with(quote) && self.text.ends_with(quote));
        match yaml::parse(&self.text) {
            Ok(Value::String(inside)) if quoted => Value::String(inside),
            _ => Value::String(self.text.clone()),
        }
    }

    /// Tells if it takes an optional value away.
    fn is_null(&self) -> bool {
        matches!(self.text.trim(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// Refuses what is not YAML.
    fn check(&self) -> Result<(), Error> {
        match &self.fault {
            Some(problem) => Err(set_syntax(&self.argument, problem)),
            None => Ok(()),
        }
    }
}

fn syntax(path: &Path, at: Option<(u64, u64)>, problem: String) -> Error {
    Error::ConfigSyntax {
        path: path.to_owned(),
        at,
        problem,
    }
}

fn set_syntax(argument: &str, problem: &str) -> Error {
    Error::SetSyntax {
        argument: argument.to_owned(),
        problem: problem.to_owned(),
    }
}

fn typed<T: DeserializeOwned>(value: &Value, path: &str) -> Result<T, Error> {
    serde_path_to_error::deserialize::<_, T>(value).map_err(|error| {
        let mut key = path.to_owned();
        let mut culprit = Some(value);
        for segment in error.path().iter() {
            use serde_path_to_error::Segment;
            match segment {
                Segment::Map { key: name } => {
                    key.push('.');
                    key.push_str(name);
                    culprit = culprit.and_then(|value| value.get(name));
                }
                Segment::Seq { index } => {
                    key.push_str(&format!("[{index}]"));
                    culprit = culprit.and_then(|value| value.get(index));
                }
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        let problem = error.inner().to_string();
        if let Some(field) = problem
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'))
        {
            return Error::MissingKey {
                key: format!("{key}.{field}"),
                cure: "this key has no default".to_owned(),
            };
        }
        let culprit = culprit.unwrap_or(value);
        if let Some(text) = culprit.as_str().filter(|text| is_placeholder(text)) {
            let cure = format!("set it in the file or with --set {key}=…");
            return Error::Placeholder {
                key,
                value: text.to_owned(),
                cure,
            };
        }
        let cure = match problem.ends_with("expected a string") {
            true => "; in quotes it is text",
            false => "",
        };
        Error::Value {
            key,
            value: culprit.to_string(),
            problem: format!("does not fit: {problem}{cure}"),
        }
    })
}

fn unknown_key<'a>(
    keys: impl Iterator<Item = &'a String>,
    known: &[&str],
    prefix: &str,
) -> Result<(), Error> {
    for key in keys {
        if !known.contains(&key.as_str()) {
            let nearest = nearest(key, known).map(|near| format!("{prefix}{near}"));
            return Err(Error::UnknownKey {
                key: format!("{prefix}{key}"),
                nearest,
            });
        }
    }
    Ok(())
}

/// Returns the known key most like `key`, if it is like it at all: a wild guess would mislead.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|&name| (strsim::jaro_winkler(key, name), name))
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(likeness, _)| *likeness > 0.75)
        .map(|(_, name)| name)
}
