//! `dataset.json`: what a dataset holds, readable by people and without opening a shard.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::format::{LabelType, VERSION, checksum};
use crate::{Codec, Error, regular};

/// Name of the manifest in a dataset's directory.
pub const MANIFEST_FILE: &str = "dataset.json";
/// Value of the manifest's `format` key.
pub const FORMAT_NAME: &str = "ijepa-shards";
/// Longest manifest that is read; a million shards take about a tenth of it.
const MAX_BYTES: u64 = 1 << 30;

/// The manifest. Unknown keys are ignored, so that notes can be added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT_NAME`].
    pub format: String,
    /// Version of the format, of this file and of the shards.
    pub version: u32,
    /// What the dataset was built from.
    pub source: SourceRecord,
    /// How payloads were coded.
    pub codec: CodecOptions,
    /// The order of the samples of a split.
    #[serde(default, skip_serializing_if = "Order::is_sorted")]
    pub order: Order,
    /// Names of the classes; a sample's class is an index into this list. Empty if unlabelled.
    pub classes: Vec<String>,
    /// Label columns that every shard has.
    pub labels: Vec<LabelColumn>,
    /// The splits and their shards.
    pub splits: Vec<SplitRecord>,
    /// xxh3-64 of the file that was read; not part of it.
    #[serde(skip)]
    checksum: u64,
}

/// What a dataset was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Name of the source folder, without the path to it.
    pub name: String,
    /// Number of image files that were found.
    pub files: u64,
    /// Their total size.
    pub bytes: u64,
    /// xxh3-64 of their paths and sizes and of the labels file: tells whether a dataset was built
    /// from this folder.
    #[serde(with = "hex")]
    pub listing: u64,
}

/// How payloads were coded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecOptions {
    /// The codec asked for; single samples may have another, see their entries.
    pub name: Codec,
    /// zstd level of `raw` samples, and of `dct` samples coded with zstd.
    pub level: i32,
    /// How the streams of `dct` samples are coded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<EntropyCoding>,
    /// How the resolution is bounded, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// Most bytes of header and payloads in a shard of more than one sample.
    pub shard_size: u64,
}

/// The order of a split's samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// By class number, then by the bytes of the path.
    #[default]
    Sorted,
    /// As the source has them.
    Source,
    /// By the xxh3-64 of the path, with this seed: as if drawn by lot.
    Shuffled {
        /// The seed.
        seed: u64,
    },
}

impl Order {
    fn is_sorted(&self) -> bool {
        *self == Order::Sorted
    }
}

/// How the streams of `dct` samples are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "build", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum EntropyCoding {
    /// With rANS and tables made for the dataset: smaller, and the fastest to decode.
    Rans,
    /// With zstd.
    Zstd,
}

/// What a bounded resolution costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The shorter side of the stored image in pixels; smaller images stay as they are.
    pub short_side: u32,
    /// JPEG quality of what was made smaller, 1 to 100.
    pub quality: u8,
    /// Its chroma subsampling: 420 or 444.
    pub chroma: u16,
}

/// A label column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: LabelType,
}

/// A split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// Its name, such as `train`.
    pub name: String,
    /// Number of samples in all its shards.
    pub samples: u64,
    /// Its shards, in sample order.
    pub shards: Vec<ShardRecord>,
}

/// A shard file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// File name in the dataset's directory.
    pub file: String,
    /// Number of samples.
    pub samples: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// Checksum of the shard's header, which covers all of the shard.
    #[serde(with = "hex")]
    pub checksum: u64,
}

/// Checksums are texts of 16 hexadecimal digits: a JSON number loses digits beyond 2^53.
pub(super) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{value:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.len() == 16
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        digits
            .then(|| u64::from_str_radix(&text, 16).ok())
            .flatten()
            .ok_or_else(|| {
                D::Error::custom(format!("{text:?} is not 16 lower-case hexadecimal digits"))
            })
    }
}

