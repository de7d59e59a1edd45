//! What a build did: its report, its outcome, and how far it is.

use serde::{Deserialize, Serialize};

use crate::dataset::Manifest;
use crate::source::Note;

/// Name of the report in a dataset's directory.
pub const REPORT_FILE: &str = "report.json";

/// What a build left out or changed; `report.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number of samples written.
    pub kept: u64,
    /// Images that could not be kept: damaged, empty, unreadable or of an unknown type.
    pub rejected: Vec<Note>,
    /// Images that are stored otherwise than asked for: files that are not JPEG, or of a rare kind of it.
    pub stored_otherwise: Vec<Note>,
    /// JPEG files with faulty data that decoders read all the same, with libjpeg's words for the fault; they are kept.
    #[serde(default)]
    pub faulty: Vec<Note>,
    /// Files that were not taken for images.
    pub ignored: Vec<Note>,
    /// Paths in `labels.csv` at which there is no image.
    pub labels_without_image: Vec<String>,
}

/// What a build did.
#[derive(Debug)]
pub struct Outcome {
    /// The manifest of the dataset built or found.
    ///
    /// After a dry run it is that of the dataset that would be built, without shards.
    pub manifest: Manifest,
    /// What was left out.
    pub report: Report,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
    /// True if the dataset was there already, built from the same files with the same options.
    pub up_to_date: bool,
}

/// How far a build is; given to the progress callback after each file.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Files done.
    pub done: u64,
    /// Files in all.
    pub total: u64,
    /// Files rejected so far.
    pub rejected: u64,
}
