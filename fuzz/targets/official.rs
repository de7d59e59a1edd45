//! Official checkpoints: whole files, and pickles alone.

#![no_main]

use exchange::official::Archive;
use exchange::official::checkpoint::Checkpoint;
use exchange::official::pickle::Tree;
// For the coverage counters that its C code calls.
use fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A file ends with its directory, so the byte that says which it is comes first.
    let Some((&kind, bytes)) = bytes.split_first() else {
        return;
    };
    if kind == b'p' {
        let _ = Tree::read(bytes, 0);
        return;
    }
    // Without checksums, which a fuzzer cannot guess.
    if let Ok(archive) = Archive::read(bytes, false) {
        let _ = Checkpoint::read(&archive);
    }
});
