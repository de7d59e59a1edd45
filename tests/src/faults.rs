//! Programs on file systems with faults: calls fail as `tests/tools/faulty_fs.c` is told.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program;

/// The library that makes calls fail, built for this test.
pub struct Faults {
    _folder: tempfile::TempDir,
    library: PathBuf,
}

impl Faults {
    /// Builds the library. Without a C compiler there is none, which is said.
    pub fn build() -> Option<Faults> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let library = folder.path().join("faulty_fs.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/faulty_fs.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        let Ok(status) = built else {
            println!("SKIPPED: no C compiler `cc` to build {}", source.display());
            return None;
        };
        assert!(status.success(), "{} is not built", source.display());
        Some(Faults {
            _folder: folder,
            library,
        })
    }

    /// Returns a command that runs a program under `rules`, whose form stands in the library's source.
    pub fn command(&self, name: &str, arguments: &[String], rules: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command
            .args(arguments)
            .env("LD_PRELOAD", &self.library)
            .env("FAULTY_FS", rules.join(";"));
        command
    }
}
