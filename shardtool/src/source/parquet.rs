//! Parquet files of images, as Hugging Face's `datasets` writes them.
//!
//! Listing reads all columns but the images. Images are read in blocks of [`blocks::BLOCK`] rows: threads that read in
//! order decode each block once. At most [`blocks::CACHED`] bytes of blocks are kept, and [`blocks::CURSORS`] places in
//! files with one page of images each; a page is what the file's writer made it, as a rule 1 MiB to one row group.

mod blocks;
mod columns;
mod table;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::records::{self, Records, invalid};
use super::{Class, Contents, Error, Item, Options, Part, folder};
use blocks::Tables;
use columns::Columns;
use table::{Table, guarded};

/// Bytes of the columns beside the images that one source may have.
const MOST_TEXT: usize = 4 << 30;

/// Bytes of images in a page from which on reading in any order but the file's own is slow.
const LARGE: u64 = 8 << 20;

const IMAGES: [&str; 5] = ["image", "img", "jpg", "jpeg", "png"];
const LABELS: [&str; 5] = ["label", "fine_label", "labels", "class", "cls"];

/// Opens files, in the order of their names.
///
/// The images are the column that the files' `huggingface` metadata call so, else one with `bytes` in it, or of bytes
/// and called `image`, `img`, `jpg`, `jpeg`, `png` or `bytes`. Classes are its `ClassLabel`, or a column called
/// `label`, `fine_label`, `labels`, `class` or `cls`. Other columns of numbers and texts become labels.
///
/// # Errors
/// If a file cannot be read, is damaged, has no images, or other class names than another.
pub fn open(paths: &[PathBuf], options: &Options) -> Result<Part, Error> {
    let mut contents = Contents {
        name: records::name(paths),
        is_ordered: true,
        ..Contents::default()
    };
    let mut records = Records::default();
    let mut tables = Tables::default();
    let mut text = 0;
    for (container, (path, name)) in (0..).zip(records::sorted(paths)) {
        let file = File::open(&path).map_err(Error::io(&path, "open"))?;
        let meta = file.metadata().map_err(Error::io(&path, "open"))?;
        contents.newest = contents.newest.max(Some(folder::changed(&meta)));
        let table = guarded(|| Table::open(&path, file)).map_err(Error::damaged(&path))?;
        let (columns, names) = Columns::find(&table).map_err(|reason| Error::Unknown {
            path: path.clone(),
            reason,
        })?;
        if contents.classes.is_none() {
            contents.classes = names;
        } else if names.is_some() && names != contents.classes {
            return Err(Error::damaged(&path)(
                "its classes have other names than another file's",
            ));
        }
        let unread = columns.unread.iter();
        let unread = unread.map(|column| format!("column \"{column}\" is not read"));
        let further = columns.further.iter().map(|column| column.name.as_str());
        let no_classes = further
            .filter(|name| columns.label.is_none() && LABELS.contains(name))
            .map(|name| {
                format!("column \"{name}\" is of no whole numbers or names: no classes, but labels")
            });
        for remark in unread.chain(no_classes) {
            if !contents.remarks.contains(&remark) {
                contents.remarks.push(remark);
            }
        }
        let table = Table {
            image: columns.image,
            ..table
        };
        if container == 0 {
            // The first page stands for all.
            let page = guarded(|| table.first_page()).map_err(Error::damaged(&path))?;
            if page > LARGE {
                contents.remarks.push(format!(
                    "its pages have {} MB of images: any order but their own reads one for each image",
                    page >> 20
                ));
            }
        }
        let split = records::split(&path, options);
        let listed =
            guarded(|| table.list(&columns, &split, &name, container, &mut records, &mut text));
        listed.map_err(Error::damaged(&path))?;
        tables.all.push(table);
    }
    if options.classes.is_some() {
        contents.classes.clone_from(&options.classes);
    }
    (contents.items, contents.labels) = records.finish(super::first(paths))?;
    Ok(Part {
        contents,
        files: Box::new(tables),
    })
}

impl Table {
    /// Lists all rows.
    fn list(
        &self,
        columns: &Columns,
        split: &str,
        name: &str,
        container: u32,
        records: &mut Records,
        text: &mut usize,
    ) -> io::Result<()> {
        let file = Arc::new(File::open(&self.path)?);
        for group in 0..self.starts.len() - 1 {
            let mut read = |column: usize| -> io::Result<Vec<Option<String>>> {
                let values = self.read_text(&file, group, column)?;
                *text += values.iter().flatten().map(String::len).sum::<usize>();
                if *text > MOST_TEXT {
                    return Err(invalid(format!("more than {MOST_TEXT} bytes of labels")));
                }
                Ok(values)
            };
            let mut labels = columns
                .label
                .as_ref()
                .map(|label| read(label.at))
                .transpose()?
                .unwrap_or_default();
            let mut said = columns.said.map(&mut read).transpose()?.unwrap_or_default();
            let mut further = Vec::new();
            for column in &columns.further {
                further.push((&column.name, read(column.at)?));
            }
            let rows = self.starts[group + 1] - self.starts[group];
            let chunk = self.meta.row_group(group).column(self.image);
            let size = u64::try_from(chunk.uncompressed_size()).unwrap_or(0) / rows.max(1);
            let nulls = chunk
                .statistics()
                .and_then(|statistics| statistics.null_count_opt());
            let is_elsewhere = nulls.is_some_and(|nulls| nulls >= rows);
            for row in 0..rows {
                let at = row as usize;
                let position = self.starts[group] + row;
                let said = said.get_mut(at).and_then(Option::take);
                let mut fault = is_elsewhere.then(|| elsewhere(said.as_deref()));
                let label = labels.get_mut(at).and_then(Option::take);
                let is_number = columns.label.as_ref().is_some_and(|label| label.is_number);
                let class = match label {
                    Some(label) if is_number => {
                        let class = records::class(label.parse().unwrap_or(i64::MAX));
                        class.unwrap_or_else(|reason| {
                            fault = fault.take().or(Some(reason));
                            None
                        })
                    }
                    label => label.filter(|label| !label.is_empty()).map(Class::Name),
                };
                let item = Item {
                    split: split.to_owned(),
                    path: format!("{name}/{position}"),
                    class,
                    size,
                    fault,
                    container,
                    position,
                };
                let mut cells = Vec::new();
                for (name, values) in &mut further {
                    if let Some(value) = values.get_mut(at).and_then(Option::take) {
                        cells.push(((*name).clone(), value));
                    }
                }
                records.add(item, said, cells);
            }
        }
        Ok(())
    }
}

/// Says that a row has no bytes.
fn elsewhere(path: Option<&str>) -> String {
    match path {
        Some(path) => format!("no bytes in the row: the image lies elsewhere, in {path}"),
        None => "no bytes in the row".to_owned(),
    }
}

#[cfg(test)]
mod tests;
