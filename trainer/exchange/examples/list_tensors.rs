//! Lists what an official checkpoint holds: each tensor's name and shape. Nothing in the file is executed.
//!
//! ```sh
//! cargo run --release -p exchange --example list_tensors -- jepa-ep300.pth.tar
//! ```

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use exchange::Error;
use exchange::official::{Archive, Cause, Checkpoint};
use exchange::weights::Mapped;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let _ = writeln!(io::stderr(), "the argument is a .pth.tar file");
        return ExitCode::from(2);
    };
    match list(&path) {
        Ok(lines) => {
            // A reader that has seen enough is no fault.
            let _ = io::stdout().write_all(lines.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}\n{}", advice(&error));
            ExitCode::from(2)
        }
    }
}

fn list(path: &Path) -> Result<String, Error> {
    let file = Mapped::open(path).map_err(|cause| Error::Io {
        path: path.to_owned(),
        cause,
    })?;
    let archive = Archive::read(file.bytes(), true);
    let archive = archive.map_err(|fault| Error::official(path, fault))?;
    let networks = Checkpoint::read(path, &archive)?.networks;
    let networks = [
        ("encoder", networks.encoder),
        ("predictor", networks.predictor),
        ("target_encoder", networks.target_encoder),
    ];
    let mut lines = String::new();
    for (network, tensors) in networks {
        for (name, tensor) in tensors {
            let name = format!("{network}.{name}");
            let name = shardtool::Escaped::new(&name);
            lines += &format!("{name} {:?}\n", tensor.shape());
        }
    }
    Ok(lines)
}

/// Returns what to do about an error.
fn advice(error: &Error) -> &'static str {
    match error {
        Error::Io { .. } => "is it there, and may it be read?",
        Error::Official { fault, .. } => match fault.cause {
            Cause::Code { .. } | Cause::UnsafeInstruction(_) => {
                "do not open it with torch.load: it would run code"
            }
            Cause::Foreign(_) => "it is a file of another kind, or the beginning of one",
            Cause::Checksum { .. } | Cause::Malformed(_) => "it is damaged: copy it again",
            _ => "it is not what the official code saves",
        },
        _ => "it is no official checkpoint",
    }
}
