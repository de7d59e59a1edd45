//! CLEVR's scenes: how many objects an image shows, and how far the closest one is.
//!
//! CLEVR_v1.0 has `images/SPLIT/CLEVR_SPLIT_000000.png` and, for all splits but `test`,
//! `scenes/CLEVR_SPLIT_scenes.json`: an object whose list `scenes` has for each image its `image_filename` and its
//! `objects`, each with `pixel_coords` [x, y, depth]. Two label columns come of them: `count`, and `distance`, the
//! least depth, which is missing where there are no objects. They are those of VTAB's tasks Clevr/Count and Clevr/Dist
//! (`clevr.py` of google-research/task_adaptation).
//!
//! A file of scenes has hundreds of megabytes on one line. It is read as a stream, a scene at a time; what is kept of a
//! scene is its name and two numbers.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::{Error, LabelFault, Labels};
use crate::Escaped;

/// The folder of the scenes, and how the names of its files begin and end.
const FOLDER: &str = "scenes";
const BEFORE: &str = "CLEVR_";
const AFTER: &str = "_scenes.json";
/// The label columns.
const COLUMNS: [&str; 2] = ["count", "distance"];

/// A scene, as far as it matters here.
#[derive(Deserialize)]
struct Scene {
    image_filename: String,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    /// Column, row and depth.
    pixel_coords: [f64; 3],
}

/// Values by the path of an image below the root.
type Rows = HashMap<String, Vec<String>>;

/// Reads the scenes below the folder `root`; no columns where it has none.
///
/// # Errors
/// If a file of scenes cannot be read, or is not made as CLEVR's are.
pub(super) fn labels(root: &Path) -> Result<Labels, Error> {
    let folder = root.join(FOLDER);
    let mut rows = Rows::new();
    let files = files(&folder)?;
    if files.is_empty() {
        return Ok(Labels::default());
    }
    for (split, path) in files {
        let file = File::open(&path).map_err(Error::io(&path, "open"))?;
        let folder = format!("images/{split}/");
        let mut reader =
            serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 18, file));
        let scenes = Scenes {
            folder: &folder,
            rows: &mut rows,
        };
        let read = scenes.deserialize(&mut reader).and_then(|()| reader.end());
        read.map_err(|fault| match fault.io_error_kind() {
            Some(kind) => Error::io(&path, "read")(kind.into()),
            None => Error::Labels {
                path: path.clone(),
                line: fault.line() as u64,
                fault: LabelFault::Scenes(fault.to_string()),
            },
        })?;
    }
    Ok(Labels::from_rows(COLUMNS.map(str::to_owned).into(), rows))
}

/// Returns the files of scenes in a folder with the splits that they are of, sorted.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // Neither CLEVR's, nor to be looked at any further.
        Err(_) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(folder, "list"))?;
        let name = entry.file_name();
        let split = name
            .to_str()
            .and_then(|name| name.strip_prefix(BEFORE)?.strip_suffix(AFTER));
        found.extend(split.map(|split| (split.to_owned(), entry.path())));
    }
    found.sort();
    Ok(found)
}

/// A file of scenes: an object one of whose keys is `scenes`.
struct Scenes<'a> {
    folder: &'a str,
    rows: &'a mut Rows,
}

impl<'de> DeserializeSeed<'de> for Scenes<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Scenes<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list of scenes")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut has_scenes = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "scenes" {
                has_scenes = true;
                map.next_value_seed(List {
                    folder: self.folder,
                    rows: self.rows,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        match has_scenes {
            true => Ok(()),
            false => Err(M::Error::missing_field("scenes")),
        }
    }
}

/// The list of scenes.
struct List<'a> {
    folder: &'a str,
    rows: &'a mut Rows,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of scenes")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        while let Some(scene) = list.next_element::<Scene>()? {
            let depths = scene.objects.iter().map(|object| object.pixel_coords[2]);
            let distance = depths.min_by(f64::total_cmp);
            // With a point, so that the column is of numbers with fractions even if all are whole.
            let distance = distance.map_or(String::new(), |depth| format!("{depth:?}"));
            let values = vec![scene.objects.len().to_string(), distance];
            let path = format!("{}{}", self.folder, scene.image_filename);
            if self.rows.insert(path, values).is_some() {
                let name = Escaped::new(&scene.image_filename).to_string();
                return Err(S::Error::custom(format_args!("a second scene of {name}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Label, LabelType};

    fn read(files: &[(&str, &str)]) -> Result<Labels, String> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(FOLDER)).unwrap();
        for (name, text) in files {
            std::fs::write(root.path().join(FOLDER).join(name), text).unwrap();
        }
        labels(root.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn scenes_give_the_number_of_objects_and_the_least_depth() {
        let train = r#"{"info": {"split": "train", "more": [1, {"a": []}]}, "scenes": [
            {"image_index": 0, "image_filename": "a.png", "directions": {"left": [0, 1, 2]}, "objects": [
                {"color": "red", "pixel_coords": [1, 2, 11.25]}, {"pixel_coords": [3.5, 4, 9]}]},
            {"image_filename": "b.png", "objects": []}]}"#;
        let val = r#"{"scenes": [{"image_filename": "a.png", "objects": [{"pixel_coords": [0, 0, 7.5]}]}]}"#;
        let labels = read(&[
            ("CLEVR_val_scenes.json", val),
            ("CLEVR_train_scenes.json", train),
            ("notes.txt", "{"),
        ])
        .unwrap();
        let kinds: Vec<_> = labels
            .columns()
            .into_iter()
            .map(|column| column.kind)
            .collect();
        assert_eq!(
            kinds,
            [LabelType::Utf8, LabelType::Int64, LabelType::Float64]
        );
        let of = |path: &str| labels.of(path)[1..].to_vec();
        let both = |count, distance| vec![Some(Label::Int(count)), Some(Label::Float(distance))];
        assert_eq!(of("images/train/a.png"), both(2, 9.0));
        assert_eq!(of("images/val/a.png"), both(1, 7.5));
        assert_eq!(of("images/train/b.png"), [Some(Label::Int(0)), None]);
        assert_eq!(of("images/test/a.png"), [None, None]);
    }

    #[test]
    fn faults_name_file_line_and_what_is_wrong() {
        let name = "CLEVR_train_scenes.json";
        let scene = r#"{"image_filename": "a.png", "objects": []}"#;
        for (text, fault) in [
            ("{\n\"scenes\": [\n", ":3: "),
            ("{}", "missing field `scenes`"),
            ("[]", "expected an object with a list of scenes"),
            ("{\"scenes\": 7}", "expected a list of scenes"),
            ("{\"scenes\": []} x", "trailing characters"),
            (
                "{\"scenes\": [{\"objects\": []}]}",
                "missing field `image_filename`",
            ),
            (
                "{\"scenes\": [{\"image_filename\": \"a\", \"objects\": [{\"pixel_coords\": [1, 2]}]}]}",
                "invalid length 2",
            ),
            (
                &format!("{{\"scenes\": [{scene}, {scene}]}}"),
                "a second scene of a.png",
            ),
        ] {
            let said = read(&[(name, text)]).unwrap_err();
            assert!(said.contains(fault) && said.contains(name), "{said}");
        }
        assert!(read(&[]).unwrap().columns().len() == 1);
    }
}
