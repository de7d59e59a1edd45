//! `labels.csv`: further labels of the images; `shardtool/README.md` describes it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use super::{Error, SourceFile};
use crate::Escaped;
use crate::dataset::LabelColumn;
use crate::format::{Label, LabelType, MAX_LABELS, PATH_COLUMN};

/// What the first column may be called; Hugging Face's `metadata.csv` has the second.
pub(super) const PATH_COLUMNS: [&str; 2] = [PATH_COLUMN, "file_name"];

/// The label columns of a part of a source and their values by path.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    names: Vec<String>,
    /// For each path the fields of its line, without the path.
    rows: HashMap<String, Vec<String>>,
    /// What tells these labels from others: the bytes they were read from.
    pub(super) identity: Vec<u8>,
}

/// What is wrong with a line of a labels file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelFault {
    /// The line is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// The header does not begin with the column of paths.
    #[error(
        "the first column must be {PATH_COLUMN:?}, and columns separated by commas, semicolons or tabs"
    )]
    NoPathColumn,
    /// A column's name is empty, too long, or used twice.
    #[error("column \"{}\" is not a distinct name of 1 to 255 bytes", Escaped::new(.0))]
    ColumnName(String),
    /// There are more columns than a shard can hold.
    #[error("more than {MAX_LABELS} columns")]
    TooManyColumns,
    /// A quote is not closed, or text follows a closed one.
    #[error("a quote is not closed, or text follows a closed one")]
    Quotes,
    /// A line has not as many fields as the header.
    #[error("{got} fields, the header has {expected}")]
    FieldCount {
        /// Number of fields in the header.
        expected: usize,
        /// Number of fields in this line.
        got: usize,
    },
    /// A line of a list is not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// CLEVR's scenes are not made as they should be.
    #[error("not CLEVR's scenes: {0}")]
    Scenes(String),
    /// A list has no column of paths.
    #[error("no column is called {PATH_COLUMN:?}")]
    NoPaths,
    /// A line of a list has no path.
    #[error("no path")]
    NoPath,
    /// The name of a split cannot be that of a folder.
    #[error("\"{}\" cannot name a split", Escaped::new(.0))]
    Split(String),
    /// A path has two lines.
    #[error("a second line for \"{}\"", Escaped::new(.0))]
    SecondLine(String),
}

/// A fault and its line number, from 1.
pub(super) type Located = (u64, LabelFault);

impl Labels {
    /// Reads a file; a missing one gives no columns.
    ///
    /// # Errors
    /// If the file cannot be read, or with the first faulty line.
    pub fn read(path: &Path) -> Result<Labels, Error> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Default::default());
            }
            Err(error) => return Err(Error::io(path, "read")(error)),
        };
        Labels::of_folder(path, &bytes, "")
    }

    /// Tells if there are neither columns nor lines.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.rows.is_empty()
    }

    /// Makes labels of the bytes of a file, whose paths are those below `folder`: empty, or with a slash at the end.
    pub(super) fn of_folder(path: &Path, bytes: &[u8], folder: &str) -> Result<Labels, Error> {
        let mut labels = Labels::parse(bytes).map_err(|(line, fault)| Error::Labels {
            path: path.to_owned(),
            line,
            fault,
        })?;
        if !folder.is_empty() {
            let rows = labels.rows.into_iter();
            labels.rows = rows
                .map(|(path, row)| (format!("{folder}{path}"), row))
                .collect();
        }
        labels.identity = bytes.to_owned();
        Ok(labels)
    }

    /// Makes labels of rows that were read elsewhere: for each path as many fields as there are names.
    pub(super) fn from_rows(names: Vec<String>, rows: HashMap<String, Vec<String>>) -> Labels {
        let mut sorted: Vec<_> = rows.iter().collect();
        sorted.sort();
        let identity = format!("{names:?}{sorted:?}").into_bytes();
        Labels {
            names,
            rows,
            identity,
        }
    }

    /// Adds the labels of another part of the source. An error says why they do not go together.
    pub(super) fn join(&mut self, other: Labels) -> Result<(), String> {
        if other.is_empty() {
            return Ok(());
        }
        if self.is_empty() {
            *self = other;
            return Ok(());
        }
        if self.names != other.names {
            return Err("parts of the source have different label columns".to_owned());
        }
        for (path, row) in other.rows {
            if self.rows.insert(path.clone(), row).is_some() {
                return Err(format!(
                    "two parts of the source have labels for \"{}\"",
                    Escaped::new(&path)
                ));
            }
        }
        self.identity.extend(other.identity);
        Ok(())
    }

    /// Reads the bytes of a file, wherever it lies. An error has a line number.
    pub(super) fn parse(bytes: &[u8]) -> Result<Labels, Located> {
        let mut lines = Lines::new(bytes)?;
        let mut record = StringRecord::new();
        let line = lines.next(&mut record)?.unwrap_or(1);
        let mut fields = record.iter();
        if !fields
            .next()
            .is_some_and(|first| PATH_COLUMNS.contains(&first))
        {
            return Err((line, LabelFault::NoPathColumn));
        }
        let names: Vec<String> = fields.map(str::to_owned).collect();
        let mut seen = HashSet::from([PATH_COLUMN]);
        for name in &names {
            if !(1..=255).contains(&name.len()) || !seen.insert(name) {
                return Err((line, LabelFault::ColumnName(name.clone())));
            }
        }
        if seen.len() > MAX_LABELS as usize {
            return Err((line, LabelFault::TooManyColumns));
        }

        let mut rows = HashMap::new();
        while let Some(line) = lines.next(&mut record)? {
            let (expected, got) = (names.len() + 1, record.len());
            if got != expected {
                return Err((line, LabelFault::FieldCount { expected, got }));
            }
            let mut fields = record.iter().map(str::to_owned);
            let path = fields.next().expect("there is one field or more");
            let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
            if rows.contains_key(&path) {
                return Err((line, LabelFault::SecondLine(path)));
            }
            rows.insert(path, fields.collect::<Vec<_>>());
        }
        Ok(Labels {
            names,
            rows,
            identity: bytes.to_vec(),
        })
    }
}

