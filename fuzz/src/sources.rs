//! Seeds of the targets `sources` and `convert`: small, and valid but for what is said.

use std::io::{Cursor, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{DynamicImage, ImageFormat};
use parquet::basic::Compression as Packing;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use tar::{Builder, EntryType, Header};
use zip9::write::SimpleFileOptions;
use zip9::{CompressionMethod, ZipWriter};

/// A seed's name and bytes.
pub type Seed = (&'static str, Vec<u8>);

/// What begins like an image, which is enough for a source.
const IMAGE: &[u8] = b"\xff\xd8\xff some image";

/// Returns the seeds of target `sources`: a kind, a layout, and the bytes that the kind is made of.
pub fn sources() -> Vec<Seed> {
    let classes = archive(&[
        ("cat/", b""),
        ("cat/a.jpg", IMAGE),
        ("cat/b", IMAGE),
        ("dog/c.jpg", IMAGE),
        ("dog/text", b"words"),
        ("labels.csv", b"path,n\ncat/a.jpg,7\ndog/c.jpg,8\n"),
        ("dog/s.jpg", b"->../cat/a.jpg"),
        ("dog/h.jpg", b"=>cat/b"),
    ]);
    let inner = archive(&[("n01440764_1.JPEG", IMAGE)]);
    let samples = archive(&[
        ("0.jpg", IMAGE),
        ("0.cls", b"3"),
        ("0.json", br#"{"a": 1, "b": "x", "c": [2], "d": null}"#),
        ("1.jpg", IMAGE),
        ("1.txt", b"words"),
        ("1.json", b"{}"),
    ]);
    let long = format!("train/{}/x.jpg", "long".repeat(30));
    let seed = |name, kind: &[u8], parts: &[&[u8]]| (name, [kind, &parts.concat()].concat());
    vec![
        seed("tar", b"t\0", &[&classes]),
        seed(
            "tar-nested",
            b"t\0",
            &[&archive(&[
                ("n01440764.tar", &inner),
                ("n01443537.tar", &inner),
            ])],
        ),
        seed("tar-flat", b"t\0", &[&inner]),
        seed(
            "tar-splits",
            b"t\x02",
            &[&archive(&[(&long, IMAGE), ("val/y.png", IMAGE)])],
        ),
        seed(
            "tar-annotations",
            b"t\0",
            &[&archive(&[
                ("train/a/images/x.JPEG", IMAGE),
                ("val/images/y.JPEG", IMAGE),
                ("val/val_annotations.txt", b"y.JPEG\ta\t0\n"),
            ])],
        ),
        seed("tar-gz", b"g\x01", &[&classes]),
        seed("webdataset", b"t\0", &[&samples]),
        seed("webdataset-gz", b"g\0", &[&samples]),
        seed("zip", b"f\0", &[&zip()]),
        seed("parquet", b"f\0", &[&table(Packing::UNCOMPRESSED)]),
        seed(
            "parquet-zstd",
            b"f\0",
            &[&table(Packing::ZSTD(Default::default()))],
        ),
        seed(
            "tfrecord",
            b"r\0",
            &[&record(&tfds(1, "a.jpg")), &record(&tfds(-1, "b.jpg"))],
        ),
        seed(
            "tfrecord-slim",
            b"r\0",
            &[&record(&slim(1, "n01440764")), &record(&slim(0, ""))],
        ),
        seed("mds", b"m\0\0", &[&mds(false)]),
        seed("mds-zstd", b"m\0\x01", &[&mds(true)]),
        seed(
            "list-csv",
            b"l\0",
            &[b"path,label,split,n\na/x.jpg,0,val,1\n./b/y.jpg,-1,,\"2\"\nz.jpg,1,train,3\n"],
        ),
        seed(
            "list-json",
            b"l\0",
            &[
                br#"{"path": "a/x.jpg", "class": "a", "n": 1}"#,
                b"\n",
                br#"{"path": "b/y.jpg", "split": "dev"}"#,
            ],
        ),
        seed(
            "labels",
            b"c\0",
            &[b"\xef\xbb\xbfpath;n;f;t\na/x.jpg;1;1.5;\"x;\"\"y\"\n./b/y.jpg;;;z\n"],
        ),
        seed("classes-list", b"v\0", &[b"n01440764\nn01443537\n"]),
        seed(
            "classes-kaggle",
            b"v\0",
            &[b"ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4 \n"],
        ),
        seed(
            "classes-script",
            b"v\0",
            &[b"mkdir -p n01440764\nmv ILSVRC2012_val_00000001.JPEG n01440764/\n"],
        ),
        seed("devkit", b"k\0", &[&kit(false)]),
        seed("devkit-zlib", b"k\0", &[&kit(true)]),
    ]
}

/// Makes a tar archive. `->` is a symbolic link, `=>` a hard one.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let link = [(EntryType::Symlink, &b"->"[..]), (EntryType::Link, b"=>")];
        let link = link
            .iter()
            .find_map(|(kind, mark)| Some((*kind, content.strip_prefix(*mark)?)));
        let written = if let Some((kind, target)) = link {
            header.set_entry_type(kind);
            archive.append_link(
                &mut header,
                path,
                std::str::from_utf8(target).expect("ASCII"),
            )
        } else {
            if path.ends_with('/') {
                header.set_entry_type(EntryType::Directory);
            }
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, *content)
        };
        written.expect("room in memory");
    }
    archive.into_inner().expect("room in memory")
}

