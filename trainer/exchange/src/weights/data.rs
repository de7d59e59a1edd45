//! Tensors of mapped files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, View};

use super::Tensors;

/// A file mapped into memory.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    path: PathBuf,
}

impl Mapped {
    /// Maps the file `path`.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> std::io::Result<Mapped> {
        let file = File::open(path)?;
        // SAFETY: the map is read only. Another process that shortens the file meanwhile would end this one by SIGBUS;
        // nobody changes a finished checkpoint, and no way of reading 10 GB without copying them knows better.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Mapped {
            map,
            path: path.to_owned(),
        })
    }

    /// Its content.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors in it, if it is a safetensors file of floating-point numbers.
    pub fn tensors(&self) -> Result<Tensors<'_>> {
        let file = self.path.display();
        let tensors = SafeTensors::deserialize(&self.map).with_context(|| format!("{file}"))?;
        let mut found = BTreeMap::new();
        for (name, view) in tensors.tensors() {
            let data = Data::new(
                view.dtype(),
                view.shape().to_vec(),
                Cow::Borrowed(view.data()),
            );
            let data = data.with_context(|| format!("{file}: tensor `{}`", name.escape_debug()))?;
            found.insert(name, data);
        }
        Ok(found)
    }
}

/// A tensor of float32 numbers, row by row. Those stored in half precision are widened, exactly, when they are read.
#[derive(Clone, Debug)]
pub struct Data<'a> {
    /// Type of the numbers as they are stored.
    stored: Dtype,
    shape: Vec<usize>,
    /// The tensor's bytes, one piece after the other.
    pieces: Vec<Cow<'a, [u8]>>,
}

impl<'a> Data<'a> {
    /// A tensor of `shape` whose little-endian numbers of type `stored` are `bytes`.
    pub fn new(stored: Dtype, shape: Vec<usize>, bytes: Cow<'a, [u8]>) -> Result<Data<'a>> {
        let size = match stored {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => bail!("of {other:?}, expected float32 or a half precision"),
        };
        let elements = shape
            .iter()
            .try_fold(1usize, |product, &length| product.checked_mul(length));
        ensure!(
            elements.and_then(|elements| elements.checked_mul(size)) == Some(bytes.len()),
            "{} bytes for {shape:?} of {stored:?}",
            bytes.len()
        );
        Ok(Data {
            stored,
            shape,
            pieces: vec![bytes],
        })
    }

    /// Zeros.
    pub fn zeros(shape: &[usize]) -> Data<'static> {
        let elements: usize = shape.iter().product();
        Data {
            stored: Dtype::F32,
            shape: shape.to_vec(),
            pieces: vec![Cow::Owned(vec![0; 4 * elements])],
        }
    }

    /// One number.
    pub fn scalar(value: f32) -> Data<'static> {
        Data {
            stored: Dtype::F32,
            shape: Vec::new(),
            pieces: vec![Cow::Owned(value.to_le_bytes().to_vec())],
        }
    }

    /// Lengths, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Part number `part` of `parts` equal ones along the outermost dimension.
    pub fn part(&self, part: usize, parts: usize) -> Data<'_> {
        let bytes = match &self.pieces[..] {
            [piece] => piece,
            _ => unreachable!("what was joined is not split again"),
        };
        let length = bytes.len() / parts;
        let mut shape = self.shape.clone();
        shape[0] /= parts;
        Data {
            stored: self.stored,
            shape,
            pieces: vec![Cow::Borrowed(&bytes[part * length..(part + 1) * length])],
        }
    }

    /// The `parts`, of the same shape and type, one after the other along the outermost dimension.
    pub fn join(parts: Vec<Data<'a>>) -> Result<Data<'a>> {
        let first = parts.first().context("nothing to join")?;
        let (stored, mut shape) = (first.stored, first.shape.clone());
        let same = |part: &Data<'_>| part.stored == stored && part.shape == shape;
        ensure!(
            parts.iter().all(same) && !shape.is_empty(),
            "parts of different types or shapes"
        );
        shape[0] *= parts.len();
        Ok(Data {
            stored,
            shape,
            pieces: parts.into_iter().flat_map(|part| part.pieces).collect(),
        })
    }

    /// The numbers as float32, little-endian.
    pub fn to_bytes(&self) -> Cow<'_, [u8]> {
        let widen = |to_f32: fn([u8; 2]) -> f32| {
            let pairs = self.pieces.iter().flat_map(|piece| piece.chunks_exact(2));
            pairs
                .flat_map(|pair| to_f32([pair[0], pair[1]]).to_le_bytes())
                .collect()
        };
        match (self.stored, &self.pieces[..]) {
            (Dtype::F32, [piece]) => Cow::Borrowed(piece),
            (Dtype::F32, pieces) => Cow::Owned(pieces.concat()),
            (Dtype::F16, _) => Cow::Owned(widen(|bytes| f16::from_le_bytes(bytes).to_f32())),
            _ => Cow::Owned(widen(|bytes| bf16::from_le_bytes(bytes).to_f32())),
        }
    }
}

impl View for Data<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.to_bytes()
    }

    fn data_len(&self) -> usize {
        4 * self.shape.iter().product::<usize>()
    }
}
