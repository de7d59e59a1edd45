use super::*;
use proptest::prelude::*;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: u64, value: &[u8]) -> Vec<u8> {
    [
        varint(number << 3 | 2),
        varint(value.len() as u64),
        value.to_vec(),
    ]
    .concat()
}

fn feature(key: &str, kind: u64, value: &[u8]) -> Vec<u8> {
    let list = field(kind, &field(1, value));
    field(1, &[field(1, key.as_bytes()), field(2, &list)].concat())
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let (first, last) = (
        masked_crc(&length).to_le_bytes(),
        masked_crc(message).to_le_bytes(),
    );
    [&length[..], &first, message, &last].concat()
}

fn of_tfds(image: &[u8], label: i64, name: &str) -> Vec<u8> {
    let features = [
        feature("image", 1, image),
        feature("label", 3, &varint(label as u64)),
        feature("file_name", 1, name.as_bytes()),
    ];
    record(&field(1, &features.concat()))
}

fn of_slim(image: &[u8], label: u64, synset: &str) -> Vec<u8> {
    let mut features = vec![
        feature("image/class/label", 3, &varint(label)),
        feature("image/encoded", 1, image),
    ];
    if !synset.is_empty() {
        features.push(feature("image/class/synset", 1, synset.as_bytes()));
    }
    record(&field(1, &features.concat()))
}

/// What a source holds, and its images.
type Opened = (Contents, Vec<io::Result<Vec<u8>>>);

/// Opens files and reads all that is in them.
fn read(files: &[(&str, &[u8])]) -> Result<Opened, Error> {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, bytes) in files {
        paths.push(folder.path().join(name));
        std::fs::write(paths.last().unwrap(), bytes).unwrap();
    }
    paths.retain(|path| !path.ends_with(CLASSES_FILE));
    let part = open(&paths, &Options::default())?;
    let images = part
        .contents
        .items
        .iter()
        .map(|item| part.files.read(&item.to_file()));
    let images = images.collect();
    Ok((part.contents, images))
}

#[test]
fn a_label_may_be_a_text() {
    let features = [feature("image", 1, b"one"), feature("label", 1, b"cat")];
    let bytes = record(&field(1, &features.concat()));
    let (contents, _) = read(&[("train", &bytes)]).unwrap();
    let class = contents.items[0].class.clone();
    assert_eq!(class, Some(Class::Name("cat".to_owned())));
}

#[test]
fn keys_of_tensorflow_datasets_are_read() {
    let large = vec![7; 100_000];
    let train = [of_tfds(&large, 1, "b.jpg"), of_tfds(b"two", -1, "a.jpg")].concat();
    let files: [(&str, &[u8]); 3] = [
        ("x-train.tfrecord-00000-of-00001", &train),
        (
            "x-validation.tfrecord-00000-of-00001",
            &of_tfds(b"three", 0, "c.jpg"),
        ),
        (CLASSES_FILE, b"cat\ndog\n"),
    ];
    let (contents, images) = read(&files).unwrap();
    let images: Vec<_> = images.into_iter().map(Result::unwrap).collect();
    assert_eq!(images, [large, b"two".to_vec(), b"three".to_vec()]);
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
    let number = |number| Some(Class::Number(number));
    assert_eq!(said[0], ("train", "b.jpg", number(1), 100_000));
    assert_eq!(said[1], ("train", "a.jpg", None, 3));
    assert_eq!(said[2], ("val", "c.jpg", number(0), 5));
    assert_eq!(contents.classes.unwrap(), ["cat", "dog"]);
}

#[test]
fn keys_of_slim_are_read() {
    let bytes = [
        of_slim(b"one", 1, "n01"),
        of_slim(b"two", 0, ""),
        of_slim(b"3", 1000, ""),
    ]
    .concat();
    let (contents, images) = read(&[("train-00000-of-00002", &bytes)]).unwrap();
    assert_eq!(
        images.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
        [&b"one"[..], b"two", b"3"]
    );
    let classes: Vec<_> = contents
        .items
        .iter()
        .map(|item| item.class.clone())
        .collect();
    assert_eq!(
        classes,
        [
            Some(Class::Name("n01".to_owned())),
            None,
            Some(Class::Number(999))
        ]
    );
    assert_eq!(contents.items[1].path, "train-00000-of-00002/1");
    assert_eq!(contents.remarks.len(), 1);
}

#[test]
fn what_is_cut_short_or_changed_is_refused() {
    let first = of_tfds(b"one", 1, "b.jpg");
    let whole = [first.clone(), of_tfds(b"two", 1, "a.jpg")].concat();
    for length in 0..whole.len() {
        let is_opened = read(&[("train", &whole[..length])]).is_ok();
        assert_eq!(is_opened, [0, first.len()].contains(&length), "{length}");
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        if let Ok((contents, images)) = read(&[("train", &changed)]) {
            assert_eq!(contents.items.len(), 2);
            assert_eq!(
                images.iter().filter(|image| image.is_err()).count(),
                1,
                "{at}"
            );
        }
    }
    let Err(error) = read(&[(
        "train",
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 1, 1, 1, 1, 1],
    )]) else {
        panic!("gzip is refused");
    };
    assert!(error.to_string().contains("gzip"), "{error}");
    assert!(read(&[("train", &record(&field(1, &feature("text", 1, b"x"))))]).is_err());
}

proptest! {
    #[test]
    fn any_message_is_listed_or_refused(message in proptest::collection::vec(any::<u8>(), 0..100)) {
        let whole = [of_tfds(b"one", 1, "b.jpg"), record(&message)].concat();
        prop_assert_eq!(read(&[("train", &whole)]).unwrap().0.items.len(), 2);
        let inner = [field(1, &message), feature("image", 1, b"x")].concat();
        let whole = [of_tfds(b"one", 1, "b.jpg"), record(&field(1, &inner))].concat();
        prop_assert_eq!(read(&[("train", &whole)]).unwrap().0.items.len(), 2);
    }
}
