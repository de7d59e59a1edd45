use std::io::Write;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;
use crate::source::{Contents, Source};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and more";

/// Adds a file.
fn add(archive: &mut Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, bytes).unwrap();
}

/// Adds a file whose name the crate would refuse.
fn add_raw(archive: &mut Builder<Vec<u8>>, path: &[u8], bytes: &[u8]) {
    let mut header = Header::new_old();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    archive.append(&header, bytes).unwrap();
}

fn add_link(archive: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, target: &str) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    archive.append_link(&mut header, path, target).unwrap();
}

fn archive(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    fill(&mut archive);
    archive.into_inner().unwrap()
}

fn open_bytes(bytes: &[u8]) -> Result<Part, Error> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.tar");
    std::fs::write(&path, bytes).unwrap();
    open(&path, &Options::default())
}

fn items(contents: &Contents) -> Vec<(&str, Option<&str>)> {
    let items = contents.items.iter().map(|item| {
        let class = match &item.class {
            Some(Class::Name(name)) => Some(name.as_str()),
            _ => None,
        };
        (item.path.as_str(), class)
    });
    items.collect()
}

fn notes(notes: &[Note]) -> Vec<String> {
    notes.iter().map(ToString::to_string).collect()
}

/// Reads all images as a build does, in a source where another part comes first.
fn read_all(part: Part) -> Vec<(String, Vec<u8>)> {
    let other = open_bytes(&archive(|tar| add(tar, "z/1.png", PNG))).unwrap();
    let source = Source::new(Vec::new(), vec![other, part], None).unwrap();
    let files = source
        .listing()
        .files()
        .filter(|file| file.path != "z/1.png");
    files
        .map(|file| (file.path.clone(), source.read(file).unwrap()))
        .collect()
}

#[test]
fn members_follow_the_rules_of_a_folder() {
    let long = format!("b/{}.jpg", "x".repeat(300));
    let part = open_bytes(&archive(|tar| {
        add(tar, "./a/1.jpg", b"not looked at");
        add(tar, &long, b"long");
        add(tar, "a/no_extension", PNG);
        add(tar, "a/text", b"words");
        add(tar, "a/2.zip", b"PK\x03\x04");
        add(tar, "a/.DS_Store", b"junk");
        add(tar, "__MACOSX/a/1.jpg", b"junk");
        add(tar, "labels.csv", b"path,n\na/1.jpg,7\n");
    }))
    .unwrap();
    let contents = &part.contents;
    assert_eq!(contents.name, "a.tar");
    assert_eq!(
        items(contents),
        [
            ("a/1.jpg", Some("a")),
            (long.as_str(), Some("b")),
            ("a/no_extension", Some("a"))
        ]
    );
    assert_eq!(
        notes(&contents.left_out),
        ["a/2.zip: not an image: zip archive"]
    );
    assert_eq!(
        notes(&contents.ignored)[..2],
        [
            "a/.DS_Store: known not to be meant, by its name",
            "__MACOSX: known not to be meant, by its name"
        ]
    );
    assert_eq!(
        contents.labels.of("a/1.jpg")[1],
        Some(crate::format::Label::Int(7))
    );
    let read = read_all(part);
    assert_eq!(read[0], ("a/1.jpg".to_owned(), b"not looked at".to_vec()));
    assert_eq!(read[1], ("a/no_extension".to_owned(), PNG.to_vec()));
    assert_eq!(read[2], (long, b"long".to_vec()));
}

#[test]
fn labels_lie_in_the_folder_that_was_packed() {
    let part = open_bytes(&archive(|tar| {
        add(tar, "set/a/1.jpg", b"1");
        add(tar, "set/b/1.jpg", b"2");
        add(tar, "set/labels.csv", b"path,n\na/1.jpg,7\n");
    }))
    .unwrap();
    assert_eq!(items(&part.contents)[0], ("set/a/1.jpg", Some("a")));
    assert_eq!(
        part.contents.labels.of("set/a/1.jpg")[1],
        Some(crate::format::Label::Int(7))
    );
}

#[test]
fn links_lead_to_members_or_nowhere() {
    let part = open_bytes(&archive(|tar| {
        add(tar, "a/1.jpg", b"one");
        add_link(tar, EntryType::Symlink, "b/s.jpg", "../a/1.jpg");
        add_link(tar, EntryType::Link, "b/h.jpg", "a/1.jpg");
        add_link(tar, EntryType::Symlink, "b/chain.jpg", "s.jpg");
        add_link(tar, EntryType::Symlink, "b/loop.jpg", "loop.jpg");
        add_link(tar, EntryType::Symlink, "b/abs.jpg", "/etc/passwd");
        add_link(tar, EntryType::Symlink, "b/up.jpg", "../../a/1.jpg");
        add_link(tar, EntryType::Link, "b/gone.jpg", "a/2.jpg");
    }))
    .unwrap();
    assert_eq!(
        notes(&part.contents.left_out),
        [
            "b/abs.jpg: a link that leads out of the archive",
            "b/up.jpg: a link that leads out of the archive",
            "b/loop.jpg: a link to \"b/loop.jpg\", which is no file in the archive",
            "b/gone.jpg: a link to \"a/2.jpg\", which is no file in the archive",
        ]
    );
    let read = read_all(part);
    assert_eq!(read.len(), 4);
    assert!(read.iter().all(|(_, bytes)| bytes == b"one"));
}

