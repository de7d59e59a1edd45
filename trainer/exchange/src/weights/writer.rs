//! Writing safetensors files.

use std::collections::HashMap;
use std::io::{self, Write};

use safetensors::tensor::{Metadata, TensorInfo, View};

/// Writes tensors by name as a safetensors file: a stream, of one tensor after the other.
///
/// The library's own writer makes a temporary file that nobody else may read, and leaves the result so.
///
/// # Errors
/// What the output says.
pub fn write<V: View>(
    mut tensors: Vec<(&str, V)>,
    metadata: Option<HashMap<String, String>>,
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
    let metadata = Metadata::new(metadata, infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors
        .iter()
        .try_for_each(|(_, tensor)| out.write_all(&tensor.data()))
}
