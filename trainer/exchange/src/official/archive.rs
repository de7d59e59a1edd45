//! PyTorch's archives: zip files of a pickle and of the numbers it refers to.
//!
//! The one folder inside holds the pickle, `data.pkl`, and a record of raw numbers for each storage, `data/KEY`.
//!
//! The folder is named after the file at the time of writing, so any name goes. `byteorder` says how numbers are
//! written; without it they are little-endian. The other records (`version`, `.data/serialization_id`, …) carry
//! nothing that a reader needs. Archives are read from a mapped file: a tensor's bytes are a slice of it, unless they
//! have to be put in order.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use half::{bf16, f16};
use shardtool::Escaped;

use super::fault::{Cause, Fault};
use super::pickle::{self, Dtype, Item, Node, Storage, Tensor, Tree, Value};
use super::zip::{self, Entry, ZipWriter};
use crate::weights::{Data, DataError};

/// How older versions of PyTorch began a file: a pickle of this number, without an archive around it.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Most bytes of all tensors together, over those of the file.
const SHARING: u64 = 4;

/// An archive and the pickle in it.
#[derive(Debug)]
pub struct Archive<'a> {
    tree: Tree<'a>,
    /// The records by name, without the folder.
    records: HashMap<&'a str, Entry<'a>>,
    big_endian: bool,
    /// Whether records are compared with their checksums.
    checked: bool,
    /// Names of records whose checksum was found right.
    sound: RefCell<HashSet<&'a str>>,
    /// Bytes that may still be taken: a file whose tensors all share a storage must not become a thousand times as
    /// large.
    allowance: Cell<u64>,
}

/// A tensor's elements, row by row, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elements<'a> {
    /// Type of an element.
    pub dtype: Dtype,
    /// Lengths, outermost dimension first.
    pub shape: Vec<u64>,
    /// The elements' bytes.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> TryFrom<Elements<'a>> for Data<'a> {
    type Error = DataError;

    fn try_from(elements: Elements<'a>) -> Result<Data<'a>, DataError> {
        let dtype = match elements.dtype {
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::BF16 => safetensors::Dtype::BF16,
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::F64 => safetensors::Dtype::F64,
            Dtype::I64 => safetensors::Dtype::I64,
        };
        let shape = elements.shape.iter().map(|&length| length as usize);
        Data::new(dtype, shape.collect(), elements.bytes)
    }
}

