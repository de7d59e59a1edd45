//! From decoded samples to the model's input: antialiased bilinear resize of a crop, laid out as three planes in place.
//!
//! [`PlanarResizer`] takes planes, each on its own grid, filters them first and converts the colour of what is left;
//! [`Resizer`] takes packed RGB and leaves the work to a library. Both filter as Pillow's `BILINEAR`, which widens when
//! shrinking, and never see a pixel outside the crop.

pub mod packed;
pub mod planar;
#[cfg(test)]
mod testing;

pub use packed::Resizer;
pub use planar::PlanarResizer;