fn zip() -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let members: [(&str, &[u8]); 6] = [
        ("set/train/cat/a.jpg", IMAGE),
        ("set/train/cat/b", IMAGE),
        ("set/train/dog/c.jpg", IMAGE),
        ("set/val/dog/d.jpg", IMAGE),
        ("set/val/text", b"words words words words words words"),
        ("labels.csv", b"path,n\nset/train/cat/a.jpg,7\n"),
    ];
    for (number, (name, content)) in members.iter().enumerate() {
        let method = [CompressionMethod::Stored, CompressionMethod::Deflated][number % 2];
        let options = SimpleFileOptions::default().compression_method(method);
        archive.start_file(*name, options).expect("room in memory");
        archive.write_all(content).expect("room in memory");
    }
    archive
        .add_directory("set/train/none", SimpleFileOptions::default())
        .expect("room in memory");
    archive.finish().expect("room in memory").into_inner()
}

/// Makes a table of two row groups, with texts and numbers beside the images, some of them missing.
fn table(packing: Packing) -> Vec<u8> {
    const SCHEMA: &str = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label; optional binary note (UTF8); }";
    const FEATURES: &str = r#"{"info": {"features": {"image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}"#;
    fn write<T: DataType>(
        group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
        values: &[T::T],
        levels: &[i16],
    ) {
        let column = group.next_column().expect("room in memory");
        let mut column = column.expect("one more column");
        column
            .typed::<T>()
            .write_batch(values, Some(levels), None)
            .expect("room in memory");
        column.close().expect("room in memory");
    }
    let properties = WriterProperties::builder()
        .set_compression(packing)
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "huggingface".to_owned(),
            FEATURES.to_owned(),
        )]))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA).expect("a good schema"));
    let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties));
    let mut writer = writer.expect("room in memory");
    for first in [0, 3] {
        let rows = [first, first + 1, first + 2];
        let texts =
            |text: &dyn Fn(i64) -> String| rows.map(|row| ByteArray::from(text(row).into_bytes()));
        let mut group = writer.next_row_group().expect("room in memory");
        let images = [IMAGE, IMAGE].map(|image| ByteArray::from(image.to_vec()));
        write::<ByteArrayType>(&mut group, &images, &[2, 2, 1]);
        write::<ByteArrayType>(&mut group, &texts(&|row| format!("{row}.jpg")), &[2, 2, 2]);
        write::<Int64Type>(&mut group, &rows.map(|row| row % 3 - 1), &[1, 1, 1]);
        write::<ByteArrayType>(
            &mut group,
            &texts(&|row| format!("note {}", row % 2)),
            &[1, 1, 1],
        );
        group.close().expect("room in memory");
    }
    writer.into_inner().expect("room in memory")
}

