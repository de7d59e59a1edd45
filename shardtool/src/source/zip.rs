//! A folder of images in a zip archive.
//!
//! The directory at the archive's end is read once; then every thread reads members for itself. Nothing is unpacked
//! to disk. A member is held in memory while it is read, 1 GiB at most.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use zip9::{CompressionMethod, ZipArchive};

use super::kind::{self, Kind};
use super::layout::{self, ANNOTATIONS, Found, Tree};
use super::records::{self, Section, invalid};
use super::{Error, Files, LABELS_FILE, Labels, Note, Options, Part, SourceFile, folder};

/// Opens an archive.
///
/// # Errors
/// If it cannot be read, is no zip archive, or has a faulty `labels.csv`.
pub fn open(path: &Path, options: &Options) -> Result<Part, Error> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let meta = file.metadata().map_err(Error::io(path, "open"))?;
    let archive = ZipArchive::new(BufReader::new(&file)).map_err(Error::damaged(path))?;
    let has_double = archive.has_duplicate_names();
    let mut entries = Vec::new();
    let mut last = None;
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(Error::damaged(path))?;
        let raw = entry.name_raw();
        let name = match (std::str::from_utf8(raw), entry.name()) {
            (Ok(name), _) => name.to_owned(),
            (_, Ok(name)) => name.into_owned(), // of an old encoding
            _ => String::from_utf8_lossy(raw).into_owned(),
        };
        let method = match entry.compression() {
            _ if entry.encrypted() => Err("encrypted".to_owned()),
            CompressionMethod::Stored => Ok(Method::Stored),
            CompressionMethod::Deflated => Ok(Method::Deflated),
            other => Err(format!("compressed by a method that is not read: {other}")),
        };
        let member = Member {
            header: entry.header_start(),
            packed: entry.compressed_size(),
            size: entry.size(),
            crc: entry.crc32(),
            method,
        };
        last = last.max(Some(entry.central_header_start()));
        entries.push((name, entry.is_symlink(), member));
    }
    let start = archive.central_directory_start();
    drop(archive);
    if directory_goes_on(&file, start, last).map_err(Error::io(path, "read"))? {
        let reason = format!(
            "its directory has more than the {} entries that it says",
            entries.len()
        );
        return Err(Error::damaged(path)(reason));
    }

    let mut walk = Walk {
        archive: Archive {
            file,
            members: Vec::new(),
        },
        options,
        tree: Tree {
            newest: Some(folder::changed(&meta)),
            ..Tree::default()
        },
        folders: BTreeSet::new(),
        skipped: BTreeSet::new(),
        labels: Labels::default(),
        path: path.to_owned(),
    };
    for (name, is_link, member) in entries {
        walk.entry(&name, is_link, member)?;
    }
    let mut tree = walk.tree;
    tree.folders = without_image(&walk.folders, &tree.found);
    let name = records::name(&[path.to_owned()]);
    if has_double {
        let reason = "some of its members have one name: only the last of each is read";
        tree.left_out.push(Note::new(name.clone(), reason));
    }
    let mut contents = layout::arrange(tree, options, true);
    contents.name = name;
    contents.labels = walk.labels;
    Ok(Part {
        contents,
        files: Box::new(walk.archive),
    })
}

/// Returns the folders that hold no image, nor do folders in them; not those in such a folder.
///
/// What is looked at is borrowed: the folders on the way to one file can have many times the bytes of its name.
fn without_image(folders: &BTreeSet<String>, found: &[Found]) -> Vec<String> {
    let mut with = HashSet::new();
    for path in found.iter().map(|found| found.path.as_str()) {
        with.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
    }
    let mut empty = BTreeSet::new();
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        let ends = folder.match_indices('/').map(|(end, _)| end);
        let mut above = ends.chain([folder.len()]).map(|end| &folder[..end]);
        empty.extend(above.find(|above| !with.contains(above)));
    }
    empty.into_iter().map(str::to_owned).collect()
}

/// Tells if the directory has an entry behind the last that was counted: the count is damaged, then.
fn directory_goes_on(file: &File, start: u64, last: Option<u64>) -> io::Result<bool> {
    let end = match last {
        None => start,
        Some(last) => {
            let header = records::read_range(file, last, 46)?;
            let field = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
            last.saturating_add(46 + field(28) + field(30) + field(32))
        }
    };
    Ok(records::read_range(file, end, 4)? == b"PK\x01\x02")
}

/// An open archive.
struct Archive {
    file: File,
    /// The members taken for images; an item's position is an index.
    members: Vec<Member>,
}

