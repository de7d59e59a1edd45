//! What assemblers ask of workers.

use std::sync::Arc;

use super::assembly::Assembly;
use crate::ring::{ImagePart, MaskPart};

/// A piece of work: one part of a slot.
#[derive(Debug)]
pub(super) enum Job {
    /// Fill one image.
    Image {
        assembly: Arc<Assembly>,
        part: ImagePart,
        step: u64,
        position: u64,
    },
    /// Draw the masks.
    Masks {
        assembly: Arc<Assembly>,
        part: MaskPart,
        step: u64,
        group: u64,
    },
}