/// Puts a message's length before it, as the target takes it off.
fn record(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_le_bytes()[..], message].concat()
}

fn tfds(label: i64, name: &str) -> Vec<u8> {
    let features = [
        feature("image", 1, IMAGE),
        feature("label", 3, &varint(label as u64)),
        feature("file_name", 1, name.as_bytes()),
    ];
    field(1, &features.concat())
}

fn slim(label: u64, synset: &str) -> Vec<u8> {
    let features = [
        feature("image/class/label", 3, &varint(label)),
        feature("image/encoded", 1, IMAGE),
        feature("image/class/synset", 1, synset.as_bytes()),
    ];
    field(1, &features.concat())
}

fn feature(key: &str, kind: u64, value: &[u8]) -> Vec<u8> {
    let list = field(kind, &field(1, value));
    field(1, &[field(1, key.as_bytes()), field(2, &list)].concat())
}

/// Makes a field of a message of protocol buffers.
fn field(number: u64, value: &[u8]) -> Vec<u8> {
    [
        varint(number << 3 | 2),
        varint(value.len() as u64),
        value.to_vec(),
    ]
    .concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Makes the length of an index, the index, and the shard.
fn mds(is_packed: bool) -> Vec<u8> {
    let mut shard = 3_u32.to_le_bytes().to_vec();
    let samples = [(0_i64, "a.jpg"), (1, "b.jpg"), (-1, "c.jpg")].map(|(label, path)| {
        let sizes = [IMAGE.len(), path.len()].map(|size| (size as u32).to_le_bytes());
        [
            &sizes.concat()[..],
            IMAGE,
            &label.to_le_bytes(),
            path.as_bytes(),
        ]
        .concat()
    });
    let mut at = 4 + 4 * 4_u32;
    for length in samples.iter().map(Vec::len).chain([0]) {
        shard.extend(at.to_le_bytes());
        at += length as u32;
    }
    shard.extend(samples.concat());
    let bytes = shard.len();
    let (method, packed) = match is_packed {
        true => (
            r#""zstd:3""#,
            r#"{"basename": "x.mds.zstd", "bytes": 1, "hashes": {}}"#,
        ),
        false => ("null", "null"),
    };
    let index = format!(
        r#"{{"version": 2, "shards": [{{"format": "mds", "column_names": ["image", "label", "path"],
        "column_encodings": ["jpeg", "int", "str"], "column_sizes": [null, 8, null], "compression": {method},
        "raw_data": {{"basename": "x.mds", "bytes": {bytes}, "hashes": {{}}}}, "zip_data": {packed}, "samples": 3}}]}}"#
    );
    [
        &(index.len() as u16).to_le_bytes()[..],
        index.as_bytes(),
        &shard,
    ]
    .concat()
}

/// Makes ImageNet's development kit, whose table of classes is packed or not.
fn kit(is_packed: bool) -> Vec<u8> {
    let mut names = Vec::new();
    for name in ["ILSVRC2012_ID", "WNID", "words", "num_children"] {
        names.extend(name.as_bytes());
        names.resize(names.len().next_multiple_of(16), 0);
    }
    let mut content = [small(5, &16_u32.to_le_bytes()), element(1, &names)].concat();
    for (id, wnid, children) in [
        (2_u16, "n01440764", 0.0_f64),
        (1, "n01443537", 0.0),
        (3, "n01484850", 2.0),
    ] {
        let units: Vec<u8> = wnid.encode_utf16().flat_map(u16::to_le_bytes).collect();
        content.extend(array(6, [1, 1], b"", &small(4, &id.to_le_bytes())));
        content.extend(array(4, [1, 9], b"", &element(17, &units)));
        content.extend(array(4, [1, 2], b"", &small(16, b"hm")));
        content.extend(array(6, [1, 1], b"", &element(9, &children.to_le_bytes())));
    }
    let table = array(2, [3, 1], b"synsets", &content);
    let mut meta = vec![b' '; 124];
    meta.extend([0, 1, b'I', b'M']);
    meta.extend(array(6, [1, 1], b"other", &small(2, &[1])));
    if is_packed {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&table).expect("room in memory");
        let packed = encoder.finish().expect("room in memory");
        meta.extend(15_u32.to_le_bytes());
        meta.extend((packed.len() as u32).to_le_bytes());
        meta.extend(packed);
    } else {
        meta.extend(table);
    }
    archive(&[
        ("kit/data/ILSVRC2012_validation_ground_truth.txt", b"1\n2\n"),
        ("kit/data/meta.mat", &meta),
    ])
}

