//! Files mapped into memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};
use safetensors::tensor::{SafeTensors, TensorView};
use shardtool::{memory, regular};

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
    /// Maps the file `path`. If there is memory for all of it, it is read at once, so that a page that cannot be read
    /// is an error here, and no SIGBUS later.
    ///
    /// # Errors
    /// What the system says, or that it is no [regular] file.
    pub fn open(path: &Path) -> io::Result<Mapped> {
        let file = regular::open(path)?;
        // SAFETY: the map is read only. Another process that shortens the file meanwhile would end this one by SIGBUS;
        // nobody changes a finished checkpoint, and no way of reading 10 GB without copying them knows better.
        let map = unsafe { Mmap::map(&file) }?;
        // Hostile files may be terabytes of nothing.
        if memory::available().is_none_or(|there| map.len() as u64 <= there.bytes) {
            read_all(&file, &map)?;
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

/// Has the system read all pages of a mapped file.
fn read_all(file: &File, map: &Mmap) -> io::Result<()> {
    match map.advise(Advice::PopulateRead) {
        // Linux before 5.14.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            let mut file = BufReader::with_capacity(PIECE, file);
            io::copy(&mut file, &mut io::sink()).map(drop)
        }
        Err(cause) => {
            let reason = format!("a page of it cannot be read ({cause})");
            Err(io::Error::other(reason))
        }
        Ok(()) => Ok(()),
    }
}
