//! The `dct` codec: JPEG's quantized coefficients, with its Huffman coding undone once, when a dataset is built.

pub mod coefficients;
pub mod decode;
pub mod detail;
#[cfg(feature = "build")]
pub mod encode;
pub mod idct;
#[cfg(feature = "build")]
pub mod pack;
pub mod payload;
pub mod render;
pub mod streams;
pub mod tables;
#[cfg(target_arch = "x86_64")]
mod transpose;

#[cfg(test)]
mod tests;
