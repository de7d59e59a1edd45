//! What a step sees, by the plan of the run.
//!
//! There is one plan so far, [`PretrainingSampler`]: every epoch shuffled, random crops, masks. A plan that shows every
//! sample once, in order and without masks, would stand beside it.

mod pretraining;

pub use pretraining::{PretrainingSampler, SAMPLING_VERSION};
