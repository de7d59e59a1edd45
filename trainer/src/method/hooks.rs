//! Hooks into the forward pass: its intermediate results, by name.
//!
//! The forward functions call a [`Hooks`] with each named intermediate result. Training passes [`NoHooks`], which costs
//! nothing: names are formatted only by who wants them. `check-reference` passes a map and compares.
//!
//! Hooks see whole results. Without hooks, rows that nothing later looks at are not computed: the embedding of hidden
//! patches, and what the last blocks make of tokens that are not asked for. The other rows are the same but for the
//! rounding of differently grouped sums.

use std::collections::BTreeMap;
use std::fmt::Arguments;

use tch::Tensor;

/// Receives named intermediate results.
pub trait Hooks {
    /// Takes notice of `tensor`. A tensor kept for later is a handle, not a copy, and must not be written to.
    fn record(&mut self, name: Arguments<'_>, tensor: &Tensor);

    /// Tells whether the hooks use what they are given, so that it has to be whole.
    fn listening(&self) -> bool {
        true
    }
}

/// Hooks that ignore everything.
pub struct NoHooks;

impl Hooks for NoHooks {
    fn record(&mut self, _: Arguments<'_>, _: &Tensor) {}

    fn listening(&self) -> bool {
        false
    }
}

/// Keeps everything, cut off from the graph of gradients.
impl Hooks for BTreeMap<String, Tensor> {
    fn record(&mut self, name: Arguments<'_>, tensor: &Tensor) {
        self.insert(name.to_string(), tensor.detach());
    }
}

/// Hooks that put a prefix before each name: `block0` of the context encoder becomes `context.block0`.
pub struct Prefixed<'a> {
    prefix: &'static str,
    hooks: &'a mut dyn Hooks,
}

impl<'a> Prefixed<'a> {
    /// Puts `prefix` and a dot before every name that `hooks` receive.
    pub fn new(prefix: &'static str, hooks: &'a mut dyn Hooks) -> Self {
        Self { prefix, hooks }
    }
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
