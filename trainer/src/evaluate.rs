//! What trained networks are worth: features of images, and probes of them.
//!
//! | file | what it has |
//! |---|---|
//! | [`Features`] | a frozen encoder, and what it makes of images |
//! | [`Pass`] | the features of a whole split, from a loader |
//! | [`Table`] | features with their classes, on disk between two probes |
//! | [`knn`], [`linear`] | the votes of nearest neighbours, linear probes |
//! | [`attentive`] | probes that look at the patches through a learnt query |
//! | [`lowshot`] | regressions on the features of a few labelled images |
//! | [`FineTuned`] | an encoder that goes on learning with a few labelled images |
//! | [`learner`] | what learns from images as they come, and is asked about others |
//! | [`Column`] | a label column of the shards in the place of the class |
//! | [`hidden`] | what the predictor knows of hidden blocks, without labels |

pub mod attentive;
mod column;
mod error;
mod features;
mod fine_tuned;
pub mod hidden;
pub mod knn;
pub mod learner;
pub mod linear;
pub mod lowshot;
mod pass;
mod ridge;
mod score;
mod table;

pub use column::Column;
pub use error::Error;
pub use features::{Features, Pooling};
pub use fine_tuned::FineTuned;
pub use pass::{Pass, hello};
pub use score::Score;
pub use table::{Key, NotKept, Table};
