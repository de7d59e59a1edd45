//! A list of image files: CSV or one JSON object per line.
//!
//! Columns are `path` (or `file_name`), `label` (or `class`), `split`, and further labels. Paths are relative to the
//! list's own folder. Only the path must be there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde_json::{Map, Value};

use super::labels::{Lines, Located, PATH_COLUMNS};
use super::layout::split_name;
use super::{
    Class, Contents, Error, Files, Item, LabelFault, Labels, Note, Options, Part, SourceFile,
};
use super::{folder, records};
use crate::dataset::is_plain;
use crate::format::MAX_LABELS;

/// What the column of classes may be called.
const LABEL_COLUMNS: [&str; 2] = ["label", "class"];

/// Bytes that a list may have at most.
const MOST: u64 = 1 << 32;

/// Opens a list; `-` is standard input, whose paths are relative to the current folder.
///
/// A label is a number if all of them are; `-1` and an empty one are none.
///
/// # Errors
/// If the list cannot be read, or with its first faulty line. A missing image is the image's fault, not the list's.
pub fn open(path: &Path, options: &Options) -> Result<Part, Error> {
    let is_stdin = path == Path::new("-");
    let mut contents = Contents {
        name: records::name(&[path.to_owned()]),
        is_ordered: true,
        ..Contents::default()
    };
    let mut bytes = Vec::new();
    if is_stdin {
        contents.name = "list".to_owned();
        io::stdin().lock().take(MOST + 1).read_to_end(&mut bytes)
    } else {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        contents.newest = file.metadata().ok().as_ref().map(folder::changed);
        file.take(MOST + 1).read_to_end(&mut bytes)
    }
    .map_err(Error::io(path, "read"))?;
    if bytes.len() as u64 > MOST {
        return Err(Error::damaged(path)("a list of more than 4 GiB"));
    }
    let root = match path.parent() {
        Some(parent) if !is_stdin => parent.to_owned(),
        _ => PathBuf::new(),
    };
    let table = Table::parse(&bytes).and_then(|table| table.list(&root, options, &mut contents));
    table.map_err(|(line, fault)| Error::Labels {
        path: path.to_owned(),
        line,
        fault,
    })?;
    Ok(Part {
        contents,
        files: Box::new(Listed { root }),
    })
}

/// Reads the files that a list names.
struct Listed {
    root: PathBuf,
}

impl Files for Listed {
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        std::fs::read(self.root.join(&file.path))
    }

    fn head(&self, file: &SourceFile, length: usize) -> io::Result<Vec<u8>> {
        folder::head(&self.root.join(&file.path), length)
    }
}

/// The cells of a list.
struct Table {
    columns: Vec<String>,
    /// The number of a line, and as many cells as there are columns.
    rows: Vec<(u64, Vec<String>)>,
}

impl Table {
    fn parse(bytes: &[u8]) -> Result<Table, Located> {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if text.trim_ascii_start().starts_with(b"{") {
            Table::json(text)
        } else {
            Table::csv(bytes)
        }
    }

    fn csv(bytes: &[u8]) -> Result<Table, Located> {
        let mut lines = Lines::new(bytes)?;
        let mut record = StringRecord::new();
        let line = lines.next(&mut record)?.unwrap_or(1);
        let columns: Vec<String> = record.iter().map(str::to_owned).collect();
        check_columns(&columns).map_err(|fault| (line, fault))?;
        let mut rows = Vec::new();
        while let Some(line) = lines.next(&mut record)? {
            let (expected, got) = (columns.len(), record.len());
            if got != expected {
                return Err((line, LabelFault::FieldCount { expected, got }));
            }
            rows.push((line, record.iter().map(str::to_owned).collect()));
        }
        Ok(Table { columns, rows })
    }