/// What tests look at: labels as those of a source of one part, which live for ever.
#[cfg(test)]
impl Labels {
    fn alone(&self) -> &'static Joined {
        keep(Joined::new(vec![self.clone()]))
    }

    pub(super) fn columns(&self) -> Vec<LabelColumn> {
        self.alone().columns()
    }

    pub(super) fn of(&self, path: &str) -> Vec<Option<Label<'static>>> {
        self.alone().of(keep(SourceFile {
            path: path.to_owned(),
            class: None,
            size: 0,
            fault: None,
            part: 0,
            container: 0,
            position: 0,
        }))
    }

    pub(super) fn without_image(&self) -> Vec<String> {
        self.alone().without_image([].iter())
    }
}

/// Keeps a value for ever, within reach: what nothing reaches counts as a leak under AddressSanitizer.
#[cfg(test)]
fn keep<T: Sync>(value: T) -> &'static T {
    use std::{any::Any, sync::Mutex};
    static KEPT: Mutex<Vec<&'static (dyn Any + Sync)>> = Mutex::new(Vec::new());
    let value = Box::leak(Box::new(value));
    KEPT.lock().expect("no test panics here").push(value);
    value
}

/// The labels of all parts of a source: each part's rows are for its own images.
#[derive(Debug, Default)]
pub struct Joined {
    names: Vec<String>,
    kinds: Vec<LabelType>,
    parts: Vec<Labels>,
    /// For each part and column, which of the part's own it is.
    places: Vec<Vec<Option<usize>>>,
}

