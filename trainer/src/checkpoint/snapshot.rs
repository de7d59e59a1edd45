//! A copy of the training state in host memory, from which a checkpoint is written while training goes on.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use exchange::weights;
use safetensors::tensor::{Dtype, View};
use tch::{Device, Kind, Tensor};

use super::Parts;
use super::files::{Disk, Files, named};
use super::part::Part;
use crate::Error;

/// Tensors of its own, on the host. Made once for a run and filled again for each checkpoint: it doubles what the run
/// needs of host memory on a CPU, and needs as much as the networks and moments (16 bytes per trained parameter, 4 per
/// parameter of the target encoder) beside a GPU; libtorch rounds each page-locked tensor up to a power of two there.
#[derive(Debug)]
pub struct Snapshot {
    parts: Vec<(&'static str, Vec<Copied>)>,
}

#[derive(Debug)]
struct Copied {
    name: String,
    /// Contiguous, on the CPU, and no handle to it exists outside this struct.
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Snapshot {
    /// Copies `parts` into memory made for them.
    ///
    /// # Errors
    /// Too little memory, above all.
    pub fn of(parts: &Parts) -> Result<Snapshot, Error> {
        let copies = |tensors: &[(String, Tensor)]| {
            let copies = tensors.iter();
            let copies = copies.map(|(name, tensor)| Copied::room_for(name, tensor));
            copies.collect::<Result<Vec<_>, Error>>()
        };
        let parts_of_its_own = parts
            .iter()
            .map(|(part, tensors)| Ok((*part, copies(tensors)?)))
            .collect::<Result<_, Error>>()?;
        let mut snapshot = Snapshot {
            parts: parts_of_its_own,
        };
        snapshot.take(parts)?;
        Ok(snapshot)
    }

    /// Copies `parts`, whose names and types must be those it was made from. A tensor of another shape, as positions
    /// are when images change their size, gets memory of its own.
    ///
    /// # Errors
    /// Other tensors, or a device that fails.
    pub fn take(&mut self, parts: &Parts) -> Result<(), Error> {
        let mut from = parts.iter().flat_map(|(_, tensors)| tensors);
        tch::no_grad(|| {
            for copied in self.parts.iter_mut().flat_map(|(_, copies)| copies) {
                match from.next() {
                    Some((name, tensor))
                        if *name == copied.name && tensor.kind() == copied.tensor.kind() =>
                    {
                        if tensor.size() != copied.tensor.size() {
                            *copied = Copied::room_for(name, tensor)?;
                        }
                        copied.tensor.f_copy_(tensor)?;
                    }
                    _ => return Err(Error::UnknownTensor(copied.name.clone())),
                }
            }
            Ok(())
        })
    }

    /// Returns its parts, each with what fills its file.
    pub(super) fn parts(&self) -> Vec<Part<'_>> {
        let parts = self.parts.iter().map(|(part, tensors)| -> Part<'_> {
            let fill = move |out: &mut dyn Write| {
                let tensors = tensors.iter().map(|copied| (&copied.name[..], copied));
                weights::write(tensors.collect(), None, out)
            };
            (part, Box::new(fill))
        });
        parts.collect()
    }
}

/// Writes tensors of any device as a safetensors file at `path`.
///
/// # Errors
/// What the device or the file system says.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), super::Error> {
    let handles = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
    let snapshot = Snapshot::of(&vec![("", handles.collect())]).map_err(super::Error::Snapshot)?;
    let [(_, fill)] = &snapshot.parts()[..] else {
        unreachable!("made of one part");
    };
    named(path, Disk.write(path, &mut |out| fill(out)))
}

impl View for &Copied {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // A tensor without elements has no memory: its pointer is null.
        if self.data_len() == 0 {
            return Cow::Borrowed(&[]);
        }
        // SAFETY: a contiguous CPU tensor with elements owns `data_len` bytes at its data pointer, for as long as it
        // lives. Nothing writes to them meanwhile: `take` needs the snapshot mutably, and no other handle exists.
        Cow::Borrowed(unsafe {
            std::slice::from_raw_parts(self.tensor.data_ptr().cast::<u8>(), self.data_len())
        })
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

impl Copied {
    /// Takes host memory for a tensor like this one.
    fn room_for(name: &str, tensor: &Tensor) -> Result<Copied, Error> {
        let shape = tensor.size();
        Ok(Copied {
            name: name.to_owned(),
            tensor: room_for(tensor)?,
            dtype: dtype(tensor)?,
            shape: shape.into_iter().map(|length| length as usize).collect(),
        })
    }
}

/// Returns uninitialised host memory for a tensor like this one.
///
/// It is page-locked where the tensor comes from a GPU and the driver agrees: such a copy is several times as fast.
fn room_for(tensor: &Tensor) -> Result<Tensor, Error> {
    let room = Tensor::f_empty(tensor.size(), (tensor.f_kind()?, Device::Cpu))?;
    if tensor.device().is_cuda()
        && let Ok(locked) = room.f_pin_memory(tensor.device())
    {
        return Ok(locked);
    }
    Ok(room)
}

fn dtype(tensor: &Tensor) -> Result<Dtype, Error> {
    Ok(match tensor.f_kind()? {
        Kind::Float => Dtype::F32,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        other => {
            return Err(Error::torch(&format!(
                "tensors of kind {other:?} have no place in a checkpoint"
            )));
        }
    })
}