/// Makes an element of a MATLAB file.
fn element(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Makes an element of at most 4 bytes.
fn small(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = (kind | (content.len() as u32) << 16).to_le_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(8, 0);
    bytes
}

fn array(class: u8, sizes: [u32; 2], name: &[u8], content: &[u8]) -> Vec<u8> {
    let flags = element(6, &[class, 0, 0, 0, 0, 0, 0, 0]);
    let sizes = element(5, &sizes.map(u32::to_le_bytes).concat());
    element(14, &[&flags, &sizes, &element(1, name), content].concat())
}

/// Returns images of all kinds but JPEG.
pub fn images() -> Vec<Seed> {
    let colour = DynamicImage::ImageRgb8(image::RgbImage::from_fn(20, 12, |x, y| {
        image::Rgb([12 * x as u8, 20 * y as u8, (x * y) as u8])
    }));
    let encoded = |image: &DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("room in memory");
        bytes.into_inner()
    };
    let transparent = DynamicImage::ImageRgba8(colour.to_rgba8());
    let gray = DynamicImage::ImageLuma8(colour.to_luma8());
    let deep = DynamicImage::ImageLuma16(colour.to_luma16());
    let deep_colour = DynamicImage::ImageRgb16(colour.to_rgb16());
    let float = DynamicImage::ImageRgb32F(colour.to_rgb32f());
    let png = encoded(&colour, ImageFormat::Png);
    let cut = png[..png.len() - 12].to_vec();
    // A text behind the header, which has 8 + 25 bytes. Its checksum is wrong.
    let mut text = ZlibEncoder::new(b"zTXtkey\0\0".to_vec(), Compression::best());
    text.write_all(&[b'x'; 3000]).expect("room in memory");
    let text = text.finish().expect("room in memory");
    let length = (text.len() as u32 - 4).to_be_bytes();
    let with_text = [&png[..33], &length, &text, b"crc!", &png[33..]].concat();
    vec![
        ("png", png),
        ("png-cut", cut),
        ("png-text", with_text),
        ("png-rgba", encoded(&transparent, ImageFormat::Png)),
        ("png-gray", encoded(&gray, ImageFormat::Png)),
        ("png-gray16", encoded(&deep, ImageFormat::Png)),
        ("tiff", encoded(&colour, ImageFormat::Tiff)),
        ("tiff-gray16", encoded(&deep, ImageFormat::Tiff)),
        ("tiff-rgb16", encoded(&deep_colour, ImageFormat::Tiff)),
        ("tiff-float", encoded(&float, ImageFormat::Tiff)),
        ("gif", encoded(&transparent, ImageFormat::Gif)),
        ("webp", encoded(&colour, ImageFormat::WebP)),
        ("webp-rgba", encoded(&transparent, ImageFormat::WebP)),
        ("bmp", encoded(&colour, ImageFormat::Bmp)),
        ("pnm", encoded(&colour, ImageFormat::Pnm)),
        ("pnm-gray", encoded(&gray, ImageFormat::Pnm)),
        ("pnm-bits", b"P1\n4 2\n0 1 0 1\n1 0 1 0\n".to_vec()),
        ("pnm-text", b"P2\n# words\n3 1\n15\n0 7 15\n".to_vec()),
        ("text", b"words".to_vec()),
        ("heic", b"\0\0\0\x14ftypheic\0\0\0\0heic".to_vec()),
        ("svg", b"<svg/>".to_vec()),
        ("empty", Vec::new()),
    ]
}
