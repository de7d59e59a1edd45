//! Features of a split with their classes, and where they are kept between two probes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

use exchange::weights::{self, Mapped};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use serde::{Deserialize, Serialize};
use shardtool::disk;
use tch::{Kind, Tensor};
use xxhash_rust::xxh3::Xxh3;

use super::{Error, Pooling};

/// Layout of the files below; raised when an older trainer could misread one, or when features are computed otherwise.
const VERSION: u32 = 1;

/// Features of a split's samples and their classes, on the CPU.
#[derive(Debug)]
pub struct Table {
    /// A row for each sample, (N, D) float32.
    pub features: Tensor,
    /// Class of each, (N) int64; -1 where it has none.
    pub labels: Tensor,
    /// Number of each in its split, (N) int64. A damaged sample has no row.
    pub samples: Tensor,
}

/// Everything that decides the features of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Checksum of the encoder's weights.
    pub weights: String,
    /// Checksum of the shards' manifest.
    pub manifest: String,
    /// The split.
    pub split: String,
    /// Side of the crop.
    pub crop_size: u32,
    /// Length of the shorter side before it.
    pub resize: u32,
    /// `loader.fidelity`.
    pub fidelity: String,
    /// Last blocks whose features stand side by side.
    pub layers: usize,
    /// What is kept of the patches.
    #[serde(default)]
    pub pooling: Pooling,
    /// `float32` or `bfloat16`: the type of matrix products.
    pub dtype: String,
}

/// What a file of features says of itself, as JSON under one key of its metadata: several would be in any order.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    version: u32,
    key: Key,
    /// Checksum of the tensors' bytes.
    xxh3: String,
}

/// The key of the metadata.
const STAMP: &str = "evaluation";

impl Table {
    /// Returns the number of rows.
    pub fn len(&self) -> i64 {
        self.features.size()[0]
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a handle to the same rows.
    pub fn view(&self) -> Table {
        Table {
            features: self.features.shallow_clone(),
            labels: self.labels.shallow_clone(),
            samples: self.samples.shallow_clone(),
        }
    }

    /// Returns the highest class of a sample.
    ///
    /// # Errors
    /// From libtorch, which finds none in an empty table.
    pub fn highest_class(&self) -> Result<i64, Error> {
        let highest = self
            .labels
            .f_max()
            .and_then(|highest| i64::try_from(&highest));
        Ok(highest.map_err(crate::Error::from)?)
    }

    /// Tells whether all rows, of which there is one at least, are of one class.
    ///
    /// # Errors
    /// From libtorch.
    pub fn is_of_one_class(&self) -> Result<bool, Error> {
        let first = self.labels.f_narrow(0, 0, 1);
        let equal = first.and_then(|first| self.labels.f_eq_tensor(&first)?.f_all());
        let equal = equal.and_then(|equal| i64::try_from(&equal));
        Ok(equal.map_err(crate::Error::from)? != 0)
    }

    /// Returns the features of the last block alone, of those that stand side by side.
    ///
    /// # Errors
    /// From libtorch.
    pub fn last(&self, layers: usize) -> Result<Table, Error> {
        let width = self.features.size()[1] / layers as i64;
        let last = self
            .features
            .f_narrow(1, (layers as i64 - 1) * width, width);
        Ok(Table {
            features: last.map_err(crate::Error::from)?,
            ..self.view()
        })
    }

    /// Returns the rows that have a class.
    ///
    /// # Errors
    /// From libtorch.
    pub fn labelled(self) -> Result<Table, Error> {
        let rows = || -> Result<Option<Table>, tch::TchError> {
            let rows = self.labels.f_ge(0)?.f_nonzero()?.f_squeeze_dim(1)?;
            if rows.size()[0] == self.len() {
                return Ok(None);
            }
            Ok(Some(Table {
                features: self.features.f_index_select(0, &rows)?,
                labels: self.labels.f_index_select(0, &rows)?,
                samples: self.samples.f_index_select(0, &rows)?,
            }))
        };
        Ok(rows().map_err(crate::Error::from)?.unwrap_or(self))
    }

    /// Returns the samples that rows are of, in ascending order.
    ///
    /// # Errors
    /// From libtorch.
    pub fn samples_of(&self, rows: &[i64]) -> Result<Vec<u64>, Error> {
        let samples = || -> Result<Vec<i64>, tch::TchError> {
            let rows = Tensor::f_from_slice(rows)?;
            Vec::try_from(self.samples.f_index_select(0, &rows)?)
        };
        let samples = samples().map_err(crate::Error::from)?.into_iter();
        let mut samples: Vec<u64> = samples.map(i64::cast_unsigned).collect();
        samples.sort_unstable();
        Ok(samples)
    }

    /// Writes the table, whole and on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Table`] with what the file system says.
    pub fn write(&self, path: &Path, key: &Key) -> Result<(), Error> {
        let failed = |cause| Error::Table {
            path: path.to_owned(),
            cause,
        };
        let columns = [&self.features, &self.labels, &self.samples];
        let columns = columns.map(Column::of);
        let [features, labels, samples] = columns;
        let columns = [features?, labels?, samples?];
        let stamp = Stamp {
            version: VERSION,
            key: key.clone(),
            xxh3: checksum(columns.each_ref().map(Column::bytes)),
        };
        let stamp = serde_json::to_string(&stamp).map_err(|cause| failed(cause.into()))?;
        let metadata = HashMap::from([(STAMP.to_owned(), stamp)]);
        std::fs::create_dir_all(disk::parent(path)).map_err(failed)?;
        let write = |file: &mut File| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            let views = NAMES.into_iter().zip(&columns).collect();
            weights::write(views, Some(metadata), &mut out)?;
            out.flush()
        };
        disk::write_with(path, write).map_err(failed)
    }

