//! From decoded samples to the model's input: antialiased bilinear resize of a crop, laid out as three planes in place.
//!
//! [`PlanarResizer`] takes planes, each on its own grid, filters them first and converts the colour of what is left; packed
//! RGB goes the same way. It filters as Pillow's `BILINEAR`, which widens when shrinking, and never sees a pixel outside
//! the crop. What it is measured against, a library's filter, is in `packed` (feature `compare`).

#[cfg(any(test, feature = "compare"))]
pub mod packed;
pub mod planar;
#[cfg(test)]
mod testing;

#[cfg(any(test, feature = "compare"))]
pub use packed::Resizer;
pub use planar::PlanarResizer;
