use super::*;
use proptest::prelude::*;
use serde_json::json;

/// Writes a shard of images, classes (i64), and names.
fn shard(samples: &[(&[u8], i64, &str)]) -> Vec<u8> {
    let mut bodies = Vec::new();
    for (image, class, name) in samples {
        let sizes = [
            (image.len() as u32).to_le_bytes(),
            (name.len() as u32).to_le_bytes(),
        ]
        .concat();
        bodies.push([&sizes[..], &class.to_le_bytes(), image, name.as_bytes()].concat());
    }
    let config = b"{}";
    let mut at = 4 * (samples.len() + 2) + config.len();
    let mut bytes = (samples.len() as u32).to_le_bytes().to_vec();
    for body in &bodies {
        bytes.extend((at as u32).to_le_bytes());
        at += body.len();
    }
    bytes.extend((at as u32).to_le_bytes());
    bytes.extend(config);
    bytes.extend(bodies.concat());
    bytes
}

fn index(raw: &[u8], samples: usize, method: Option<&str>) -> String {
    let zip = method.map(|_| json!({"basename": "shard.00000.mds.zstd", "bytes": 1, "hashes": {}}));
    let index = json!({"version": 2, "shards": [{
        "column_encodings": ["int", "jpeg", "str"], "column_names": ["class", "image", "name"],
        "column_sizes": [8, null, null], "compression": method, "format": "mds", "hashes": [],
        "raw_data": {"basename": "shard.00000.mds", "bytes": raw.len(), "hashes": {}},
        "samples": samples, "size_limit": 67108864, "version": 2, "zip_data": zip
    }]});
    index.to_string()
}

/// What a source holds, and its images.
type Opened = (Contents, Vec<io::Result<Vec<u8>>>);

fn read(files: &[(&str, &[u8])]) -> Result<Opened, Error> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("validation");
    std::fs::create_dir(&root).unwrap();
    for (name, bytes) in files {
        std::fs::write(root.join(name), bytes).unwrap();
    }
    let part = open(&root, &Options::default())?;
    let images = part
        .contents
        .items
        .iter()
        .map(|item| part.files.read(&item.to_file()));
    let images = images.collect();
    Ok((part.contents, images))
}

const SAMPLES: [(&[u8], i64, &str); 3] = [
    (b"one", 4, "a.jpg"),
    (b"three", -1, "b.jpg"),
    (b"", 0, "c.jpg"),
];

#[test]
fn plain_and_packed_shards_are_read() {
    let raw = shard(&SAMPLES);
    let packed = zstd::encode_all(&raw[..], 3).unwrap();
    let plain = index(&raw, 3, None);
    let zipped = index(&raw, 3, Some("zstd:7"));
    for files in [
        [("index.json", plain.as_bytes()), ("shard.00000.mds", &raw)],
        [
            ("index.json", zipped.as_bytes()),
            ("shard.00000.mds.zstd", &packed),
        ],
    ] {
        let (contents, images) = read(&files).unwrap();
        let images: Vec<_> = images.into_iter().map(Result::unwrap).collect();
        assert_eq!(images, [&b"one"[..], b"three", b""]);
        let said: Vec<_> = contents
            .items
            .iter()
            .map(|item| {
                (
                    item.split.as_str(),
                    item.path.as_str(),
                    item.class.clone(),
                    item.size,
                )
            })
            .collect();
        assert_eq!(said[0], ("val", "a.jpg", Some(Class::Number(4)), 3));
        assert_eq!(said[1], ("val", "b.jpg", None, 5));
        assert_eq!(said[2], ("val", "c.jpg", Some(Class::Number(0)), 0));
    }
}

#[test]
fn what_is_not_read_is_named() {
    let raw = shard(&SAMPLES);
    let index = index(&raw, 3, None);
    let refused = |from: &str, to: &str| {
        assert!(index.contains(from));
        let index = index.replace(from, to);
        let Err(error) = read(&[("index.json", index.as_bytes()), ("shard.00000.mds", &raw)])
        else {
            panic!("{to} is refused");
        };
        error.to_string()
    };
    assert!(refused("\"int\"", "\"pkl\"").contains("\"pkl\""));
    assert!(refused("\"jpeg\"", "\"pil\"").contains("\"pil\""));
    assert!(refused("\"shard.00000.mds\"", "\"../shard\"").contains("leads out"));
    let packed = super::tests::index(&raw, 3, Some("br"));
    let Err(error) = read(&[("index.json", packed.as_bytes())]) else {
        panic!("br is refused");
    };
    assert!(error.to_string().contains("\"br\""), "{error}");
    assert!(refused("\"version\":2}", "\"version\":1}").contains("version 1"));
}

#[test]
fn what_is_cut_short_or_changed_is_refused() {
    let raw = shard(&SAMPLES);
    let index = index(&raw, 3, None);
    for length in 0..raw.len() {
        assert!(
            read(&[
                ("index.json", index.as_bytes()),
                ("shard.00000.mds", &raw[..length])
            ])
            .is_err()
        );
    }
    for length in 0..index.len() {
        assert!(
            read(&[
                ("index.json", &index.as_bytes()[..length]),
                ("shard.00000.mds", &raw)
            ])
            .is_err()
        );
    }
    let packed = zstd::encode_all(&raw[..], 3).unwrap();
    let zipped = super::tests::index(&raw, 3, Some("zstd"));
    for length in 0..packed.len() {
        let files = [
            ("index.json", zipped.as_bytes()),
            ("shard.00000.mds.zstd", &packed[..length]),
        ];
        assert!(read(&files).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_listed_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 4..200)) {
        bytes[..4].copy_from_slice(&[3, 0, 0, 0]);
        let index = index(&bytes, 3, None);
        if let Ok((contents, _)) = read(&[("index.json", index.as_bytes()), ("shard.00000.mds", &bytes)]) {
            prop_assert_eq!(contents.items.len(), 3);
        }
        let _ = read(&[("index.json", &bytes)]);
    }

    #[test]
    fn a_changed_shard_has_all_its_samples_or_none(at in 0_usize..60, value in any::<u8>()) {
        let mut raw = shard(&SAMPLES);
        let index = index(&raw, 3, None);
        let at = at % raw.len();
        raw[at] = value;
        if let Ok((contents, _)) = read(&[("index.json", index.as_bytes()), ("shard.00000.mds", &raw)]) {
            prop_assert_eq!(contents.items.len(), 3);
        }
    }
}

#[test]
fn columns_that_cannot_be_labels_are_not_read() {
    let raw = shard(&[(b"one", 1, "a"), (b"two", 0, "b")]);
    let index = index(&raw, 2, None);
    for name in ["path".to_owned(), "x".repeat(256)] {
        let index = index.replace("[\"class\"", &format!("[\"{name}\""));
        let files = [("index.json", index.as_bytes()), ("shard.00000.mds", &raw)];
        let (contents, images) = read(&files).unwrap();
        assert_eq!(images.len(), 2);
        let columns = contents.labels.columns();
        assert!(
            columns[1..]
                .iter()
                .all(|column| records::is_label(&column.name))
        );
        assert!(contents.remarks[0].contains("is not read"));
    }
}
