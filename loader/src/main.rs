//! The `loader` program.

fn main() {}