impl<'a> Archive<'a> {
    /// Reads the archive `file`.
    ///
    /// With `checked`, whatever is read of it must have its checksum; PyTorch can be told to write none.
    ///
    /// # Errors
    /// A [`Fault`] with the byte at which the file breaks a rule.
    pub fn read(file: &'a [u8], checked: bool) -> Result<Archive<'a>, Fault> {
        if file.starts_with(LEGACY) {
            return Err(foreign(
                "written in the format before PyTorch 1.6; `torch.save(torch.load(old, weights_only=True), new)` \
                 writes it in today's",
            ));
        }
        let entries = zip::read(file)?;
        let pickle = entries
            .iter()
            .find_map(|entry| entry.name.strip_suffix("/data.pkl"));
        let folder = pickle
            .filter(|folder| !folder.contains('/'))
            .ok_or_else(|| {
                foreign("a zip file, but not one of PyTorch's: it has no record `data.pkl`")
            })?;
        let mut records = HashMap::with_capacity(entries.len());
        for entry in entries {
            let name = entry.name.strip_prefix(folder);
            let Some(name) = name.and_then(|name| name.strip_prefix('/')) else {
                let (name, folder) = (Escaped::new(entry.name), Escaped::new(folder));
                return Err(Fault::new(
                    entry.offset,
                    format!("record `{name}` outside the folder `{folder}`"),
                ));
            };
            let offset = entry.offset;
            if records.insert(name, entry).is_some() {
                return Err(Fault::new(
                    offset,
                    format!("two records `{}`", Escaped::new(name)),
                ));
            }
        }
        let big_endian = match records.get("byteorder").map(|entry| entry.content) {
            None | Some(b"little") => false,
            Some(b"big") => true,
            Some(_) => {
                let offset = records["byteorder"].offset;
                return Err(Fault::new(
                    offset,
                    "record `byteorder` says neither little nor big",
                ));
            }
        };
        if records.contains_key("constants.pkl") {
            return Err(foreign("a TorchScript program, not a checkpoint"));
        }
        let pickle = &records["data.pkl"];
        if checked {
            check(pickle)?;
        }
        Ok(Archive {
            tree: Tree::read(pickle.content, pickle.offset)?,
            records,
            big_endian,
            checked,
            sound: RefCell::default(),
            allowance: Cell::new(SHARING * file.len() as u64),
        })
    }

    /// Returns the names in the pickle that are not known: objects of code, of which nothing was executed.
    pub fn foreign(&self) -> impl Iterator<Item = String> {
        self.tree.foreign()
    }

    /// Returns a number, or that in a tensor of one element.
    ///
    /// # Errors
    /// [`Cause::Type`] if the value is none.
    pub fn number(&self, item: Item<'_, 'a>) -> Result<f64, Fault> {
        let Value::Tensor(tensor) = item.value() else {
            return item.number();
        };
        if tensor.elements() != 1 {
            return Err(item.content("a tensor of several elements, expected a number"));
        }
        let Elements { dtype, bytes, .. } = self.elements(tensor)?;
        Ok(match (dtype, &bytes[..]) {
            (Dtype::F16, &[a, b]) => f16::from_le_bytes([a, b]).into(),
            (Dtype::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).into(),
            (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
            (Dtype::F64, bytes) => f64::from_le_bytes(bytes.try_into().expect("8 bytes")),
            (Dtype::I64, bytes) => i64::from_le_bytes(bytes.try_into().expect("8 bytes")) as f64,
            (dtype, bytes) => unreachable!("{} bytes of {dtype:?}", bytes.len()),
        })
    }

    /// Returns what the pickle describes.
    pub fn root(&self) -> Item<'_, 'a> {
        self.tree.root()
    }

    /// Returns the elements of a tensor that the pickle describes.
    ///
    /// # Errors
    /// [`Cause::Tensor`] or [`Cause::Checksum`] if its record is missing or damaged, [`Cause::TooMuch`] if the tensors
    /// together would have far more bytes than the file.
    pub fn elements(&self, tensor: &Tensor<'a>) -> Result<Elements<'a>, Fault> {
        let storage = self.storage(&tensor.storage)?;
        let size = tensor.storage.dtype.size() as usize;
        let left = self
            .allowance
            .get()
            .checked_sub(tensor.elements() * size as u64);
        self.allowance.set(left.ok_or_else(|| {
            let cause =
                format!("the tensors have more than {SHARING} times as many bytes as the file");
            Fault::new(0, Cause::TooMuch(cause))
        })?);
        let mut bytes = if is_contiguous(tensor) {
            // Inside the storage: the pickle's reader has made sure.
            let start = tensor.offset as usize * size;
            Cow::Borrowed(&storage[start..start + tensor.elements() as usize * size])
        } else {
            Cow::Owned(gather(tensor, storage, size))
        };
        if self.big_endian {
            for element in bytes.to_mut().chunks_exact_mut(size) {
                element.reverse();
            }
        }
        Ok(Elements {
            dtype: tensor.storage.dtype,
            shape: tensor.shape.clone(),
            bytes,
        })
    }

    fn storage(&self, storage: &Storage<'a>) -> Result<&'a [u8], Fault> {
        let key = storage.key;
        let name = self
            .records
            .get_key_value(format!("data/{key}").as_str())
            .ok_or_else(|| {
                let cause = format!("the storage `{}` has no record", Escaped::new(key));
                Fault::new(0, Cause::Tensor(cause))
            });
        let (name, entry) = name?;
        // The product was checked when the tensor was read.
        if entry.content.len() as u64 != storage.length * storage.dtype.size() {
            let cause = format!(
                "record `{}` has {} bytes, expected {} elements of {}",
                Escaped::new(*name),
                entry.content.len(),
                storage.length,
                storage.dtype.size()
            );
            return Err(Fault::new(entry.offset, Cause::Tensor(cause)));
        }
        if self.checked && !self.sound.borrow().contains(name) {
            check(entry)?;
            self.sound.borrow_mut().insert(name);
        }
        Ok(entry.content)
    }
}

/// Writes an archive into `zip`: the pickle of `root`, then the storages in the order of their numbers.
///
/// `folder` is the name of the folder inside. Storages are asked for one after the other and go straight to the output;
/// only the pickle, which comes first, is put together in memory.
///
/// # Errors
/// What the output says.
pub fn write<'a, W: Write>(
    mut zip: ZipWriter<W>,
    folder: &str,
    root: &Node,
    storages: impl Iterator<Item = Cow<'a, [u8]>>,
) -> io::Result<()> {
    zip.add(&format!("{folder}/data.pkl"), &pickle::write(root))?;
    zip.add(&format!("{folder}/byteorder"), b"little")?;
    for (number, bytes) in storages.enumerate() {
        zip.add(&format!("{folder}/data/{number}"), &bytes)?;
    }
    zip.add(&format!("{folder}/version"), b"3\n")?;
    zip.finish()
}

fn foreign(what: &'static str) -> Fault {
    Fault::new(0, Cause::Foreign(what))
}

/// Compares a record with its checksum.
fn check(entry: &Entry<'_>) -> Result<(), Fault> {
    let found = crc32fast::hash(entry.content);
    if found != entry.crc {
        let cause = Cause::Checksum {
            record: entry.name.to_owned(),
            found,
            expected: entry.crc,
        };
        return Err(Fault::new(entry.offset, cause));
    }
    Ok(())
}

/// Tells whether the elements lie in the storage one after the other.
fn is_contiguous(tensor: &Tensor<'_>) -> bool {
    let mut expected = 1;
    tensor.elements() == 0
        || tensor
            .shape
            .iter()
            .zip(&tensor.stride)
            .rev()
            .all(|(&length, &stride)| {
                let fits = length == 1 || stride == expected;
                expected *= length;
                fits
            })
}

/// Puts in order the elements of a tensor that was transposed, sliced or expanded when it was saved.
fn gather(tensor: &Tensor<'_>, storage: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tensor.elements() as usize * size);
    let mut index = vec![0u64; tensor.shape.len()];
    for _ in 0..tensor.elements() {
        let steps = index
            .iter()
            .zip(&tensor.stride)
            .map(|(i, stride)| i * stride);
        let start = (tensor.offset + steps.sum::<u64>()) as usize * size;
        bytes.extend_from_slice(&storage[start..start + size]);
        for (i, &length) in index.iter_mut().zip(&tensor.shape).rev() {
            *i += 1;
            if *i < length {
                break;
            }
            *i = 0;
        }
    }
    bytes
}