/// A file in the archive, as its directory describes it.
struct Member {
    /// Where its header lies, which is followed by its bytes.
    header: u64,
    /// Bytes in the archive.
    packed: u64,
    /// Bytes of the file.
    size: u64,
    crc: u32,
    /// How it is packed, or why it cannot be read.
    method: Result<Method, String>,
}

#[derive(Clone, Copy)]
enum Method {
    Stored,
    Deflated,
}

impl Files for Archive {
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        self.member(file)?.read(&self.file)
    }

    fn head(&self, file: &SourceFile, length: usize) -> io::Result<Vec<u8>> {
        self.member(file)?.head(&self.file, length as u64)
    }
}

impl Archive {
    fn member(&self, file: &SourceFile) -> io::Result<&Member> {
        let member = usize::try_from(file.position)
            .ok()
            .and_then(|position| self.members.get(position));
        member.ok_or_else(|| invalid("no such member"))
    }
}

impl Member {
    /// Returns why the member cannot be kept, if the directory shows it.
    fn fault(&self) -> Option<String> {
        let is_large = self.size > records::MOST;
        let large = is_large.then(|| format!("{} bytes, more than {}", self.size, records::MOST));
        self.method.clone().err().or(large)
    }

    fn read(&self, file: &File) -> io::Result<Vec<u8>> {
        let bytes = self.head(file, self.size.saturating_add(1))?;
        if bytes.len() as u64 != self.size {
            return Err(invalid(format!(
                "{} bytes where the directory says {}",
                bytes.len(),
                self.size
            )));
        }
        let crc = crc32fast::hash(&bytes);
        if crc != self.crc {
            return Err(invalid(format!(
                "checksum {crc:08x} where the directory says {:08x}",
                self.crc
            )));
        }
        Ok(bytes)
    }

    fn head(&self, file: &File, length: u64) -> io::Result<Vec<u8>> {
        if let Some(fault) = self.fault() {
            return Err(invalid(fault));
        }
        let method = self.method.as_ref().map_err(invalid)?;
        let header = records::read_range(file, self.header, 30)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(invalid(format!("no member at offset {}", self.header)));
        }
        let field = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let start = self.header.saturating_add(30 + field(26) + field(28));
        let section = Section {
            file,
            at: start,
            end: start.saturating_add(self.packed),
        };
        let mut bytes = Vec::new();
        match method {
            Method::Stored => section.take(length).read_to_end(&mut bytes)?,
            Method::Deflated => {
                let packed = BufReader::with_capacity(1 << 16, section);
                DeflateDecoder::new(packed)
                    .take(length)
                    .read_to_end(&mut bytes)?
            }
        };
        Ok(bytes)
    }
}

/// A walk through the archive's directory.
struct Walk<'a> {
    archive: Archive,
    options: &'a Options,
    tree: Tree,
    /// The folders that files lie in, or were packed themselves; not those on the way to them.
    folders: BTreeSet<String>,
    /// Paths whose files are not meant, each noted once.
    skipped: BTreeSet<String>,
    labels: Labels,
    path: PathBuf,
}

