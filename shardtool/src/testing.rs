//! What several modules' tests need: JPEG files of every kind, and real photographs where there are any.

use std::path::{Path, PathBuf};

/// Returns the JPEG files under `tests/fixtures/jpeg`, by name without ending, in order. `make.py` there says what each
/// one is.
pub fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg");
    let files = std::fs::read_dir(folder).expect("the fixtures");
    let paths = files.map(|file| file.expect("a fixture").path());
    let mut jpegs: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "jpg"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            (name.into_owned(), std::fs::read(&path).expect("a fixture"))
        })
        .collect();
    jpegs.sort();
    jpegs
}

/// Returns one of the [`fixtures`].
pub fn fixture(name: &str) -> Vec<u8> {
    let found = fixtures().into_iter().find(|(have, _)| have == name);
    found.unwrap_or_else(|| panic!("no fixture {name}")).1
}

/// Returns a path of what may lie beside the checkout, or under the folder `IJEPA_SHARED` names; none, loudly, where it
/// is absent.
pub fn shared(name: &str) -> Option<PathBuf> {
    let base = std::env::var_os("IJEPA_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = base.join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is absent, so it is not tried", path.display());
        return None;
    }
    Some(path)
}

/// Returns every `step`th of the photographs that may lie beside the checkout, or under the folder `IJEPA_SHARED`
/// names, with their names; none, loudly, where they are absent.
pub fn photographs(step: usize) -> Vec<(String, Vec<u8>)> {
    let Some(path) = shared("data/imagenet700.tar") else {
        return Vec::new();
    };
    let tar = std::fs::read(path).expect("a tar file");
    let mut photographs = Vec::new();
    let mut at = 0;
    // A tar file is a row of 512-byte headers, each with its file behind it, filled up to 512 bytes.
    while let Some(header) = tar.get(at..at + 512).filter(|header| header[0] != 0) {
        let text = |range: std::ops::Range<usize>| {
            let field = String::from_utf8_lossy(&header[range]);
            field.trim_matches(['\0', ' ']).to_owned()
        };
        let name = text(0..100);
        let length = usize::from_str_radix(&text(124..136), 8).expect("a tar header");
        if name.ends_with(".JPEG") {
            photographs.push((name, at + 512..at + 512 + length));
        }
        at += 512 + length.next_multiple_of(512);
    }
    photographs
        .into_iter()
        .step_by(step)
        .map(|(name, range)| (name, tar[range].to_vec()))
        .collect()
}
