use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;
use crate::format::Label;

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional int64 label; optional binary note (UTF8); }";

const FEATURES: &str = r#"{"info": {"features": {"image": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "note": {"dtype": "string", "_type": "Value"}}}}"#;

fn image(row: usize) -> Vec<u8> {
    vec![row as u8; 1 + row * 37 % 5000]
}

/// Writes a column; a value below the highest level is null.
fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: &[i16],
) {
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<T>()
        .write_batch(values, Some(levels), None)
        .unwrap();
    column.close().unwrap();
}

/// Writes a file of `rows` in row groups of `size`; the last row has no bytes, every third no class.
fn table(rows: usize, size: usize, compression: Compression, metadata: Option<&str>) -> Vec<u8> {
    let pair = metadata.map(|text| vec![KeyValue::new("huggingface".to_owned(), text.to_owned())]);
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_data_page_size_limit(20_000)
        .set_write_batch_size(8)
        .set_key_value_metadata(pair)
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let all: Vec<usize> = (0..rows).collect();
    for numbers in all.chunks(size) {
        let mut group = writer.next_row_group().unwrap();
        let texts = |text: &dyn Fn(usize) -> Vec<u8>| -> Vec<ByteArray> {
            numbers
                .iter()
                .map(|&row| ByteArray::from(text(row)))
                .collect()
        };
        let mut bytes = texts(&image);
        let mut levels = vec![2; numbers.len()];
        if numbers.contains(&(rows - 1)) {
            bytes.pop();
            levels[numbers.len() - 1] = 1;
        }
        write::<ByteArrayType>(&mut group, &bytes, &levels);
        let paths = texts(&|row| format!("{row}.jpg").into_bytes());
        write::<ByteArrayType>(&mut group, &paths, &vec![2; numbers.len()]);
        let labels: Vec<i64> = numbers.iter().map(|&row| row as i64 % 3 - 1).collect();
        write::<Int64Type>(&mut group, &labels, &vec![1; numbers.len()]);
        let notes = texts(&|row| format!("note {row}").into_bytes());
        write::<ByteArrayType>(&mut group, &notes, &vec![1; numbers.len()]);
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn opened(files: &[(&str, &[u8])]) -> Result<(tempfile::TempDir, Part), Error> {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, bytes) in files {
        paths.push(folder.path().join(name));
        std::fs::write(paths.last().unwrap(), bytes).unwrap();
    }
    let part = open(&paths, &Options::default())?;
    Ok((folder, part))
}

#[test]
fn rows_are_listed_and_read_in_any_order() {
    let zstd = Compression::ZSTD(Default::default());
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd] {
        let train = table(500, 200, compression, Some(FEATURES));
        let (_folder, part) = opened(&[("train-00000-of-00001.parquet", &train)]).unwrap();
        let items = &part.contents.items;
        assert_eq!(items.len(), 500);
        assert_eq!(
            (items[7].path.as_str(), items[7].split.as_str()),
            ("7.jpg", "train")
        );
        assert_eq!(
            (items[0].class.clone(), items[1].class.clone()),
            (None, Some(Class::Number(0)))
        );
        assert_eq!(part.contents.classes.as_ref().unwrap(), &["cat", "dog"]);
        assert_eq!(part.contents.labels.columns()[1].name, "note");
        let check = |row: usize| match part.files.read(&items[row].to_file()) {
            Ok(bytes) => assert_eq!(bytes, image(row), "{row}"),
            Err(error) => assert!(
                row == 499 && error.to_string().contains("no bytes"),
                "{row}: {error}"
            ),
        };
        (0..500).for_each(check);
        (0..500).for_each(|row| check(row * 211 % 500));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || (worker..500).step_by(4).for_each(check));
            }
        });
    }
}

#[test]
fn columns_are_found_without_metadata_and_paths_are_distinct() {
    let bytes = table(20, 20, Compression::SNAPPY, None);
    let (_folder, part) = opened(&[
        ("a-train.parquet", &bytes),
        ("b-validation.parquet", &bytes),
    ])
    .unwrap();
    let item = &part.contents.items[23];
    assert_eq!(
        (item.path.as_str(), item.split.as_str()),
        ("b-validation/3", "val")
    );
    assert_eq!(part.files.read(&item.to_file()).unwrap(), image(3));
    assert_eq!(part.contents.classes, None);
}

#[test]
fn unsigned_numbers_are_read_as_such() {
    let schema = "message schema { required binary image; required int32 a (UINT_32); required int64 b (UINT_64); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    write::<ByteArrayType>(&mut group, &[ByteArray::from("image")], &[0]);
    write::<Int32Type>(&mut group, &[-1], &[0]);
    write::<Int64Type>(&mut group, &[-2], &[0]);
    group.close().unwrap();
    let (_folder, part) = opened(&[("train", &writer.into_inner().unwrap())]).unwrap();
    let path = &part.contents.items[0].path;
    let labels = part.contents.labels.of(path);
    assert_eq!(labels[1], Some(Label::Int(4_294_967_295)));
    assert_eq!(labels[2], Some(Label::Text("18446744073709551614")));
}

#[test]
fn what_is_cut_short_is_refused() {
    let whole = table(20, 10, Compression::SNAPPY, Some(FEATURES));
    for length in 0..whole.len() {
        assert!(opened(&[("train", &whole[..length])]).is_err(), "{length}");
    }
}

#[test]
fn labels_that_are_no_classes_are_told() {
    let schema = "message schema { optional binary bytes; optional double label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    write::<ByteArrayType>(&mut group, &[ByteArray::from(image(1))], &[1]);
    write::<DoubleType>(&mut group, &[0.5], &[1]);
    group.close().unwrap();
    let (_folder, part) = opened(&[("train", &writer.into_inner().unwrap())]).unwrap();
    assert_eq!(part.contents.items[0].class, None);
    let remark = "column \"label\" is of no whole numbers or names: no classes, but labels";
    assert_eq!(part.contents.remarks, [remark]);
    let labels = part.contents.labels.columns();
    assert!(labels.iter().any(|column| column.name == "label"));
}

proptest! {
    #[test]
    fn changed_bytes_are_listed_or_refused(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        in_footer in any::<bool>(),
    ) {
        let mut bytes = table(20, 10, Compression::SNAPPY, Some(FEATURES));
        let length = bytes.len();
        for (at, value) in changes {
            let at = if in_footer { length - 1 - at % 900.min(length) } else { at % length };
            bytes[at] = value;
        }
        if let Ok((_folder, part)) = opened(&[("train", &bytes)]) {
            for item in &part.contents.items {
                let _ = part.files.read(&item.to_file());
            }
        }
    }
}
