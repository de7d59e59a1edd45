//! What a build did: its report, its outcome, and how far it is.

use serde::{Deserialize, Serialize};

use crate::dataset::Manifest;
use crate::source::Note;

/// Name of the report in a dataset's directory.
pub const REPORT_FILE: &str = "report.json";

/// What a build left out or changed; `report.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Identity of the listing that was built: 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listing: String,
    /// Number of samples written.
    pub kept: u64,
    /// Images that could not be kept: damaged, empty, unreadable or of an unknown type.
    pub rejected: Vec<Note>,
    /// Images that are stored otherwise than asked for: files that are not JPEG, or of a rare kind of it.
    pub stored_otherwise: Vec<Note>,
    /// JPEG files with faulty data that decoders read all the same, with libjpeg's words for the fault; they are kept.
    #[serde(default)]
    pub faulty: Vec<Note>,
    /// Images whose names say another kind than their content is; they are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misnamed: Vec<Note>,
    /// What may hold images and is not in the dataset all the same: what could not be looked at, what is not read, what
    /// stands where the layout has no place for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Note>,
    /// What is known to hold no image, or was excluded.
    pub ignored: Vec<Note>,
    /// Names of classes that have a number, but no image that could be kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes_without_image: Vec<String>,
    /// How the source was understood, where that may surprise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Paths in `labels.csv` at which there is no image.
    pub labels_without_image: Vec<String>,
}

impl Report {
    /// Adds what became of further files.
    pub fn absorb(&mut self, other: Report) {
        self.kept += other.kept;
        self.rejected.extend(other.rejected);
        self.stored_otherwise.extend(other.stored_otherwise);
        self.faulty.extend(other.faulty);
        self.misnamed.extend(other.misnamed);
        self.left_out.extend(other.left_out);
        self.ignored.extend(other.ignored);
        self.labels_without_image.extend(other.labels_without_image);
        self.classes_without_image
            .extend(other.classes_without_image);
        self.remarks.extend(other.remarks);
    }

    /// Tells if every image that was found is in the dataset, as it was.
    pub fn is_clean(&self) -> bool {
        self.rejected.is_empty()
            && self.left_out.is_empty()
            && self.faulty.is_empty()
            && self.classes_without_image.is_empty()
    }
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
    /// Number of shards that an unfinished build had left.
    pub resumed: u64,
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
