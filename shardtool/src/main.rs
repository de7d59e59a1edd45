//! The `shardtool` program.

fn main() {}