    fn json(bytes: &[u8]) -> Result<Table, Located> {
        let mut columns = BTreeSet::new();
        let mut objects = Vec::new();
        for (line, text) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let object: Map<String, Value> = serde_json::from_slice(text)
                .map_err(|error| (line, LabelFault::Json(error.to_string())))?;
            for column in object.keys() {
                if columns.insert(column.clone()) && columns.len() > MAX_LABELS as usize {
                    return Err((line, LabelFault::TooManyColumns));
                }
            }
            objects.push((line, object));
        }
        let columns: Vec<String> = columns.into_iter().collect();
        check_columns(&columns).map_err(|fault| (1, fault))?;
        let cell = |value: Option<Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        let rows = objects.into_iter().map(|(line, mut object)| {
            let cells = columns.iter().map(|column| cell(object.remove(column)));
            (line, cells.collect())
        });
        Ok(Table {
            rows: rows.collect(),
            columns,
        })
    }

    /// Makes items of the rows.
    fn list(
        mut self,
        root: &Path,
        options: &Options,
        contents: &mut Contents,
    ) -> Result<(), Located> {
        let find = |names: &[&str]| {
            let mut found = names
                .iter()
                .map(|name| self.columns.iter().position(|column| column == name));
            found.find_map(|at| at)
        };
        let path_at = find(&PATH_COLUMNS).ok_or((1, LabelFault::NoPaths))?;
        let (label_at, split_at) = (find(&LABEL_COLUMNS), find(&["split"]));
        let is_further = |at: usize| ![Some(path_at), label_at, split_at].contains(&Some(at));
        let labels = self.rows.iter().filter_map(|(_, row)| row.get(label_at?));
        let are_numbers = are_numbers(labels.map(String::as_str), options.classes.as_deref());
        contents.classes.clone_from(&options.classes);

        let further: Vec<usize> = (0..self.columns.len())
            .filter(|&at| is_further(at))
            .collect();
        let mut columns = HashMap::new();
        let mut seen = HashSet::new();
        for (line, row) in &mut self.rows {
            let path = row[path_at]
                .strip_prefix("./")
                .unwrap_or(&row[path_at])
                .to_owned();
            if path.is_empty() || path.contains('\0') {
                return Err((*line, LabelFault::NoPath));
            }
            if !seen.insert(path.clone()) {
                return Err((*line, LabelFault::SecondLine(path)));
            }
            let said = split_at.map_or("", |at| &row[at]);
            let known = split_name(said).unwrap_or(if said.is_empty() { "train" } else { said });
            if !is_plain(known) {
                return Err((*line, LabelFault::Split(said.to_owned())));
            }
            let split = options.split.clone().unwrap_or_else(|| known.to_owned());
            let class = label_at.and_then(|at| class(&row[at], are_numbers));
            if options.excludes(&path) {
                contents.ignored.push(Note::new(path, "excluded"));
                continue;
            }
            let (size, fault) = match std::fs::metadata(root.join(&path)) {
                Err(error) => (0, Some(format!("cannot be read: {error}"))),
                Ok(meta) if !meta.is_file() => (0, Some("not a regular file".to_owned())),
                Ok(meta) => {
                    contents.newest = contents.newest.max(Some(folder::changed(&meta)));
                    (meta.len(), None)
                }
            };
            let cells = further.iter().map(|&at| std::mem::take(&mut row[at]));
            columns.insert(path.clone(), cells.collect());
            contents.items.push(Item {
                split,
                path,
                class,
                size,
                fault,
                container: 0,
                position: 0,
            });
        }
        if !further.is_empty() {
            let names = further
                .iter()
                .map(|&at| std::mem::take(&mut self.columns[at]));
            contents.labels = Labels::from_rows(names.collect(), columns);
        }
        Ok(())
    }
}

/// Checks the names of columns.
fn check_columns(columns: &[String]) -> Result<(), LabelFault> {
    let is_path = |column: &&String| PATH_COLUMNS.contains(&column.as_str());
    let mut paths = columns.iter().filter(is_path);
    paths.next().ok_or(LabelFault::NoPaths)?;
    if let Some(second) = paths.next() {
        return Err(LabelFault::ColumnName(second.clone()));
    }
    let mut seen = HashSet::new();
    for column in columns {
        if !(1..=255).contains(&column.len()) || !seen.insert(column) {
            return Err(LabelFault::ColumnName(column.clone()));
        }
    }
    if seen.len() > MAX_LABELS as usize {
        return Err(LabelFault::TooManyColumns);
    }
    Ok(())
}