impl Joined {
    /// Joins the labels of parts, in their order. Columns of the same name become one.
    pub(super) fn new(parts: Vec<Labels>) -> Joined {
        let mut names: Vec<String> = Vec::new();
        for name in parts.iter().flat_map(|part| &part.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let place = |part: &Labels, name| part.names.iter().position(|known| known == name);
        let places = |part| names.iter().map(|name| place(part, name)).collect();
        let places: Vec<Vec<Option<usize>>> = parts.iter().map(places).collect();
        let kind = |column: usize| {
            kind_of(parts.iter().zip(&places).flat_map(move |(part, places)| {
                let rows = part.rows.values();
                rows.filter_map(move |row| Some(row[places[column]?].as_str()))
            }))
        };
        Joined {
            kinds: (0..names.len()).map(kind).collect(),
            names,
            parts,
            places,
        }
    }

    /// Returns the columns of the dataset: the path, then those of the parts.
    pub fn columns(&self) -> Vec<LabelColumn> {
        let path = (PATH_COLUMN.to_owned(), LabelType::Utf8);
        let others = self.names.iter().cloned().zip(self.kinds.iter().copied());
        std::iter::once(path)
            .chain(others)
            .map(|(name, kind)| LabelColumn { name, kind })
            .collect()
    }

    /// Returns the values of an image, in the order of [`Joined::columns`].
    pub fn of<'a>(&'a self, file: &'a SourceFile) -> Vec<Option<Label<'a>>> {
        let mut values = vec![Some(Label::Text(file.path.as_str()))];
        let part = file.part as usize;
        let row = self
            .parts
            .get(part)
            .and_then(|part| part.rows.get(&file.path));
        let value = |(column, kind): (usize, &LabelType)| {
            let cell = &row?[self.places[part][column]?];
            match kind {
                LabelType::Int64 => cell.parse().ok().map(Label::Int),
                LabelType::Float64 => cell.parse().ok().map(Label::Float),
                LabelType::Utf8 => (!cell.is_empty()).then_some(Label::Text(cell)),
            }
        };
        values.extend(self.kinds.iter().enumerate().map(value));
        values
    }

    /// Returns the sorted paths of lines for which there is no image.
    pub fn without_image<'a>(&self, files: impl Iterator<Item = &'a SourceFile>) -> Vec<String> {
        let files: HashSet<(u32, &str)> =
            files.map(|file| (file.part, file.path.as_str())).collect();
        let mut paths = Vec::new();
        for (number, part) in (0..).zip(&self.parts) {
            let rows = part.rows.keys();
            let missing = rows.filter(|path| !files.contains(&(number, path.as_str())));
            paths.extend(missing.cloned());
        }
        paths.sort();
        paths
    }

    /// Returns what tells these labels from others.
    pub(super) fn identity(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| &part.identity[..])
    }
}

/// Returns the narrowest type that gives back every value as it was written; empty ones are missing and fit any.
fn kind_of<'a>(values: impl Iterator<Item = &'a str> + Clone) -> LabelType {
    let all = |fits: fn(&str) -> bool| values.clone().all(|value| value.is_empty() || fits(value));
    if all(is_integer) {
        LabelType::Int64
    } else if all(is_number) {
        LabelType::Float64
    } else {
        LabelType::Utf8
    }
}

/// Tells if an `int64` column gives the text back: `00123` would lose its zeros, and the smallest one means "missing".
fn is_integer(text: &str) -> bool {
    text.parse()
        .is_ok_and(|value: i64| value != i64::MIN && value.to_string() == text)
}

/// Tells if a `float64` column holds the value: not `nan`, which means "missing", nor whole numbers of more digits.
fn is_number(text: &str) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let digits = text.trim_start_matches(['+', '-']);
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros =
        digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    let holds = |value: f64| !(value.is_nan() || is_whole && value.abs() >= EXACT);
    !has_zeros && text.parse().is_ok_and(holds)
}

/// The lines of a file, read by the `csv` crate and held to its rules of quoting, which the crate takes lightly.
pub(super) struct Lines<'a> {
    text: &'a str,
    separator: char,
    reader: csv::Reader<&'a [u8]>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Lines<'a>, Located> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            (1 + newlines(before), LabelFault::NotUtf8)
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let header = text
            .lines()
            .find(|line| !line.is_empty())
            .unwrap_or_default();
        // Spreadsheets of many countries write semicolons, and call the file CSV all the same.
        let separator = [',', ';', '\t']
            .into_iter()
            .find(|&separator| header.contains(separator))
            .unwrap_or(',');
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(separator as u8)
            .from_reader(text.as_bytes());
        Ok(Lines {
            text,
            separator,
            reader,
        })
    }

    /// Reads the next line that is not empty, and returns its number.
    pub(super) fn next(&mut self, record: &mut StringRecord) -> Result<Option<u64>, Located> {
        let start = self.reader.position().clone();
        let read = self.reader.read_record(record);
        let end = self.reader.position().byte() as usize;
        let raw = &self.text[start.byte() as usize..end];
        let text = raw.trim_start_matches(['\r', '\n']); // without the empty lines before it
        let line = start.line() + newlines(&raw.as_bytes()[..raw.len() - text.len()]);
        // Of a text that is UTF-8, with any number of fields, the crate refuses nothing.
        if !read.map_err(|_| (line, LabelFault::Quotes))? {
            return Ok(None);
        }
        if !is_quoted_well(record, text, self.separator) {
            return Err((line, LabelFault::Quotes));
        }
        Ok(Some(line))
    }
}