#[test]
fn unsafe_names_are_left_out_and_the_last_of_a_name_wins() {
    let part = open_bytes(&archive(|tar| {
        add_raw(tar, b"../a/1.jpg", b"1");
        add_raw(tar, b"/a/1.jpg", b"1");
        add_raw(tar, b"a/\xff.jpg", b"1");
        add(tar, "a/2.jpg", b"old");
        add(tar, "a/2.jpg", b"new");
    }))
    .unwrap();
    assert_eq!(
        notes(&part.contents.left_out),
        [
            "../a/1.jpg: name leads out of a folder (..)",
            "/a/1.jpg: name is absolute",
            "a/\u{fffd}.jpg: file name is not UTF-8",
            "a/2.jpg: a later member of the archive has the same name",
        ]
    );
    assert_eq!(read_all(part), [("a/2.jpg".to_owned(), b"new".to_vec())]);
}

/// Makes an archive of archives, as ImageNet's training set is.
fn nested() -> Vec<u8> {
    archive(|tar| {
        for (class, count) in [("n01440764", 2), ("n01443537", 3)] {
            let inner = archive(|tar| {
                for number in 0..count {
                    add(tar, &format!("{class}_{number}.JPEG"), class.as_bytes());
                }
            });
            add(tar, &format!("{class}.tar"), &inner);
        }
    })
}

#[test]
fn inner_archives_are_folders() {
    let part = open_bytes(&nested()).unwrap();
    assert_eq!(part.contents.items.len(), 5);
    assert_eq!(part.contents.left_out, []);
    assert_eq!(part.contents.ignored, []);
    assert_eq!(
        items(&part.contents)[4],
        ("n01443537/n01443537_2.JPEG", Some("n01443537"))
    );
    let read = read_all(part);
    assert!(
        read.iter()
            .all(|(path, bytes)| path.as_bytes().starts_with(bytes))
    );
}

#[test]
fn folders_without_an_image_are_told() {
    let part = open_bytes(&archive(|tar| {
        for folder in ["a", "b", "b/c", "d", "d/e"] {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, folder, &[][..]).unwrap();
        }
        add(tar, "a/1.jpg", b"1");
        add(tar, "b/c/1.jpg", b"1");
    }))
    .unwrap();
    assert_eq!(
        notes(&part.contents.left_out),
        ["d: a folder without an image"]
    );
    assert_eq!(notes(&part.contents.ignored), [""; 0]);
}

#[test]
fn members_that_the_gnu_program_adds_are_no_faults() {
    let bytes = archive(|tar| {
        for (kind, name) in [(b'V', "a volume"), (b'D', "a/")] {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::new(kind));
            header.set_path(name).unwrap();
            header.set_size(5);
            header.set_cksum();
            tar.append(&header, &b"Y1\0\0\0"[..]).unwrap();
        }
        let extensions = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.name", b"a/hole.jpg"),
        ];
        tar.append_pax_extensions(extensions).unwrap();
        add(tar, "a/GNUSparseFile.0/hole.jpg", b"1\n0\n1\nx");
        add(tar, "a/1.jpg", b"1");
    });
    let contents = open_bytes(&bytes).unwrap().contents;
    assert_eq!(items(&contents), [("a/1.jpg", Some("a"))]);
    assert_eq!(
        notes(&contents.left_out),
        ["a/hole.jpg: a sparse file, stored with holes"]
    );
}

#[test]
fn archives_nest_so_deep_and_no_deeper() {
    let mut bytes = archive(|tar| add(tar, "1.jpg", b"1"));
    for name in ["d.tar", "c.tar", "b.tar"] {
        bytes = archive(|tar| add(tar, name, &bytes));
    }
    let contents = open_bytes(&bytes).unwrap().contents;
    assert_eq!(
        notes(&contents.left_out)[0],
        "b/c/d.tar: not an image: tar archive"
    );
}

#[test]
fn imagenet_without_folders_has_its_classes_and_split() {
    let train = archive(|tar| {
        add(tar, "n01440764_10026.JPEG", b"1");
        add(tar, "n01443537_7.JPEG", b"2");
    });
    let contents = open_bytes(&train).unwrap().contents;
    assert_eq!(items(&contents)[1], ("n01443537_7.JPEG", Some("n01443537")));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("val.tar");
    let val = archive(|tar| add(tar, "ILSVRC2012_val_00000001.JPEG", b"1"));
    std::fs::write(&path, val).unwrap();
    let mut contents = open(&path, &Options::default()).unwrap().contents;
    let classes = [("ILSVRC2012_val_00000001".to_owned(), "n7".to_owned())];
    assert!(imagenet::lacks_labels(&contents));
    assert_eq!(imagenet::label(&mut contents, &classes.into(), &path), 1);
    assert!(!imagenet::lacks_labels(&contents));
    assert_eq!(
        items(&contents),
        [("ILSVRC2012_val_00000001.JPEG", Some("n7"))]
    );
    assert_eq!(contents.items[0].split, "val");
}

