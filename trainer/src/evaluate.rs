//! What trained networks are worth: features of images, for probes and for users.

mod error;
mod features;

pub use error::Error;
pub use features::Features;
