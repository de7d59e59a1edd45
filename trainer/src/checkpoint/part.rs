//! One file of a checkpoint on its way to the disk: a stream, so that no second copy of the tensors is made.

use std::io::{self, Write};

/// The name of a file, without extension, and what fills it. It may be called more than once.
pub(super) type Part<'a> = (
    &'static str,
    Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>,
);
