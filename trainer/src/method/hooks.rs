//! Listening to the forward pass.
//!
//! The forward functions announce their named intermediate results to a [`Hooks`]. Training passes [`NoHooks`], which
//! costs nothing (names are formatted only by who wants them); `check-reference` passes a map and compares.
//!
//! Intermediate results are announced whole. Where nobody listens, rows that nothing later looks at are not computed: the
//! embedding of hidden patches, what the last blocks make of tokens that are not asked for. The other rows are the same
//! but for the rounding of differently grouped sums.

use std::collections::BTreeMap;
use std::fmt::Arguments;

use tch::Tensor;

/// Receives named intermediate results.
pub trait Hooks {
    /// Takes notice of `tensor`; a tensor kept for later is a handle, not a copy, and must not be written to.
    fn record(&mut self, name: Arguments<'_>, tensor: &Tensor);

    /// Whether anything is made of what is announced, so that it has to be whole.
    fn listening(&self) -> bool {
        true
    }
}

/// Ignores everything.
pub struct NoHooks;

impl Hooks for NoHooks {
    fn record(&mut self, _: Arguments<'_>, _: &Tensor) {}

    fn listening(&self) -> bool {
        false
    }
}

/// Keeps everything.
impl Hooks for BTreeMap<String, Tensor> {
    fn record(&mut self, name: Arguments<'_>, tensor: &Tensor) {
        self.insert(name.to_string(), tensor.detach());
    }
}

/// Announces under a prefix: `block0` of the context encoder as `context.block0`.
pub struct Prefixed<'a> {
    /// What stands before the dot.
    pub prefix: &'static str,
    /// Who listens.
    pub hooks: &'a mut dyn Hooks,
}

impl Hooks for Prefixed<'_> {
    fn record(&mut self, name: Arguments<'_>, tensor: &Tensor) {
        self.hooks
            .record(format_args!("{}.{name}", self.prefix), tensor);
    }

    fn listening(&self) -> bool {
        self.hooks.listening()
    }
}