    /// Reads the table of these features; an error says why the file is not it.
    ///
    /// # Errors
    /// That there is no such file, that it holds other features, or that it is damaged.
    pub fn read(path: &Path, key: &Key) -> Result<Table, NotKept> {
        let damaged = |cause: &dyn Display| NotKept::Damaged(cause.to_string());
        let file = match Mapped::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(NotKept::Missing),
            opened => opened.map_err(|cause| damaged(&cause))?,
        };
        let bytes = file.bytes();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|cause| damaged(&cause))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|cause| damaged(&cause))?;
        let stamp = header
            .metadata()
            .as_ref()
            .and_then(|found| found.get(STAMP));
        let stamp: Stamp = match stamp.map(|stamp| serde_json::from_str(stamp)) {
            Some(Ok(stamp)) => stamp,
            _ => return Err(NotKept::Other),
        };
        if stamp.version != VERSION || stamp.key != *key {
            return Err(NotKept::Other);
        }
        let views = NAMES.map(|name| tensors.tensor(name));
        let [features, labels, samples] = views;
        let (features, labels, samples) = (
            features.map_err(|cause| damaged(&cause))?,
            labels.map_err(|cause| damaged(&cause))?,
            samples.map_err(|cause| damaged(&cause))?,
        );
        let whole = checksum([&features, &labels, &samples].map(|view| view.data()));
        let sum = stamp.xxh3;
        if whole != sum {
            return Err(damaged(&format!(
                "its checksum is {whole}, and {sum:?} was written"
            )));
        }
        let tensor = |view: &TensorView<'_>, kind| {
            let shape: Vec<i64> = view.shape().iter().map(|&length| length as i64).collect();
            Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|cause| damaged(&cause))
        };
        let types = [features.dtype(), labels.dtype(), samples.dtype()];
        let rows = [&features, &labels, &samples].map(|view| view.shape().first().copied());
        let is_table = features.shape().len() == 2 && rows[0] == rows[1] && rows[0] == rows[2];
        if types != [Dtype::F32, Dtype::I64, Dtype::I64] || !is_table {
            return Err(damaged(&"its tensors are of other types or shapes"));
        }
        Ok(Table {
            features: tensor(&features, Kind::Float)?,
            labels: tensor(&labels, Kind::Int64)?,
            samples: tensor(&samples, Kind::Int64)?,
        })
    }
}

