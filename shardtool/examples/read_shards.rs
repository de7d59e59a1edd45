//! Reads a dataset: what is there, one crop, and what a caller can tell of an error.
//!
//! ```text
//! cargo run -p shardtool --example read_shards -- photos.shards
//! ```

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use shardtool::build::{self, Difference};
use shardtool::codec::{Decoder, Picture};
use shardtool::planes::{Area, Resolution};
use shardtool::source::{self, LabelFault};
use shardtool::{Corrupt, Dataset, Error, Escaped, Fault};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        let _ = writeln!(io::stderr(), "usage: read_shards DATASET");
        return ExitCode::from(2);
    };
    match read(Path::new(&path)) {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}: {}", advice(&error));
            ExitCode::FAILURE
        }
    }
}

/// Returns a line for each split, with what the middle of its first sample decodes to.
fn read(path: &Path) -> Result<String, Error> {
    let dataset = Dataset::open(path)?; // checks all but the payloads
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new()); // keep both for each thread
    let mut text = String::new();
    for split in dataset.splits() {
        text += &format!("{}: {} samples\n", split.name(), split.len());
        if split.is_empty() {
            continue;
        }
        let sample = split.sample(0);
        let payload = sample.read(&mut buffer)?; // and compares its checksum
        let entry = sample.entry();
        let (width, height) = (
            f64::from(entry.stored_width),
            f64::from(entry.stored_height),
        );
        let middle = Area {
            left: width / 4.0,
            top: height / 4.0,
            width: width / 2.0,
            height: height / 2.0,
        };
        // As fine as a square of 64 pixels needs it; `Resolution::Full` gives all there is.
        let resolution = Resolution::Fit {
            side: 64,
            margin: 1.0,
        };
        let name = Escaped::new(sample.name().unwrap_or("no path"));
        text += &match decoder.decode(&payload, middle, resolution)? {
            Picture::Rgb(view) => format!("  {name}: {}x{} RGB\n", view.width, view.height),
            Picture::Planes(planes) => {
                let luma = &planes.planes[0];
                let (columns, rows) = (luma.width, luma.height);
                format!("  {name}: {:?}, {columns:.1}x{rows:.1}\n", planes.colour)
            }
        };
    }
    Ok(text)
}

/// Tells what to do about a dataset that cannot be read.
fn advice(error: &Error) -> &'static str {
    match error {
        Error::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound => "is the path right?",
        Error::Io { .. } => "the system refused",
        Error::Shard { fault, .. } => match fault {
            Fault::Version { .. } => "of another version of this program",
            Fault::TooShort { .. } | Fault::FileSize { .. } => "the file was cut short",
            _ => "the shard is damaged",
        },
        Error::Unreadable { .. } => "one sample cannot be read",
        Error::Payload { .. } => "one sample is damaged",
        Error::Decode { cause, .. } => match cause {
            Corrupt::Panicked(_) => "one sample is damaged in an unusual way",
            _ => "one sample is damaged",
        },
        Error::Manifest { .. } | Error::Json { .. } => "dataset.json was edited",
        Error::Mismatch { .. } => "shards of two builds were mixed",
        _ => "build the dataset again",
    }
}

/// Tells what to do about a build that failed; unlike a reader, a program that builds meets these.
#[allow(dead_code)] // shows how such a match reads
fn advice_for_builder(error: &build::Error) -> &'static str {
    if error.is_disk_full() {
        return "free some space";
    }
    match error {
        build::Error::Busy(_) => "wait for the other build",
        build::Error::Exists { difference, .. } => match difference {
            Difference::Files => "the images have changed: replace the dataset",
            Difference::Options => "the options have changed: replace the dataset",
            _ => "the dataset is damaged: replace it",
        },
        build::Error::Source(source::Error::Labels { fault, .. }) => match fault {
            LabelFault::SecondLine(_) => "decide which line of labels.csv is right",
            _ => "mend labels.csv",
        },
        build::Error::Source(_) => "is the folder right?",
        build::Error::Dataset(error) => advice(error),
        _ => "look at the images",
    }
}
