//! Label columns: named, typed values, one per sample.
//!
//! The reader keeps the columns as they stand in the decompressed index and looks values up there;
//! [`parse`] has checked every length and text boundary before the first look-up.

use super::MAX_LABELS;
use crate::Fault;

/// Type of a label column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum LabelType {
    /// Signed integers; the smallest one means "missing".
    Int64 = 1,
    /// Floating-point numbers; NaN means "missing".
    Float64 = 2,
    /// Text; the empty one means "missing".
    Utf8 = 3,
}

impl LabelType {
    fn from_id(id: u8) -> Option<LabelType> {
        match id {
            1 => Some(LabelType::Int64),
            2 => Some(LabelType::Float64),
            3 => Some(LabelType::Utf8),
            _ => None,
        }
    }
}

/// A value of a label column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label<'a> {
    /// From an `int64` column.
    Int(i64),
    /// From a `float64` column.
    Float(f64),
    /// From a `utf8` column.
    Text(&'a str),
}

impl std::fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Label::Int(value) => value.fmt(f),
            Label::Float(value) => value.fmt(f),
            Label::Text(value) => value.fmt(f),
        }
    }
}

/// A column as it lies in the label part of the decompressed index.
#[derive(Debug)]
pub(super) struct Column {
    pub name: String,
    pub kind: LabelType,
    /// Where the values begin among the label columns: 8-byte numbers, or the 4-byte ends of the texts.
    data: usize,
    /// Where the text of a `utf8` column begins.
    text: usize,
}

