//! I-JEPA pretraining on libtorch.
