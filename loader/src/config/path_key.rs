//! How keys that are paths are read and written: `~` and variables as [`paths`] has them.
//!
//! What is written reads back as the same path, so that a resolved configuration is a configuration. The official
//! files' placeholders look like variables and stay as they are; whoever needs such a key refuses them.

use std::path::Path;

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serializer};
use shardtool::paths;

use super::is_placeholder;

/// Reads a path.
///
/// # Errors
/// If it is no text, or cannot be expanded.
pub fn deserialize<'de, D: Deserializer<'de>, T: From<String>>(from: D) -> Result<T, D::Error> {
    expanded(String::deserialize(from)?)
}

/// Writes a path.
///
/// # Errors
/// If it is not UTF-8.
pub fn serialize<S: Serializer>(path: &impl AsRef<Path>, to: S) -> Result<S::Ok, S::Error> {
    let path = path.as_ref();
    let text = path
        .to_str()
        .ok_or_else(|| S::Error::custom("a path that is not UTF-8"))?;
    if is_placeholder(text) {
        return to.serialize_str(text);
    }
    to.serialize_str(&paths::literal(path).to_string_lossy())
}

fn expanded<T: From<String>, E: serde::de::Error>(written: String) -> Result<T, E> {
    if is_placeholder(&written) {
        return Ok(written.into());
    }
    let path = paths::expand_text(&written).map_err(E::custom)?;
    Ok(path.into())
}

/// The same for keys that may be absent.
pub mod optional {
    use super::*;

    /// Reads a path, if there is one.
    ///
    /// # Errors
    /// If it is no text, or cannot be expanded.
    pub fn deserialize<'de, D: Deserializer<'de>, T: From<String>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let written = Option::<String>::deserialize(from)?;
        written.map(expanded).transpose()
    }

    /// Writes a path, if there is one.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn serialize<S: Serializer>(
        path: &Option<impl AsRef<Path>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => super::serialize(path, to),
            None => to.serialize_none(),
        }
    }
}