impl Column {
    /// Returns the value of a sample, none if missing. `labels` is the label part of the index.
    pub fn get<'a>(&self, labels: &'a [u8], sample: usize) -> Option<Label<'a>> {
        let number = |at: usize| u64::from_le_bytes(labels[at..at + 8].try_into().unwrap());
        match self.kind {
            LabelType::Int64 => {
                let value = number(self.data + 8 * sample) as i64;
                (value != i64::MIN).then_some(Label::Int(value))
            }
            LabelType::Float64 => {
                let value = f64::from_bits(number(self.data + 8 * sample));
                (!value.is_nan()).then_some(Label::Float(value))
            }
            LabelType::Utf8 => {
                let start = match sample {
                    0 => 0,
                    _ => u32_at(labels, self.data + 4 * (sample - 1)) as usize,
                };
                let end = u32_at(labels, self.data + 4 * sample) as usize;
                // `parse` has found UTF-8 here; checking a short text again is cheaper than unsafe.
                let text = std::str::from_utf8(&labels[self.text + start..self.text + end]).ok()?;
                (!text.is_empty()).then_some(Label::Text(text))
            }
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Reads and checks the `count` label columns that begin at byte `at` of the index and must end
/// exactly where it ends.
pub(super) fn parse(
    index: &[u8],
    mut at: usize,
    count: u32,
    samples: u32,
) -> Result<Vec<Column>, Fault> {
    debug_assert!(count <= MAX_LABELS);
    let start = at;
    let mut columns: Vec<Column> = Vec::with_capacity(count as usize);
    for column in 0..count {
        let need = |at: usize, length: usize| {
            let left = index.len() - at;
            if length <= left {
                return Ok(());
            }
            Err(Fault::LabelEnd {
                column,
                expected: length as u64,
                got: left as u64,
                offset: at as u64,
            })
        };
        need(at, 8)?;
        let kind = LabelType::from_id(index[at]).ok_or(Fault::LabelType {
            column,
            got: index[at],
            offset: at as u64,
        })?;
        let name_length = index[at + 1] as usize;
        let reserved = u16::from_le_bytes([index[at + 2], index[at + 3]]);
        if reserved != 0 {
            return Err(Fault::LabelReserved {
                column,
                got: reserved,
                offset: at as u64 + 2,
            });
        }
        let length = u32_at(index, at + 4) as usize;
        at += 8;

        need(at, name_length)?;
        let name = String::from_utf8_lossy(&index[at..at + name_length]).into_owned();
        let valid = std::str::from_utf8(&index[at..at + name_length]).is_ok();
        if !valid || name.is_empty() || columns.iter().any(|other| other.name == name) {
            return Err(Fault::LabelName {
                column,
                got: name,
                offset: at as u64,
            });
        }
        at += name_length;

        need(at, length)?;
        let text = check_data(index, at, length, kind, column, samples)?;
        columns.push(Column {
            name,
            kind,
            data: at - start,
            text: text - start,
        });
        at += length;
    }
    if at != index.len() {
        return Err(Fault::IndexEnd {
            expected: at as u64,
            got: index.len() as u64,
        });
    }
    Ok(columns)
}

/// Checks the data of one column and returns where its text begins (its end, if it has none).
fn check_data(
    index: &[u8],
    at: usize,
    length: usize,
    kind: LabelType,
    column: u32,
    samples: u32,
) -> Result<usize, Fault> {
    let wrong = |expected: u64| Fault::LabelLength {
        column,
        expected,
        got: length as u64,
        offset: at as u64,
    };
    let count = samples as usize;
    if kind != LabelType::Utf8 {
        return match length == 8 * count {
            true => Ok(at + length),
            false => Err(wrong(8 * count as u64)),
        };
    }
    let text_length = length
        .checked_sub(4 * count)
        .ok_or(wrong(4 * count as u64))?;
    let text_at = at + 4 * count;
    let text = std::str::from_utf8(&index[text_at..at + length]).map_err(|_| Fault::LabelUtf8 {
        column,
        offset: text_at as u64,
    })?;
    let mut min = 0;
    for sample in 0..samples {
        let end = u32_at(index, at + 4 * sample as usize);
        if end < min || !text.is_char_boundary(end as usize) {
            return Err(Fault::LabelText {
                column,
                sample,
                min,
                max: text_length as u32,
                got: end,
            });
        }
        min = end;
    }
    if min as usize != text_length {
        return Err(wrong(4 * count as u64 + u64::from(min)));
    }
    Ok(text_at)
}

/// A column being written.
#[derive(Debug)]
pub(super) struct NewColumn {
    name: String,
    kind: LabelType,
    values: Vec<u8>,
    text: Vec<u8>,
}

impl NewColumn {
    pub fn new(name: &str, kind: LabelType) -> NewColumn {
        NewColumn {
            name: name.to_owned(),
            kind,
            values: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Returns the bytes that this column takes in the index.
    pub fn length(&self) -> usize {
        8 + self.name.len() + self.values.len() + self.text.len()
    }

    /// Tells whether a value is of this column's type.
    pub fn accepts(&self, value: Label<'_>) -> bool {
        matches!(
            (self.kind, value),
            (LabelType::Int64, Label::Int(_))
                | (LabelType::Float64, Label::Float(_))
                | (LabelType::Utf8, Label::Text(_))
        )
    }

    /// Appends the value of the next sample, of a type that the column accepts; none is "missing".
    pub fn push(&mut self, value: Option<Label<'_>>) {
        match (self.kind, value) {
            (LabelType::Int64, value) => {
                let value = match value {
                    Some(Label::Int(value)) => value,
                    _ => i64::MIN,
                };
                self.values.extend_from_slice(&value.to_le_bytes());
            }
            (LabelType::Float64, value) => {
                // One bit pattern for "missing", so that equal inputs give equal bytes.
                let value = match value {
                    Some(Label::Float(value)) if !value.is_nan() => value.to_bits(),
                    _ => 0x7ff8_0000_0000_0000,
                };
                self.values.extend_from_slice(&value.to_le_bytes());
            }
            (LabelType::Utf8, value) => {
                if let Some(Label::Text(value)) = value {
                    self.text.extend_from_slice(value.as_bytes());
                }
                let end = self.text.len() as u32;
                self.values.extend_from_slice(&end.to_le_bytes());
            }
        }
    }

    /// Appends the finished column to the index.
    pub fn write(&self, index: &mut Vec<u8>) {
        let length = (self.values.len() + self.text.len()) as u32;
        index.extend_from_slice(&[self.kind as u8, self.name.len() as u8, 0, 0]);
        index.extend_from_slice(&length.to_le_bytes());
        index.extend_from_slice(self.name.as_bytes());
        index.extend_from_slice(&self.values);
        index.extend_from_slice(&self.text);
    }
}
