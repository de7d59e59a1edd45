//! The `dct` codec: JPEG's quantized coefficients, with its Huffman coding undone once, when a dataset is built.

pub mod coefficients;
pub mod idct;
pub mod render;
