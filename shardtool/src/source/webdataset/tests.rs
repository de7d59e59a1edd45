use proptest::prelude::*;
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;
use crate::format::Label;
use crate::source::Source;

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, bytes) in members {
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

fn open_shards(shards: &[(&str, &[u8])]) -> Result<Part, Error> {
    let folder = TempDir::new().unwrap();
    let paths: Vec<PathBuf> = shards
        .iter()
        .map(|(name, _)| folder.path().join(name))
        .collect();
    for (path, (_, bytes)) in paths.iter().zip(shards) {
        std::fs::write(path, bytes).unwrap();
    }
    open(&paths, &Options::default())
}

fn sample() -> Vec<u8> {
    archive(&[
        ("n01/b.c.jpg", b"image b"),
        ("n01/b.cls", b"3"),
        ("n01/b.seg.PNG", b"mask b"),
        (
            "n01/b.json",
            br#"{"w": 3, "f": 0.5, "ok": true, "no": null, "list": [1], "path": "x"}"#,
        ),
        ("a.cls", b"1\n"),
        ("a.txt", b"a word"),
        ("a.jpg", b"image a"),
        ("a.npy", b"\x93NUMPY"),
        ("c.cls", b"2"),
        ("d.jpg", b"image d"),
        ("d.cls", b"\xff"),
        ("e.jpg", b"image e"),
        ("e.cls", b"-1"),
    ])
}

#[test]
fn samples_keep_their_order_and_have_their_labels() {
    let part = open_shards(&[("set-val-000.tar", &sample())]).unwrap();
    let contents = &part.contents;
    assert!(contents.is_ordered);
    let items: Vec<_> = contents
        .items
        .iter()
        .map(|item| (item.path.as_str(), item.class.clone()))
        .collect();
    assert_eq!(
        items,
        [
            ("n01/b.c.jpg", Some(Class::Number(3))),
            ("n01/b.seg.PNG", Some(Class::Number(3))),
            ("a.jpg", Some(Class::Number(1))),
            ("d.jpg", None),
            ("e.jpg", None),
        ]
    );
    assert!(contents.items.iter().all(|item| item.split == "val"));
    assert_eq!(contents.items[3].fault.as_deref(), Some("d.cls: not UTF-8"));
    assert_eq!(
        contents.left_out,
        [Note::new("c", "a sample without an image")]
    );
    assert_eq!(
        contents.ignored,
        [Note::new("a.npy", "not an image: NumPy array")]
    );
    assert_eq!(
        contents.remarks,
        ["fields of .json that are lists or objects are no labels: list"]
    );
    let columns = contents.labels.columns();
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
    assert_eq!(names.len(), 7);
    let of_b = contents.labels.of("n01/b.seg.PNG");
    assert_eq!(of_b[place("w")], Some(Label::Int(3)));
    assert_eq!(of_b[place("f")], Some(Label::Float(0.5)));
    assert_eq!(of_b[place("ok")], Some(Label::Text("true")));
    assert_eq!(of_b[place("json.path")], Some(Label::Text("x")));
    assert_eq!(of_b[place("txt")], None);
    assert_eq!(
        contents.labels.of("a.jpg")[place("txt")],
        Some(Label::Text("a word"))
    );
    let source = Source::new(Vec::new(), vec![part], None).unwrap();
    let read: Vec<_> = source
        .listing()
        .files()
        .map(|file| source.read(file).unwrap())
        .collect();
    let expected: [&[u8]; 5] = [b"image b", b"mask b", b"image a", b"image d", b"image e"];
    assert_eq!(read, expected);
}

#[test]
fn shards_with_the_same_keys_are_told_apart() {
    let shard = archive(&[("0.jpg", b"x"), ("0.txt", b"7")]);
    let part = open_shards(&[("train-0.tar", &shard), ("train-1.tar", &shard)]).unwrap();
    let paths: Vec<_> = part
        .contents
        .items
        .iter()
        .map(|item| item.path.as_str())
        .collect();
    assert_eq!(paths, ["train-0/0.jpg", "train-1/0.jpg"]);
    assert_eq!(
        part.contents.labels.of("train-1/0.jpg")[1],
        Some(Label::Int(7))
    );
}

#[test]
fn shards_are_told_from_folders() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.tar");
    let is = |members: &[(&str, &[u8])]| {
        std::fs::write(&path, archive(members)).unwrap();
        is_shard(&path).unwrap()
    };
    assert!(is(&[("a/1.cls", b"1"), ("a/1.jpg", b"x")]));
    assert!(is(&[("1.seg.png", b"x"), ("1.json", b"{}")]));
    assert!(!is(&[
        ("a/1.jpg", b"x"),
        ("a/2.jpg", b"x"),
        ("a/read.txt", b"x")
    ]));
    assert!(!is(&[("1.cls", b"1"), ("2.jpg", b"x")]));
    assert!(!is(&[]));
}

#[test]
fn no_cut_is_quiet() {
    let whole = sample();
    let last = whole.iter().rposition(|&byte| byte != 0).unwrap();
    for length in (0..whole.len()).filter(|length| length % 512 < 2 || length % 5 == 0) {
        if open_shards(&[("a.tar", &whole[..length])]).is_ok() {
            assert!(length > last, "cut at {length}");
        }
    }
}

#[test]
fn patterns_stand_for_names() {
    assert_eq!(expand("a.tar"), ["a.tar"]);
    assert_eq!(
        expand("t-{08..11}.tar"),
        ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]
    );
    assert_eq!(expand("{9..10}"), ["9", "10"]);
    assert_eq!(expand("{2..1}"), ["2", "1"]);
    assert_eq!(expand("{a,b}{0..1}"), ["a0", "a1", "b0", "b1"]);
    assert_eq!(expand("{a,b{0..1},}x"), ["ax", "b0x", "b1x", "x"]);
    assert_eq!(expand("train-{000000..001281}.tar").len(), 1282);
    for name in [
        "{a",
        "a}",
        "{a}",
        "{}",
        "{1..}",
        "{0..99999999}",
        "{0..9999}{0..9999}",
    ] {
        assert_eq!(expand(name), [name]);
    }
}

proptest! {
    #[test]
    fn any_pattern_does(pattern in "[{},.0-3a]{0,24}") {
        prop_assert!(!expand(&pattern).is_empty());
    }

    #[test]
    fn any_text_does(cls: Vec<u8>, json in "[{}\":,a1\\[\\]]{0,20}", txt: String) {
        let shard = archive(&[
            ("a.jpg", b"x"), ("a.cls", &cls), ("a.json", json.as_bytes()), ("a.txt", txt.as_bytes()),
        ]);
        prop_assert_eq!(open_shards(&[("a.tar", &shard)]).unwrap().contents.items.len(), 1);
    }
}
