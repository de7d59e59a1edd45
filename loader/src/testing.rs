//! What several modules' tests need: configurations from text, a data set, reference data where present, statistics.

#[cfg(feature = "serve")]
mod dataset;
#[cfg(feature = "serve")]
mod fixture;

use std::path::{Path, PathBuf};

use crate::config::{ConfigFile, LoaderConfig};
use crate::error::Error;

#[cfg(feature = "serve")]
pub use dataset::SAMPLES;
#[cfg(feature = "serve")]
pub use fixture::{Copied, Fixture};

/// Returns a configuration of a `grid` × `grid` patch grid with 16-pixel patches and the official values, overrides
/// applied.
pub fn config(grid: u32, sets: &[&str]) -> Result<LoaderConfig, Error> {
    let text = format!(
        "data: {{batch_size: 64, crop_size: {}}}\nmask: {{patch_size: 16}}",
        grid * 16
    );
    parsed(&text, sets)
}

/// Returns the configuration of a file's text, overrides applied.
pub fn parsed(text: &str, sets: &[&str]) -> Result<LoaderConfig, Error> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    LoaderConfig::from_file(&ConfigFile::parse(Path::new("test.yaml"), text, &sets)?)
}

/// Returns a file of the reference data that may lie beside the checkout, or named by `IJEPA_SHARED`; loud where
/// absent.
pub fn reference(name: &str) -> Option<PathBuf> {
    let base = std::env::var_os("IJEPA_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = base.join("reference").join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: {} is absent, so nothing is compared with the reference",
        path.display()
    );
    None
}

/// Returns a reference file of JSON.
pub fn reference_json(name: &str) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(reference(name)?).expect("a readable reference file");
    Some(serde_json::from_str(&text).expect("reference JSON"))
}

/// Returns the two-sample chi-square of counts over the same cells, in deviations from what chance gives. Cells too
/// rare to judge are joined with their neighbours. Both samples must be equally large.
pub fn deviations_from_chance(one: &[u64], other: &[u64]) -> f64 {
    assert_eq!(one.iter().sum::<u64>(), other.iter().sum::<u64>());
    let (mut chi, mut cells) = (0.0, 0.0);
    let mut pending = (0.0, 0.0);
    for (&a, &b) in one.iter().zip(other) {
        pending = (pending.0 + a as f64, pending.1 + b as f64);
        if pending.0 + pending.1 >= 20.0 {
            chi += (pending.0 - pending.1).powi(2) / (pending.0 + pending.1);
            cells += 1.0;
            pending = (0.0, 0.0);
        }
    }
    let freedom = f64::max(cells - 1.0, 1.0);
    (chi - freedom) / (2.0 * freedom).sqrt()
}