impl Walk<'_> {
    /// Looks at one entry of the directory.
    fn entry(&mut self, name: &str, is_link: bool, member: Member) -> Result<(), Error> {
        // Some programs for Windows separate folders in their own way.
        let name = name.replace('\\', "/");
        let below = name.strip_prefix("./").unwrap_or(&name);
        let path = below.strip_suffix('/').unwrap_or(below);
        if name == "./" {
            return Ok(());
        }
        if path.len() > records::MOST_NAME {
            let reason = format!("a name of more than {} bytes", records::MOST_NAME);
            self.leave_out(&records::shortened(path.as_bytes()), reason);
            return Ok(());
        }
        if !records::is_plain(path) {
            self.leave_out(&name, "no name of a file in the archive".to_owned());
            return Ok(());
        }
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let mut start = 0;
        let mut folder = "";
        for end in ends {
            let (whole, own) = (&path[..end], &path[start..end]);
            start = end + 1;
            let unwanted = if self.options.excludes(whole) {
                Some("excluded")
            } else {
                kind::is_junk(own).then_some("known not to be meant, by its name")
            };
            if let Some(reason) = unwanted {
                self.folders.insert(folder.to_owned());
                self.skip(whole, reason);
                return Ok(());
            }
            if end < path.len() || below.ends_with('/') {
                folder = whole;
            }
        }
        self.folders.insert(folder.to_owned());
        if below.ends_with('/') {
            return Ok(());
        }
        if is_link {
            self.leave_out(path, "a link".to_owned());
            return Ok(());
        }
        if path == LABELS_FILE {
            return self.labels(&member);
        }
        self.file(path, member);
        Ok(())
    }

    fn labels(&mut self, member: &Member) -> Result<(), Error> {
        let path = self.path.join(LABELS_FILE);
        let bytes = member
            .read(&self.archive.file)
            .map_err(Error::io(&path, "read"))?;
        self.labels =
            Labels::parse(&bytes).map_err(|(line, fault)| Error::Labels { path, line, fault })?;
        Ok(())
    }

    fn file(&mut self, path: &str, member: Member) {
        if kind::named(path).is_none() {
            if path.ends_with(ANNOTATIONS) {
                let text = member.read(&self.archive.file).ok();
                if let Some(text) = text.and_then(|bytes| String::from_utf8(bytes).ok()) {
                    self.tree.annotations.push((path.to_owned(), text));
                }
            }
            match member.head(&self.archive.file, kind::HEAD as u64) {
                Err(error) => return self.leave_out(path, format!("cannot be looked at: {error}")),
                Ok(head) => match Kind::of(&head) {
                    Kind::Image(_) => {}
                    kind @ (Kind::Unread(_) | Kind::Archive(_)) => {
                        return self.leave_out(path, kind.refusal());
                    }
                    kind => return self.tree.ignored.push(Note::new(path, kind.refusal())),
                },
            }
        }
        self.tree.found.push(Found {
            path: path.to_owned(),
            size: member.size,
            fault: member.fault(),
            container: 0,
            position: self.archive.members.len() as u64,
        });
        self.archive.members.push(member);
    }

    fn skip(&mut self, path: &str, reason: &str) {
        if self.skipped.insert(path.to_owned()) {
            self.tree.ignored.push(Note::new(path, reason));
        }
    }

    fn leave_out(&mut self, path: &str, reason: String) {
        self.tree.left_out.push(Note::new(path, reason));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use zip9::ZipWriter;
    use zip9::write::SimpleFileOptions;

    use super::*;
    use crate::source::{Class, Contents};

    const JPEG: &[u8] = b"\xff\xd8\xff some bytes, some bytes, some bytes";

    fn options(method: CompressionMethod) -> SimpleFileOptions {
        SimpleFileOptions::default().compression_method(method)
    }

    /// Writes an archive, with every other member deflated.
    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
        for (at, (name, bytes)) in members.iter().enumerate() {
            let method = [CompressionMethod::Stored, CompressionMethod::Deflated][at % 2];
            if name.ends_with('/') {
                writer
                    .add_directory(*name, options(CompressionMethod::Stored))
                    .unwrap();
            } else {
                writer.start_file(*name, options(method)).unwrap();
                writer.write_all(bytes).unwrap();
            }
        }
        writer.finish().unwrap().into_inner()
    }

    fn central(bytes: &[u8]) -> usize {
        bytes
            .windows(4)
            .position(|window| window == b"PK\x01\x02")
            .unwrap()
    }

    /// What a source holds, and its images.
    type Opened = (Contents, Vec<io::Result<Vec<u8>>>);

    fn read(bytes: &[u8]) -> Result<Opened, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.zip");
        std::fs::write(&path, bytes).unwrap();
        let part = open(&path, &Options::default())?;
        let images = part.contents.items.iter().map(|item| {
            let file = item.to_file();
            let image = part.files.read(&file)?;
            assert_eq!(part.files.head(&file, 9)?, image[..9.min(image.len())]);
            Ok(image)
        });
        let images = images.collect();
        Ok((part.contents, images))
    }

    #[test]
    fn names_of_many_folders_cost_little() {
        let long = format!("cat/{}b.jpg", "a/".repeat(2043));
        let longer = format!("cat/{}b.jpg", "a/".repeat(30_000));
        let bytes = archive(&[("cat/a.jpg", b"one"), (&long, b"two"), (&longer, b"three")]);
        let (contents, images) = read(&bytes).unwrap();
        assert_eq!((contents.items.len(), images.len()), (2, 2));
        assert!(
            contents.left_out[0].path.len() < 100,
            "{:?}",
            contents.left_out
        );
        assert!(contents.left_out[0].reason.contains("4096 bytes"));

        let found = |path: &str| Found {
            path: path.to_owned(),
            size: 0,
            fault: None,
            container: 0,
            position: 0,
        };
        let folders = ["", "set/cat/few", "set/dog/x/y", "set/dog/z", "none"].map(str::to_owned);
        let empty = without_image(&folders.into(), &[found("set/cat/a.jpg"), found("b.jpg")]);
        assert_eq!(empty, ["none", "set/cat/few", "set/dog"]);
    }

    #[test]
    fn an_image_folder_is_read() {
        let bytes = archive(&[
            ("data/train/cat/a.jpg", b"one"),
            (
                "data/train/cat/b.jpg",
                b"two two two two two two two two two two",
            ),
            ("data/train/dog/c", JPEG),
            ("data/train/dog/d", JPEG),
            ("data/train/dog/notes", b"a text"),
            ("data/train/dog/film", b"\x1a\x45\xdf\xa3 film"),
            ("__MACOSX/data/train/cat/._a.jpg", b"junk"),
            ("__MACOSX/data/train/cat/._b.jpg", b"junk"),
            ("data/train/bird/", b""),
            ("../x.jpg", b"outside"),
            ("labels.csv", b"path,n\ndata/train/cat/a.jpg,7\n"),
            ("data/val/images/e.jpg", b"four"),
            ("data/val/val_annotations.txt", b"e.jpg\tdog\t0\t0\n"),
        ]);
        let (contents, images) = read(&bytes).unwrap();
        let said: Vec<_> = contents
            .items
            .iter()
            .map(|item| (item.split.as_str(), item.path.as_str(), item.class.clone()))
            .collect();
        let class = |name: &str| Some(Class::Name(name.to_owned()));
        assert_eq!(said.len(), 5, "{said:?}");
        assert_eq!(said[0], ("train", "data/train/cat/a.jpg", class("cat")));
        assert_eq!(said[2], ("train", "data/train/dog/c", class("dog")));
        assert_eq!(said[4], ("val", "data/val/images/e.jpg", class("dog")));
        let images: Vec<_> = images.into_iter().map(Result::unwrap).collect();
        assert_eq!(images[0], b"one");
        assert_eq!(images[1].len(), 39);
        assert_eq!(images[3], JPEG);
        let left_out: Vec<_> = contents
            .left_out
            .iter()
            .map(|note| note.path.as_str())
            .collect();
        assert_eq!(
            left_out,
            ["data/train/dog/film", "../x.jpg", "data/train/bird"]
        );
        let ignored: Vec<_> = contents
            .ignored
            .iter()
            .map(|note| note.path.as_str())
            .collect();
        assert_eq!(ignored[..2], ["data/train/dog/notes", "__MACOSX"]);
        assert_eq!(contents.labels.columns().len(), 2);
    }

    #[test]
    fn what_cannot_be_unpacked_has_a_fault() {
        let mut bytes = archive(&[("cat/a.jpg", b"one"), ("dog/b.jpg", b"two")]);
        let central = central(&bytes);
        bytes[central + 10] = 97;
        let (contents, images) = read(&bytes).unwrap();
        assert!(contents.items[0].fault.as_ref().unwrap().contains("method"));
        assert!(images[0].is_err() && images[1].is_ok());
        bytes[central + 10] = 0;
        bytes[central + 8] |= 1;
        let (contents, images) = read(&bytes).unwrap();
        assert_eq!(contents.items[0].fault.as_deref(), Some("encrypted"));
        assert!(images[0].is_err() && images[1].is_ok());
    }

    #[test]
    fn what_is_cut_short_or_changed_is_refused() {
        let members: [(&str, &[u8]); 4] = [
            ("cat/a.jpg", b"one"),
            ("cat/b.jpg", JPEG),
            ("dog/c.jpg", b"three"),
            ("dog/d.jpg", JPEG),
        ];
        let whole = archive(&members);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..central(&whole) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            let (contents, images) = read(&changed).unwrap();
            assert_eq!(contents.items.len(), 4);
            for ((_, expected), image) in members.iter().zip(images) {
                assert!(image.is_err() || image.unwrap() == *expected, "{at}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_listed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn a_changed_directory_loses_nothing_in_silence() {
        let whole = archive(&[("cat/a.jpg", b"one"), ("dog/b.jpg", JPEG)]);
        let central = central(&whole);
        for at in central..whole.len() {
            let byte = whole[at];
            for value in [
                0,
                1,
                3,
                0x20,
                0xff,
                byte ^ 1,
                byte ^ 0x80,
                byte.wrapping_add(1),
            ] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok((contents, _)) = read(&bytes) {
                    let notes = contents.left_out.len() + contents.ignored.len();
                    let known = contents.items.len() + notes;
                    assert!(known >= 2, "byte {} is {value}: {contents:?}", at - central);
                }
            }
        }
    }
}
