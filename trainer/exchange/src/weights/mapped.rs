//! Files mapped into memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};
use safetensors::tensor::{SafeTensors, TensorView};
use shardtool::regular;

use super::{Data, Tensors};
use crate::Error;

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// A file mapped into memory.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    path: PathBuf,
}

impl Mapped {
    /// Maps the file `path`, once all of it could be read: a page that cannot be is an error then, and no SIGBUS later.
    ///
    /// # Errors
    /// What the system says, or that it is no [regular] file.
    pub fn open(path: &Path) -> io::Result<Mapped> {
        let file = regular::open(path)?;
        // SAFETY: the map is read only. Another process that shortens the file meanwhile would end this one by SIGBUS;
        // nobody changes a finished checkpoint, and no way of reading 10 GB without copying them knows better.
        let map = unsafe { Mmap::map(&file) }?;
        match map.advise(Advice::PopulateRead) {
            // Linux before 5.14.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                io::copy(&mut BufReader::with_capacity(PIECE, &file), &mut io::sink())?;
            }
            populated => populated.map_err(|cause| {
                io::Error::other(format!("a page of it cannot be read ({cause})"))
            })?,
        }
        Ok(Mapped {
            map,
            path: path.to_owned(),
        })
    }

    /// Returns the content.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the tensors in the file, a safetensors file of floating-point numbers.
    ///
    /// # Errors
    /// [`Error::Safetensors`] if it is none, [`Error::Tensor`] if a tensor is of numbers that weights do not have.
    pub fn tensors(&self) -> Result<Tensors<'_>, Error> {
        let tensors = SafeTensors::deserialize(&self.map)
            .map_err(|cause| Error::safetensors(&self.path, cause))?;
        let mut found = BTreeMap::new();
        for (name, view) in tensors.tensors() {
            let data = self.tensor(&name, &view)?;
            found.insert(name, data);
        }
        Ok(found)
    }

    /// Returns the tensor that `view` shows in this file.
    pub(crate) fn tensor<'a>(&self, name: &str, view: &TensorView<'a>) -> Result<Data<'a>, Error> {
        let bytes = Cow::Borrowed(view.data());
        Data::new(view.dtype(), view.shape().to_vec(), bytes).map_err(|cause| Error::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            cause,
        })
    }
}
