//! Many processes that train one model together. So far there is one.

mod world;

pub use world::{First, World};
