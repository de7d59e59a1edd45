//! Sampling, masks, the ring and the link between loader and trainer.
