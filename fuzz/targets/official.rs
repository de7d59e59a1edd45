//! Weights from elsewhere: whole official files, pickles alone, and names and shapes alone.

#![no_main]

use std::path::Path;

use exchange::Networks;
use exchange::official::Archive;
use exchange::official::checkpoint::Checkpoint;
use exchange::official::pickle::Tree;
use exchange::parameters;
use exchange::weights::{self, Data};
// For the coverage counters that its C code calls.
use fuzz as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A file ends with its directory, so the byte that says which it is comes first.
    let Some((&kind, bytes)) = bytes.split_first() else {
        return;
    };
    let path = Path::new("x");
    match kind {
        b'p' => drop(Tree::read(bytes, 0)),
        b'n' => {
            if let Ok(networks) = named(path, bytes) {
                fit(&networks);
            }
        }
        // Without checksums, which a fuzzer cannot guess.
        _ => {
            if let Ok(archive) = Archive::read(bytes, false) {
                let _ = Checkpoint::optimizer(&archive);
                if let Ok(read) = Checkpoint::read(path, &archive) {
                    fit(&read.networks);
                }
            }
        }
    }
});

/// Returns networks whose tensors are described by lines: a name, and after it lengths. They have no elements.
fn named(path: &Path, text: &[u8]) -> Result<Networks<'static>, exchange::Error> {
    let text = String::from_utf8_lossy(text);
    let tensors = text.lines().map(|line| {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let lengths = words.take(8).filter_map(|word| word.parse::<u32>().ok());
        (name, lengths.map(|length| length as usize).collect())
    });
    let tensors: Vec<(String, Vec<usize>)> = tensors.collect();
    Networks::gather(path, tensors, |_, shape| Ok(Data::zeros(&shape)))
}

/// Holds the networks against the list of parameters, as an import does. What fits has the sizes that it was found to.
fn fit(networks: &Networks<'_>) {
    let predictor = Some(&networks.predictor).filter(|predictor| !predictor.is_empty());
    for heads in [None, Some(3)] {
        let Ok(model) = weights::sizes(&networks.encoder, predictor, heads) else {
            continue;
        };
        let encoder = parameters::encoder(&model);
        if weights::check("encoder", &networks.encoder, &encoder).is_ok() {
            assert_eq!(encoder.len(), networks.encoder.len());
        }
        if let Some(predictor) = predictor {
            let _ = weights::check("predictor", predictor, &parameters::predictor(&model));
            parameters::optimizer_groups(&model);
        }
        assert!(!model.describe().is_empty() && model.patches() >= 1);
    }
}