impl Manifest {
    /// Makes a manifest to be written.
    pub fn new(
        source: SourceRecord,
        codec: CodecOptions,
        order: Order,
        classes: Vec<String>,
        labels: Vec<LabelColumn>,
        splits: Vec<SplitRecord>,
    ) -> Manifest {
        let mut manifest = Manifest {
            format: FORMAT_NAME.to_owned(),
            version: VERSION,
            source,
            codec,
            order,
            classes,
            labels,
            splits,
            checksum: 0,
        };
        manifest.checksum = checksum(manifest.to_json().as_bytes());
        manifest
    }

    /// Reads and checks `dataset.json` in a dataset's directory.
    ///
    /// # Errors
    /// What the system says, or what is wrong with the manifest.
    pub fn read(dir: &Path) -> Result<Manifest, Error> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = regular::read(&path, MAX_BYTES).map_err(Error::io(&path, "read"))?;
        let json = |cause| Error::Json {
            path: path.clone(),
            cause,
        };
        // Format and version first: another version may have another shape.
        let tree: serde_json::Value = serde_json::from_slice(&bytes).map_err(json)?;
        let wrong = |key: String, expected: String, got: String| Error::Manifest {
            path: path.clone(),
            key,
            expected,
            got,
        };
        for (key, expected) in [("format", FORMAT_NAME.into()), ("version", VERSION.into())] {
            let expected: serde_json::Value = expected;
            let got = tree.get(key).unwrap_or(&serde_json::Value::Null);
            if *got != expected {
                return Err(wrong(key.to_owned(), expected.to_string(), got.to_string()));
            }
        }
        let mut manifest: Manifest = serde_json::from_slice(&bytes).map_err(json)?;
        manifest
            .check()
            .map_err(|(key, expected, got)| wrong(key, expected.to_owned(), got))?;
        manifest.checksum = checksum(&bytes);
        Ok(manifest)
    }

    /// Checks what the types do not: names, which become file names, and sums. An error is the
    /// key, what was expected, and what stands there.
    fn check(&self) -> Result<(), (String, &'static str, String)> {
        let mut names = HashSet::new();
        for (i, class) in self.classes.iter().enumerate() {
            if !names.insert(class.as_str()) {
                return Err((
                    format!("classes[{i}]"),
                    "distinct names",
                    format!("{class:?}"),
                ));
            }
        }
        let mut splits = HashSet::new();
        let mut files = HashSet::new();
        for (i, split) in self.splits.iter().enumerate() {
            let key = |name: &str| format!("splits[{i}].{name}");
            if !is_plain(&split.name) || !splits.insert(split.name.as_str()) {
                let expected = "a distinct name of letters, digits, '-', '_' and '.'";
                return Err((key("name"), expected, format!("{:?}", split.name)));
            }
            for (j, shard) in split.shards.iter().enumerate() {
                if !is_plain(&shard.file) || !files.insert(shard.file.as_str()) {
                    let expected = "a distinct file name of letters, digits, '-', '_' and '.'";
                    let got = format!("{:?}", shard.file);
                    return Err((key(&format!("shards[{j}].file")), expected, got));
                }
            }
            let sum: u64 = split.shards.iter().map(|s| u64::from(s.samples)).sum();
            if sum != split.samples {
                let expected = "the sum of its shards' samples";
                return Err((
                    key("samples"),
                    expected,
                    format!("{}, not {sum}", split.samples),
                ));
            }
        }
        Ok(())
    }

    /// Returns the bytes of `dataset.json`.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("plain data becomes JSON");
        json.push('\n');
        json
    }

    /// Returns the xxh3-64 of the file's bytes. It covers every shard's checksum and so identifies the data.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Returns the record of a split, by name.
    pub fn split(&self, name: &str) -> Option<&SplitRecord> {
        self.splits.iter().find(|split| split.name == name)
    }
}

/// Tells whether a name is safe as a file name: no separator, no hidden or parent directory.
pub(crate) fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}
