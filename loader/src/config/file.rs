//! A configuration file as a tree: reading it, overriding single values, and handing out typed sections.
//!
//! Every failure names the full path of the key. Which keys a section knows is asked of the section's own type, so
//! there is no second list that could drift from the struct.

use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Map, Value};

use crate::error::Error;

/// A parsed configuration file with its `--set` overrides applied.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    tree: Map<String, Value>,
    path: PathBuf,
}

/// Tells if `text` is one of the official files' `$replace_this_with_…` values.
pub fn is_placeholder(text: &str) -> bool {
    text.starts_with("$replace_this")
}

impl ConfigFile {
    /// Reads `path` and applies each `path.to.key=value`, whose value is parsed as YAML.
    ///
    /// # Errors
    /// If the file cannot be read, is no YAML mapping, or an override is none.
    pub fn load(path: &Path, sets: &[String]) -> Result<ConfigFile, Error> {
        let text = std::fs::read_to_string(path).map_err(|cause| Error::ConfigRead {
            path: path.to_owned(),
            cause,
        })?;
        ConfigFile::parse(path, &text, sets)
    }

    /// Parses a file's text and applies overrides; `path` is only used in errors.
    ///
    /// # Errors
    /// If it is no YAML mapping, or an override is none.
    pub fn parse(path: &Path, text: &str, sets: &[String]) -> Result<ConfigFile, Error> {
        let fault = |problem: String| Error::ConfigSyntax {
            path: path.to_owned(),
            problem,
        };
        let tree = match serde_saphyr::from_str::<Value>(text)
            .map_err(|error| fault(error.to_string()))?
        {
            Value::Object(tree) => tree,
            Value::Null => Map::new(),
            _ => {
                return Err(fault(
                    "the file is not a mapping of sections (data:, mask:, …)".to_owned(),
                ));
            }
        };
        let mut file = ConfigFile {
            tree,
            path: path.to_owned(),
        };
        for argument in sets {
            file.set(argument)?;
        }
        Ok(file)
    }

    /// Returns the file this came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the whole tree, overrides applied.
    pub fn resolved(&self) -> &Map<String, Value> {
        &self.tree
    }

    fn set(&mut self, argument: &str) -> Result<(), Error> {
        let fault = |problem: &str| Error::SetSyntax {
            argument: argument.to_owned(),
            problem: problem.to_owned(),
        };
        let (key, value) = argument
            .split_once('=')
            .ok_or_else(|| fault("expected path.to.key=value"))?;
        let parts: Vec<&str> = key.split('.').collect();
        if parts.len() < 2 || parts.iter().any(|part| part.is_empty()) {
            return Err(fault(
                "expected a section and a key, as in data.batch_size=64",
            ));
        }
        let value = serde_saphyr::from_str::<Value>(value)
            .map_err(|error| fault(&format!("the value is not YAML: {error}")))?;
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
        Ok(())
    }

    /// Refuses sections outside `known`.
    ///
    /// # Errors
    /// The first unknown section, with the nearest known one.
    pub fn check_sections(&self, known: &[&str]) -> Result<(), Error> {
        unknown_key(self.tree.keys(), known, "")
    }

    /// Returns the section `name` as a `T`. A section that is absent or empty counts as one without keys.
    ///
    /// # Errors
    /// A key that `T` does not know, a missing key without default, or a value of the wrong type.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let value = match self.tree.get(name) {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(value) => value.clone(),
        };
        let Value::Object(keys) = &value else {
            return Err(Error::Value {
                key: name.to_owned(),
                value: value.to_string(),
                problem: "is not a section of keys".to_owned(),
            });
        };
        unknown_key(keys.keys(), fields_of::<T>(), &format!("{name}."))?;
        typed(&value, name)
    }

    /// Returns a value by its dotted path, `None` where it is absent or null.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let mut parts = key.split('.');
        let mut found = parts.next().and_then(|first| self.tree.get(first));
        for part in parts {
            found = found.and_then(|value| value.get(part));
        }
        match found {
            None | Some(Value::Null) => Ok(None),
            Some(value) => typed(value, key).map(Some),
        }
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
        Error::Value {
            key,
            value: culprit.to_string(),
            problem: format!("does not fit: {problem}"),
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

/// Returns the field names of a struct, as its derived `Deserialize` announces them; empty for any other type.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Recorder<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Recorder<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only field names are recorded"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // It always fails, by design: the names were seen before it did.
    let _ = T::deserialize(Recorder(&mut fields));
    fields
}
