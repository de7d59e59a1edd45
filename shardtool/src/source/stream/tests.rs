use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, bytes) in members {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Members = Vec<(String, Vec<u8>)>;

/// Reads all members; an error is the one that ended the stream.
fn read(reader: impl Read) -> Result<Members, Error> {
    let mut stream = TarStream::new(reader, Path::new("-"));
    let mut members = Vec::new();
    while let Some(member) = stream.next_member() {
        match member {
            Ok(member) => members.push(member),
            Err(error) if stream.has_ended() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(members)
}

fn sample() -> Vec<u8> {
    let long = format!("{}.txt", "long/".repeat(40));
    let inner = archive(&[("1.jpg", b"one"), ("2.jpg", &[0; 600])]);
    archive(&[("a.tar", &inner), (&long, b"text"), ("b/3.jpg", b"")])
}

#[test]
fn members_come_in_order_whether_packed_or_not() {
    let plain = read(&sample()[..]).unwrap();
    let names: Vec<&str> = plain.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names.len(), 4);
    assert_eq!(
        [names[0], names[1], names[3]],
        ["a/1.jpg", "a/2.jpg", "b/3.jpg"]
    );
    assert_eq!(plain[0].1, b"one");
    assert_eq!(plain[1].1, [0; 600]);
    let sample = sample();
    let packed = [gzip(&sample[..1000]), gzip(&sample[1000..])].concat();
    assert_eq!(read(unpacked(&packed[..]).unwrap()).unwrap(), plain);
    assert_eq!(read(unpacked(&sample[..]).unwrap()).unwrap(), plain);
}

#[test]
fn no_cut_is_quiet() {
    let whole = sample();
    let expected = read(&whole[..]).unwrap();
    let last = whole.iter().rposition(|&byte| byte != 0).unwrap();
    for length in 0..whole.len() {
        if let Ok(members) = read(&whole[..length]) {
            assert!(length > last, "cut at {length}");
            assert_eq!(members, expected);
        }
    }
    let packed = gzip(&whole);
    for length in 0..packed.len() {
        let reader = unpacked(&packed[..length]).unwrap();
        assert!(read(reader).is_err(), "cut at {length}");
    }
}

#[test]
fn a_member_that_cannot_be_used_does_not_end_the_stream() {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "a.jpg", "b.jpg").unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(512);
    bytes.extend(archive(&[("b.jpg", b"b")]));
    let mut stream = TarStream::new(&bytes[..], Path::new("-"));
    let error = stream.next_member().unwrap().unwrap_err().to_string();
    assert_eq!(
        error,
        "-/a.jpg: a link to \"b.jpg\", which a stream cannot go back to"
    );
    assert_eq!(stream.next_member().unwrap().unwrap().0, "b.jpg");
    assert!(stream.next_member().is_none() && stream.has_ended());
}

#[test]
fn a_member_may_not_be_larger_than_memory() {
    let mut header = Header::new_gnu();
    header.set_path("a.jpg").unwrap();
    header.set_size(MOST + 1);
    header.set_cksum();
    let zeros = io::repeat(0).take((MOST + 1).next_multiple_of(512));
    let behind = archive(&[("b.jpg", b"b")]);
    let mut stream = TarStream::new(
        header.as_bytes().chain(zeros).chain(&behind[..]),
        Path::new("-"),
    );
    let error = stream.next_member().unwrap().unwrap_err().to_string();
    assert_eq!(error, "-/a.jpg: 1073741825 bytes, the limit is 1073741824");
    assert_eq!(stream.next_member().unwrap().unwrap().0, "b.jpg");
}

proptest! {
    #[test]
    fn any_bytes_do(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        is_archive in any::<bool>(),
        is_packed in any::<bool>(),
    ) {
        if is_archive {
            bytes = if is_packed { gzip(&sample()) } else { sample() };
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let _ = unpacked(&bytes[..]).map(read);
    }
}
