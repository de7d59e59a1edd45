//! What the promises in `tests/tests/` share: building image sets, spawning the programs, waiting with a bound.
