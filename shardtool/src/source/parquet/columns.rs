//! Which columns of a file are images, classes, paths and labels.

use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use super::table::Table;
use super::{IMAGES, LABELS};
use crate::source::records;

/// What the columns of a file are.
pub struct Columns {
    pub image: usize,
    pub label: Option<Column>,
    /// The column of paths that belongs to the images.
    pub said: Option<usize>,
    pub further: Vec<Column>,
    pub unread: Vec<String>,
}

/// A column of scalars.
pub struct Column {
    pub name: String,
    pub at: usize,
    pub is_number: bool,
}

impl Columns {
    /// Finds the columns, and the names of classes. An error says what is missing.
    pub fn find(table: &Table) -> Result<(Columns, Option<Vec<String>>), String> {
        let features = Features::of(table);
        let leaf = |path: &[&str], of: &[Type]| {
            let mut columns = table.columns();
            let found = columns
                .find(|(_, column)| column.path().parts() == path && column.max_rep_level() == 0);
            found
                .filter(|(_, column)| of.contains(&column.physical_type()))
                .map(|(at, _)| at)
        };
        let is_bytes = [Type::BYTE_ARRAY];
        let mut groups: Vec<&str> = Vec::new();
        for (_, column) in table.columns() {
            if let [group, leaf] = column.path().parts()
                && leaf == "bytes"
                && column.max_rep_level() == 0
            {
                groups.push(group);
            }
        }
        let told = preferred(&IMAGES, features.images.iter().map(String::as_str));
        let name = told.or_else(|| preferred(&IMAGES, groups.iter().copied()));
        let of_group = name.and_then(|name| {
            leaf(&[name, "bytes"], &is_bytes).or_else(|| leaf(&[name], &is_bytes))
        });
        let plain = || {
            IMAGES
                .iter()
                .chain(&["bytes"])
                .find_map(|name| leaf(&[name], &is_bytes))
        };
        let image = of_group.or_else(plain).ok_or("no column of images in it")?;
        let said = name.and_then(|name| leaf(&[name, "path"], &is_bytes));

        let scalar = |at: usize, column: &ColumnDescriptor| {
            let name = match column.path().parts() {
                [name] if column.max_rep_level() == 0 => name.clone(),
                _ => return None,
            };
            let is_number = match column.physical_type() {
                Type::INT32 | Type::INT64 => true,
                Type::BOOLEAN | Type::FLOAT | Type::DOUBLE => false,
                Type::BYTE_ARRAY if is_text(column) => false,
                _ => return None,
            };
            Some(Column {
                name,
                at,
                is_number,
            })
        };
        let label_type = [Type::INT32, Type::INT64, Type::BYTE_ARRAY];
        let told = preferred(
            &LABELS,
            features.classes.iter().map(|(name, _)| name.as_str()),
        );
        let named = told.and_then(|name| leaf(&[name], &label_type));
        let called = || LABELS.iter().find_map(|name| leaf(&[name], &label_type));
        let label_at = named.or_else(called);
        let names = told.filter(|_| named.is_some()).and_then(|told| {
            let found = features.classes.iter().find(|(name, _)| name == told);
            found.and_then(|(_, names)| names.clone())
        });
        let mut columns = Columns {
            image,
            label: None,
            said,
            further: Vec::new(),
            unread: Vec::new(),
        };
        for (at, column) in table.columns() {
            match scalar(at, column) {
                _ if at == image || Some(at) == said => {}
                Some(column) if Some(at) == label_at => columns.label = Some(column),
                Some(column) if records::is_label(&column.name) => columns.further.push(column),
                _ => columns.unread.push(column.path().string()),
            }
        }
        Ok((columns, names))
    }
}

/// Returns the first of the known names that is there, else the first that is there.
fn preferred<'a>(
    known: &[&str],
    mut there: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let found = known
        .iter()
        .find_map(|known| there.clone().find(|name| name == known));
    found.or_else(|| there.next())
}

fn is_text(column: &ColumnDescriptor) -> bool {
    column.converted_type() == ConvertedType::UTF8
        || matches!(column.logical_type_ref(), Some(LogicalType::String))
}

/// What Hugging Face's metadata say of the columns.
#[derive(Default)]
struct Features {
    images: Vec<String>,
    /// Columns of classes, and their classes' names.
    classes: Vec<(String, Option<Vec<String>>)>,
}

impl Features {
    fn of(table: &Table) -> Features {
        let mut found = Features::default();
        let pairs = table.meta.file_metadata().key_value_metadata();
        let pair = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface"));
        let text = pair.and_then(|pair| pair.value.as_deref());
        let value: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
        let features = value
            .as_ref()
            .and_then(|value| value["info"]["features"].as_object());
        for (name, feature) in features.into_iter().flatten() {
            match feature["_type"].as_str() {
                Some("Image") => found.images.push(name.clone()),
                Some("ClassLabel") => {
                    let names = feature["names"].as_array().map(|names| {
                        let text = |name: &Value| {
                            name.as_str()
                                .map_or_else(|| name.to_string(), str::to_owned)
                        };
                        names.iter().map(text).collect()
                    });
                    found.classes.push((name.clone(), names));
                }
                _ => {}
            }
        }
        found
    }
}
