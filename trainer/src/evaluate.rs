//! What trained networks are worth: features of images, and probes of them.
//!
//! | file | what it has |
//! |---|---|
//! | [`Features`] | a frozen encoder, and what it makes of images |
//! | [`Pass`] | the features of a whole split, from a loader |
//! | [`Table`] | features with their classes, on disk between two probes |
//! | [`knn`], [`linear`] | the votes of nearest neighbours, linear probes |
//! | [`lowshot`] | regressions on the features of a few labelled images |
//! | [`Column`] | a label column of the shards in the place of the class |
//! | [`hidden`] | what the predictor knows of hidden blocks, without labels |

mod column;
mod error;
mod features;
pub mod hidden;
pub mod knn;
pub mod linear;
pub mod lowshot;
mod pass;
mod ridge;
mod score;
mod table;

pub use column::Column;
pub use error::Error;
pub use features::{Features, Pooling};
pub use pass::{Pass, hello};
pub use score::Score;
pub use table::{Key, NotKept, Table};