/// Tells if `text` is `record` with its fields in double quotes or not, and separators between them.
fn is_quoted_well(record: &StringRecord, text: &str, separator: char) -> bool {
    let mut rest = text;
    for (number, field) in record.iter().enumerate() {
        if number > 0 {
            let Some(behind) = rest.strip_prefix(separator) else {
                return false;
            };
            rest = behind;
        }
        let quoted = format!("\"{}\"", field.replace('"', "\"\""));
        let behind = rest.strip_prefix(&quoted);
        let Some(behind) = behind.or_else(|| rest.strip_prefix(field)) else {
            return false;
        };
        rest = behind;
    }
    rest.trim_end_matches(['\r', '\n']).is_empty()
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_take_the_narrowest_type() {
        let csv = "path,count,distance,note\na.jpg,3,1.5,near\n\"b,\"\"x\"\".jpg\",,2,\n";
        let labels = Labels::parse(csv.as_bytes()).unwrap();
        let kinds: Vec<_> = labels.columns().iter().map(|column| column.kind).collect();
        use LabelType::*;
        assert_eq!(kinds, [Utf8, Int64, Float64, Utf8]);
        let a = labels.of("a.jpg");
        assert_eq!(a[1..3], [Some(Label::Int(3)), Some(Label::Float(1.5))]);
        assert_eq!(a[3], Some(Label::Text("near")));
        let b = labels.of("b,\"x\".jpg");
        assert_eq!(b[1..], [None, Some(Label::Float(2.0)), None]);
        assert_eq!(labels.of("c.jpg")[1..], [None, None, None]);
    }

    #[test]
    fn values_are_given_back_as_they_were_written() {
        use LabelType::*;
        let kind = |values: &[&str]| kind_of(values.iter().copied());
        assert_eq!(kind(&["3", "-4", ""]), Int64);
        assert_eq!(kind(&["00123", "7"]), Utf8);
        assert_eq!(kind(&["9223372036854775808", "1"]), Utf8);
        assert_eq!(kind(&["-9223372036854775808"]), Utf8);
        assert_eq!(kind(&["nan", "1.5"]), Utf8);
        assert_eq!(kind(&["inf", "1.5", "0.25", "-0"]), Float64);
        assert_eq!(kind(&["9007199254740993", "0.5"]), Utf8);
        let labels = Labels::parse(b"file_name;n\n./a/x.jpg;1,5\n").unwrap();
        assert_eq!(labels.of("a/x.jpg")[1], Some(Label::Text("1,5")));
    }

    #[test]
    fn faults_name_the_line() {
        let line = |csv: &[u8]| Labels::parse(csv).unwrap_err().0;
        assert_eq!(line(b""), 1);
        assert_eq!(line(b"file,count\n"), 1);
        assert_eq!(line(b"path,a,a\n"), 1);
        assert_eq!(line(b"path,path\n"), 1);
        assert_eq!(line(b"path,a\nx.jpg,1\ny.jpg\n"), 3);
        assert_eq!(line(b"path,a\nx.jpg,1\nx.jpg,2\n"), 3);
        assert_eq!(line(b"path,a\n\"x.jpg,1\n"), 2);
        assert_eq!(line(b"path,a\n\"x\"y,1\n"), 2);
        assert_eq!(line(b"path,a\n\xff,1\n"), 2);
        assert_eq!(line(b"path,a\r\nx.jpg,1\r\n\r\n\r\ny.jpg\r\n"), 5);
        assert_eq!(line(b"path,a\n\"x\n.jpg\",1\n\ny.jpg\n"), 5);
        assert_eq!(line(b"path,a\nx.jpg,1\ny.jpg,\"2"), 3);
    }

    #[test]
    fn lines_may_be_empty_and_fields_may_hold_newlines_quotes_and_commas() {
        let csv = "\u{feff}path,a\r\n\r\nx.jpg,\"1\n2\"\r\ny.jpg,a\"b\n\"z,.jpg\",\"\"";
        let labels = Labels::parse(csv.as_bytes()).unwrap();
        assert_eq!(labels.of("x.jpg")[1], Some(Label::Text("1\n2")));
        assert_eq!(labels.of("y.jpg")[1], Some(Label::Text("a\"b")));
        assert_eq!(labels.of("z,.jpg")[1], None);
        assert_eq!(labels.without_image(), ["x.jpg", "y.jpg", "z,.jpg"]);
    }
}