/// A tensor of a table as it lies in memory, where it is as large as a data set.
struct Column {
    tensor: Tensor,
    shape: Vec<usize>,
}

impl Column {
    fn of(tensor: &Tensor) -> Result<Column, crate::Error> {
        let shape = tensor.size().into_iter().map(|length| length as usize);
        Ok(Column {
            shape: shape.collect(),
            tensor: tensor.f_contiguous()?,
        })
    }

    fn bytes(&self) -> &[u8] {
        let len = (&self).data_len();
        if len == 0 {
            return &[];
        }
        // SAFETY: a contiguous CPU tensor with elements owns `len` bytes at its data pointer, for as long as it lives.
        // Nothing writes to a table's tensors once it is made.
        unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<u8>(), len) }
    }
}

impl View for &Column {
    fn dtype(&self) -> Dtype {
        match self.tensor.kind() {
            Kind::Float => Dtype::F32,
            _ => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes())
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Names of the tensors in a file.
const NAMES: [&str; 3] = ["features", "labels", "samples"];

/// The reason why a file is not the table that was looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotKept {
    /// There is none.
    #[error("no features are kept there")]
    Missing,
    /// It holds features of other weights, other images or another kind.
    #[error("it holds features of other weights, images or settings")]
    Other,
    /// It cannot be read, or its bytes are not those that were written.
    #[error("{}", shardtool::Escaped::new(.0))]
    Damaged(String),
}

fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Xxh3::new();
    parts.into_iter().for_each(|part| hash.update(part));
    format!("{:016x}", hash.digest())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tch::Device;

    use super::*;

    fn key() -> Key {
        Key {
            weights: "1".to_owned(),
            manifest: "2".to_owned(),
            split: "val".to_owned(),
            crop_size: 32,
            resize: 37,
            fidelity: "fast".to_owned(),
            layers: 4,
            pooling: Pooling::Mean,
            dtype: "float32".to_owned(),
        }
    }

    fn table() -> Table {
        Table {
            features: Tensor::arange(24, (Kind::Float, Device::Cpu)).view([3, 8]),
            labels: Tensor::from_slice(&[1i64, -1, 0]),
            samples: Tensor::from_slice(&[0i64, 1, 3]),
        }
    }

    #[test]
    fn a_table_comes_back_and_no_other_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eval/val.safetensors");
        let read = |key: &Key| Table::read(&path, key);
        assert!(matches!(read(&key()), Err(NotKept::Missing)));
        table().write(&path, &key()).unwrap();
        let back = read(&key()).unwrap();
        assert!(back.features.equal(&table().features));
        assert!(back.labels.equal(&table().labels) && back.samples.equal(&table().samples));
        for other in [
            Key {
                weights: "9".to_owned(),
                ..key()
            },
            Key {
                resize: 38,
                ..key()
            },
            Key { layers: 1, ..key() },
            Key {
                pooling: Pooling::Max,
                ..key()
            },
        ] {
            assert!(matches!(read(&other), Err(NotKept::Other)));
        }
        let sound = fs::read(&path).unwrap();
        for cut in [0, 7, 100, sound.len() - 1] {
            fs::write(&path, &sound[..cut]).unwrap();
            assert!(matches!(read(&key()), Err(NotKept::Damaged(_))), "{cut}");
        }
        let mut flipped = sound.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, &flipped).unwrap();
        let error = read(&key()).unwrap_err().to_string();
        assert!(error.contains("checksum"), "{error}");
        fs::write(&path, b"something else").unwrap();
        assert!(read(&key()).is_err());
    }

    #[test]
    fn rows_without_a_class_and_all_but_the_last_block_can_be_left_out() {
        let labelled = table().labelled().unwrap();
        assert_eq!(Vec::<i64>::try_from(&labelled.samples).unwrap(), [0, 3]);
        let last = labelled.last(4).unwrap();
        assert_eq!(last.features.size(), [2, 2]);
        assert_eq!(
            Vec::<f32>::try_from(last.features.flatten(0, -1)).unwrap(),
            [6.0, 7.0, 22.0, 23.0]
        );
    }
}
