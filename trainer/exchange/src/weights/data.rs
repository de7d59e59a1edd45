//! A tensor of a mapped file.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, View};

/// The reason why bytes are no tensor of weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The numbers are of a type that weights do not have.
    #[error("of {0:?}, expected float32 or a half precision")]
    Type(Dtype),
    /// There are more or fewer bytes than the shape needs.
    #[error("{found} bytes for {shape:?} of {stored:?}")]
    Length {
        /// Number of bytes.
        found: usize,
        /// Lengths of the tensor.
        shape: Vec<usize>,
        /// Type of its numbers.
        stored: Dtype,
    },
    /// Parts that should make one tensor do not fit together.
    #[error("parts of different types or shapes")]
    Parts,
}

/// A tensor of float32 numbers, row by row.
///
/// Numbers stored in half precision are widened, exactly, when they are read.
#[derive(Clone, Debug)]
pub struct Data<'a> {
    /// Type of the numbers in the file.
    stored: Dtype,
    shape: Vec<usize>,
    /// The tensor's bytes, one piece after the other; none for a tensor of zeros, which takes memory only when read.
    pieces: Vec<Cow<'a, [u8]>>,
}

impl<'a> Data<'a> {
    /// Makes a tensor of `shape` whose little-endian numbers of type `stored` are `bytes`.
    ///
    /// # Errors
    /// [`DataError::Type`] for other than floating-point numbers of at most 32 bits, [`DataError::Length`] for too many
    /// or too few bytes.
    pub fn new(
        stored: Dtype,
        shape: Vec<usize>,
        bytes: Cow<'a, [u8]>,
    ) -> Result<Data<'a>, DataError> {
        let size = match stored {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => return Err(DataError::Type(other)),
        };
        let elements = shape
            .iter()
            .try_fold(1usize, |product, &length| product.checked_mul(length));
        if elements.and_then(|elements| elements.checked_mul(size)) != Some(bytes.len()) {
            return Err(DataError::Length {
                found: bytes.len(),
                shape,
                stored,
            });
        }
        Ok(Data {
            stored,
            shape,
            pieces: vec![bytes],
        })
    }

    /// Makes a tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Data<'static> {
        Data {
            stored: Dtype::F32,
            shape: shape.to_vec(),
            pieces: Vec::new(),
        }
    }

    /// Makes a tensor of one number, without dimensions.
    pub fn scalar(value: f32) -> Data<'static> {
        Data {
            stored: Dtype::F32,
            shape: Vec::new(),
            pieces: vec![Cow::Owned(value.to_le_bytes().to_vec())],
        }
    }

    /// Returns the lengths, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns part number `part` of `parts` equal ones along the outermost dimension.
    ///
    /// # Panics
    /// If the tensor was made by [`join`](Data::join) or [`zeros`](Data::zeros).
    pub fn part(&self, part: usize, parts: usize) -> Data<'_> {
        let bytes = match &self.pieces[..] {
            [piece] => piece,
            _ => unreachable!("only what lies in one piece of a file is split"),
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

    /// Joins `parts`, of one shape and type, one after the other along the outermost dimension.
    ///
    /// # Errors
    /// [`DataError::Parts`] if their shapes or types differ.
    pub fn join(parts: Vec<Data<'a>>) -> Result<Data<'a>, DataError> {
        let first = parts.first().ok_or(DataError::Parts)?;
        let (stored, mut shape) = (first.stored, first.shape.clone());
        let same = |part: &Data<'_>| part.stored == stored && part.shape == shape;
        if shape.is_empty() || !parts.iter().all(same) {
            return Err(DataError::Parts);
        }
        shape[0] *= parts.len();
        Ok(Data {
            stored,
            shape,
            pieces: parts.into_iter().flat_map(|part| part.pieces).collect(),
        })
    }

    /// Returns the numbers as float32, little-endian.
    pub fn to_bytes(&self) -> Cow<'_, [u8]> {
        let widen = |to_f32: fn([u8; 2]) -> f32| {
            let pairs = self.pieces.iter().flat_map(|piece| piece.chunks_exact(2));
            pairs
                .flat_map(|pair| to_f32([pair[0], pair[1]]).to_le_bytes())
                .collect()
        };
        match (self.stored, &self.pieces[..]) {
            (Dtype::F32, []) => Cow::Owned(vec![0; self.data_len()]),
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
