//! Where the shards of a configuration are.

use std::path::{Path, PathBuf};

use super::LoaderConfig;
use super::file::is_placeholder;
use crate::error::Error;

impl LoaderConfig {
    /// Returns where the shards are: `loader.shards`, else `<root_path>/<image_folder>.shards`.
    ///
    /// # Errors
    /// If neither is set, or if there is no such directory; the error tells how to build it.
    pub fn shards_dir(&self) -> Result<PathBuf, Error> {
        self.find_shards().map_err(|error| self.origin.place(error))
    }

    fn find_shards(&self) -> Result<PathBuf, Error> {
        if let Some(dir) = &self.loader.shards {
            let text = dir.to_string_lossy();
            if is_placeholder(&text) {
                return Err(Error::Placeholder {
                    key: "loader.shards".to_owned(),
                    value: text.into_owned(),
                    cure: "set it to the directory that shardtool built, or give --shards DIR"
                        .to_owned(),
                });
            }
            let images = match dir.extension() {
                Some(ending) if ending == "shards" => dir.with_extension(""),
                _ => dir.clone(),
            };
            return existing(dir.clone(), "loader.shards or --shards", images);
        }
        let root = needed("data.root_path", self.data.root_path.as_deref())?;
        let folder =
            needed("data.image_folder", self.data.image_folder.as_deref())?.trim_end_matches('/');
        // An image folder of "" or "." is the root itself; its shards lie beside it, not inside it.
        let images = if matches!(folder, "" | ".") {
            PathBuf::from(root.trim_end_matches('/'))
        } else {
            Path::new(root).join(folder)
        };
        let mut dir = images.clone().into_os_string();
        dir.push(".shards");
        existing(
            PathBuf::from(dir),
            "data.root_path and data.image_folder",
            images,
        )
    }
}

/// Returns the value of a key without which there is no way to the shards.
fn needed<'a>(key: &str, value: Option<&'a str>) -> Result<&'a str, Error> {
    let (key, cure) = (
        key.to_owned(),
        format!(
            "set it in the file or with --set {key}=…, or say where the shards are with --shards DIR"
        ),
    );
    match value {
        None => Err(Error::MissingKey { key, cure }),
        Some(text) if is_placeholder(text) => Err(Error::Placeholder {
            key,
            value: text.to_owned(),
            cure,
        }),
        Some(text) => Ok(text),
    }
}

/// Returns `dir` if there is such a directory.
fn existing(dir: PathBuf, why: &'static str, images: PathBuf) -> Result<PathBuf, Error> {
    if dir.is_dir() {
        Ok(dir)
    } else {
        Err(Error::NoShards { dir, why, images })
    }
}
