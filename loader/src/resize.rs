//! From decoded samples to the model's input: antialiased bilinear resize of a crop, laid out as three planes in place.
//!
//! [`PlanarResizer`] takes planes, each on its own grid. It filters them first and then converts the colour of what is
//! left; packed RGB goes the same way. What it is measured against, a library's filter, is in `packed` (feature
//! `compare`).
//!
//! The specification, which the code follows and which also has what the `dct` codec does before:
#![doc = include_str!("../PIXELS.md")]

#[cfg(any(test, feature = "compare"))]
pub mod packed;
pub mod planar;
#[cfg(test)]
mod testing;

#[cfg(any(test, feature = "compare"))]
pub use packed::Resizer;
pub use planar::PlanarResizer;