/// Tells if labels are the numbers of classes: all are whole numbers, and not all are names of classes.
fn are_numbers<'a>(
    labels: impl Iterator<Item = &'a str> + Clone,
    names: Option<&[String]>,
) -> bool {
    let is_number = |label: &str| match label.parse::<u32>() {
        Ok(number) => number.to_string() == label,
        Err(_) => matches!(label, "" | "-1"),
    };
    let is_name = |label: &str| names.is_some_and(|names| names.iter().any(|name| name == label));
    labels.clone().all(is_number) && !(names.is_some() && labels.clone().all(is_name))
}

/// Returns the class that a label says.
fn class(label: &str, are_numbers: bool) -> Option<Class> {
    if are_numbers {
        label.parse().ok().map(Class::Number)
    } else {
        (!label.is_empty()).then(|| Class::Name(label.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(text: &[u8]) -> Result<Contents, Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        for name in ["a/x.jpg", "y.jpg"] {
            std::fs::write(folder.path().join(name), "0123").unwrap();
        }
        let list = folder.path().join("list.csv");
        std::fs::write(&list, text).unwrap();
        let part = open(&list, &Options::default())?;
        for item in &part.contents.items {
            assert_eq!(
                part.files.read(&item.to_file()).is_ok(),
                item.fault.is_none()
            );
        }
        Ok(part.contents)
    }

    #[test]
    fn csv_and_json_say_the_same() {
        let csv = "split,path,label,count\nvalidation,./a/x.jpg,3,7\n,y.jpg,,\ndev,z.jpg,-1,2\n";
        let json = concat!(
            "{\"path\": \"a/x.jpg\", \"split\": \"val\", \"label\": 3, \"count\": 7}\n\n",
            "{\"file_name\": \"y.jpg\"}\n",
        );
        let contents = listed(csv.as_bytes()).unwrap();
        let item = |at: usize| &contents.items[at];
        assert_eq!(
            (item(0).split.as_str(), item(0).path.as_str()),
            ("val", "a/x.jpg")
        );
        assert_eq!(
            (item(0).class.clone(), item(0).size),
            (Some(Class::Number(3)), 4)
        );
        assert_eq!(
            (item(1).split.as_str(), item(1).class.clone()),
            ("train", None)
        );
        assert!(
            item(2).class.is_none()
                && item(2)
                    .fault
                    .as_ref()
                    .unwrap()
                    .starts_with("cannot be read")
        );
        assert_eq!(contents.labels.columns()[1].name, "count");
        // Two names for one column are one too many; the second line's is not there.
        assert!(listed(json.as_bytes()).is_err());
        let json = json.replace("file_name", "path");
        let of_json = listed(json.as_bytes()).unwrap();
        assert_eq!(of_json.items[..], contents.items[..2]);
    }

    #[test]
    fn labels_are_names_unless_all_are_numbers() {
        let contents = listed(b"path;class\na/x.jpg;1\ny.jpg;02\n").unwrap();
        let names: Vec<_> = contents.items.into_iter().map(|item| item.class).collect();
        let name = |name: &str| Some(Class::Name(name.to_owned()));
        assert_eq!(names, [name("1"), name("02")]);
        assert!(!are_numbers(
            ["1", "2"].into_iter(),
            Some(&["2".to_owned(), "1".to_owned()])
        ));
        assert!(are_numbers(
            ["1", "2"].into_iter(),
            Some(&["cat".to_owned()])
        ));
    }

    #[test]
    fn faults_name_the_line() {
        let line = |text: &str| match listed(text.as_bytes()) {
            Err(Error::Labels { line, .. }) => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line(""), 1);
        assert_eq!(line("label\n1\n"), 1);
        assert_eq!(line("path,label\nx.jpg,1\ny.jpg\n"), 3);
        assert_eq!(line("path,label\nx.jpg,1\n./x.jpg,2\n"), 3);
        assert_eq!(line("path,split\nx.jpg,a/b\n"), 2);
        assert_eq!(line("{\"path\": \"x\"}\n\n{\"path\"\n"), 3);
        assert_eq!(line("{\"path\": \"x\"}\n{\"label\": 1}\n"), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_listed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = listed(&bytes);
            let _ = listed(&[b"{", &bytes[..]].concat());
            let _ = listed(&[b"path,label\n", &bytes[..]].concat());
        }
    }
}
