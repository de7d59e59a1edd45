//! One file of a checkpoint on its way to the disk: a stream, so that no second copy of the tensors is made.

use std::io::{self, Write};

use safetensors::tensor::{Metadata, TensorInfo, View};

/// The name of a file, without extension, and what fills it. It may be called more than once.
pub(super) type Part<'a> = (
    &'static str,
    Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>,
);

/// Writes tensors by name as a safetensors file.
pub(super) fn write_views<V: View>(
    mut tensors: Vec<(&str, V)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    // The format's canonical order: widest type first, so that every tensor is aligned, then by name.
    tensors.sort_by(|(one, a), (other, b)| (b.dtype(), one).cmp(&(a.dtype(), other)));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = end;
        end += tensor.data_len();
        let info = TensorInfo {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            data_offsets: (start, end),
        };
        ((*name).to_owned(), info)
    });
    let metadata = Metadata::new(None, infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors
        .iter()
        .try_for_each(|(_, tensor)| out.write_all(&tensor.data()))
}
