//! `labels.csv`: further labels of the images; `FORMAT.md` describes it.

use super::Error;
use super::source::SourceFile;
use crate::Error as DatasetError;
use crate::dataset::LabelColumn;
use crate::format::{Label, LabelType, MAX_LABELS, PATH_COLUMN};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The label columns of a source folder and their values by path.
#[derive(Debug, Default)]
pub struct Labels {
    names: Vec<String>,
    kinds: Vec<LabelType>,
    /// For each path the fields of its line, without the path.
    rows: HashMap<String, Vec<String>>,
}

impl Labels {
    /// Reads the file and returns its bytes too; a missing file gives no columns.
    pub fn read(path: &Path) -> Result<(Labels, Vec<u8>), Error> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Default::default());
            }
            Err(error) => return Err(DatasetError::io(path, "read")(error).into()),
        };
        let labels = Labels::parse(&bytes).map_err(|(line, reason)| Error::Labels {
            path: path.to_owned(),
            line,
            reason,
        })?;
        Ok((labels, bytes))
    }

    /// An error is a line number and a reason.
    fn parse(bytes: &[u8]) -> Result<Labels, (usize, String)> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            (line, "not UTF-8".to_owned())
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        let (_, header) = lines.next().unwrap_or((1, ""));
        let mut names = fields(header).map_err(|reason| (1, reason))?;
        if names.remove(0) != PATH_COLUMN {
            return Err((1, format!("the first column must be {PATH_COLUMN:?}")));
        }
        let mut seen = HashSet::from([PATH_COLUMN]);
        for name in &names {
            if !(1..=255).contains(&name.len()) || !seen.insert(name) {
                let reason = "is not a distinct name of 1 to 255 bytes";
                return Err((1, format!("column {name:?} {reason}")));
            }
        }
        if seen.len() > MAX_LABELS as usize {
            return Err((1, format!("more than {MAX_LABELS} columns")));
        }

        let mut rows = HashMap::new();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let mut row = fields(line).map_err(|reason| (number, reason))?;
            if row.len() != names.len() + 1 {
                let (got, expected) = (row.len(), names.len() + 1);
                return Err((number, format!("{got} fields, the header has {expected}")));
            }
            let path = row.remove(0);
            if rows.contains_key(&path) {
                return Err((number, format!("a second line for {path:?}")));
            }
            rows.insert(path, row);
        }
        let kinds = (0..names.len())
            .map(|i| kind_of(rows.values().map(|row| row[i].as_str())))
            .collect();
        Ok(Labels { names, kinds, rows })
    }

    /// The columns of the dataset: the path, then those of the file.
    pub fn columns(&self) -> Vec<LabelColumn> {
        let path = (PATH_COLUMN.to_owned(), LabelType::Utf8);
        let others = self.names.iter().cloned().zip(self.kinds.iter().copied());
        std::iter::once(path)
            .chain(others)
            .map(|(name, kind)| LabelColumn { name, kind })
            .collect()
    }

    /// The values of one image, in the order of [`Labels::columns`].
    pub fn of<'a>(&'a self, path: &'a str) -> Vec<Option<Label<'a>>> {
        let mut values = vec![Some(Label::Text(path))];
        match self.rows.get(path) {
            None => values.resize(self.names.len() + 1, None),
            Some(row) => {
                let cells = row.iter().zip(&self.kinds);
                values.extend(cells.map(|(cell, kind)| match kind {
                    LabelType::Int64 => cell.parse().ok().map(Label::Int),
                    LabelType::Float64 => cell.parse().ok().map(Label::Float),
                    LabelType::Utf8 => (!cell.is_empty()).then_some(Label::Text(cell)),
                }));
            }
        }
        values
    }

    /// Sorted paths of lines for which there is no image.
    pub fn without_image<'a>(&self, files: impl Iterator<Item = &'a SourceFile>) -> Vec<String> {
        let files: HashSet<&str> = files.map(|file| file.path.as_str()).collect();
        let paths = self
            .rows
            .keys()
            .filter(|path| !files.contains(path.as_str()));
        let mut paths: Vec<String> = paths.cloned().collect();
        paths.sort();
        paths
    }
}

/// The narrowest type that holds every value; empty ones are missing and fit any.
fn kind_of<'a>(values: impl Iterator<Item = &'a str> + Clone) -> LabelType {
    let all = |fits: fn(&str) -> bool| values.clone().all(|value| value.is_empty() || fits(value));
    if all(|value| value.parse::<i64>().is_ok()) {
        LabelType::Int64
    } else if all(|value| value.parse::<f64>().is_ok()) {
        LabelType::Float64
    } else {
        LabelType::Utf8
    }
}

/// Splits a line at its commas; a field may be enclosed in double quotes.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (text, tail) = quoted.split_once('"').ok_or("a quote is not closed")?;
                field.push_str(text);
                let Some(more) = tail.strip_prefix('"') else {
                    rest = tail;
                    break;
                };
                field.push('"');
                quoted = more;
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None if rest.is_empty() => return Ok(fields),
            None => return Err("text follows a closed quote".to_owned()),
        }
    }
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
    }
}