#[test]
fn several_archives_are_folders() {
    let folder = TempDir::new().unwrap();
    let paths = ["n01.tar", "n02.tar"].map(|name| folder.path().join(name));
    std::fs::write(&paths[0], archive(|tar| add(tar, "1.jpg", b"one"))).unwrap();
    std::fs::write(&paths[1], archive(|tar| add(tar, "n02/1.jpg", b"two"))).unwrap();
    let part = open_all(&paths, &Options::default()).unwrap();
    assert_eq!(
        items(&part.contents),
        [("n01/1.jpg", Some("n01")), ("n02/1.jpg", Some("n02"))]
    );
    let read = read_all(part);
    assert_eq!(read[1], ("n02/1.jpg".to_owned(), b"two".to_vec()));
}

#[test]
fn archives_behind_each_other_are_read_too() {
    let one = archive(|tar| add(tar, "a/1.jpg", b"1"));
    let two = archive(|tar| add(tar, "a/2.jpg", b"2"));
    let both = open_bytes(&[one, two].concat()).unwrap();
    assert_eq!(both.contents.items.len(), 2);
}

#[test]
fn no_cut_is_quiet() {
    for whole in [nested(), archive(|tar| add(tar, &"long/".repeat(50), PNG))] {
        let expected = open_bytes(&whole).unwrap().contents.items;
        let last = whole.iter().rposition(|&byte| byte != 0).unwrap();
        for length in 0..whole.len() {
            // Every length near an edge, and some of the others.
            if length % 512 > 2 && length % 512 < 510 && length % 7 != 0 {
                continue;
            }
            match open_bytes(&whole[..length]) {
                Ok(part) => {
                    assert!(length > last, "cut at {length}");
                    assert_eq!(part.contents.items, expected);
                }
                Err(Error::Damaged { reason, .. }) => assert!(reason.starts_with("at byte ")),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn other_files_are_refused() {
    let refusal = |bytes: &[u8]| open_bytes(bytes).err().unwrap().to_string();
    assert!(refusal(b"").ends_with("at byte 0: no mark of the end: the archive is cut off"));
    assert!(refusal(&[0x1f, 0x8b, 8]).contains("at byte 0: "));
    assert!(refusal(&[b'x'; 1024]).contains("at byte 0: "));
}

#[test]
fn what_the_user_excludes_is_not_looked_at() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.tar");
    let bytes = archive(|tar| {
        add(tar, "a/1.jpg", b"1");
        add(tar, "b/1.jpg", b"1");
        add(tar, "c.tar", b"damaged");
    });
    std::fs::write(&path, bytes).unwrap();
    let mut exclude = globset::GlobSetBuilder::new();
    for pattern in ["b", "c.tar"] {
        exclude.add(globset::Glob::new(pattern).unwrap());
    }
    let options = Options {
        exclude: exclude.build().unwrap(),
        ..Options::default()
    };
    let contents = open(&path, &options).unwrap().contents;
    assert_eq!(items(&contents), [("a/1.jpg", Some("a"))]);
    assert_eq!(notes(&contents.ignored), ["b: excluded", "c.tar: excluded"]);
    let error = open(&path, &Options::default()).err().unwrap().to_string();
    assert!(
        error.contains("(archive c.tar in it): failed to read entire block"),
        "{error}"
    );
}

#[test]
fn headers_are_bounded() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(2 << 20);
    header.set_cksum();
    let bytes = archive(|tar| {
        tar.append(&header, &vec![b'x'; 2 << 20][..]).unwrap();
        add(tar, "a/1.jpg", b"1");
    });
    let error = open_bytes(&bytes).err().unwrap().to_string();
    assert!(error.contains("name and headers have more than"), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_do(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        is_archive in any::<bool>(),
    ) {
        if is_archive {
            bytes = nested();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        if let Ok(part) = open(file.path(), &Options::default()) {
            for item in &part.contents.items {
                prop_assert!(item.position + item.size <= bytes.len() as u64);
            }
        }
    }
}

#[test]
fn names_that_no_file_system_takes_are_left_out() {
    let long = format!("cat/{}b.jpg", "a/".repeat(30_000));
    let bytes = archive(|archive| {
        add(archive, "cat/a.jpg", b"one");
        add(archive, &long, b"two");
    });
    let contents = open_bytes(&bytes).unwrap().contents;
    assert_eq!(items(&contents), [("cat/a.jpg", Some("cat"))]);
    assert!(contents.left_out[0].path.len() < 100);
    assert_eq!(contents.left_out[0].reason, "name has more than 4096 bytes");
}
