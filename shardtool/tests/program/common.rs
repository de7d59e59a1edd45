//! What the integration tests share: images made on the spot, and the program run as users do.

use shardtool::Sample;
use shardtool::codec::{Decoder, Picture, RgbView};
use shardtool::planes::{Area, Resolution};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A source folder made for the tests, committed with the dataset built from it.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// JPEG files of every kind, committed.
pub fn jpegs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg")
}

/// A picture unlike that of any other seed.
pub fn picture(width: u32, height: u32, seed: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        let wave = |k: u32| ((x * (k + seed) + y * (7 - k)) % 256) as u8;
        image::Rgb([wave(1), wave(2), (seed * 37 % 256) as u8])
    })
}

/// A picture in the bytes of a file format.
pub fn encoded(width: u32, height: u32, seed: u32, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(width, height, seed)
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

/// A picture as a JPEG file.
pub fn jpeg(seed: u32) -> Vec<u8> {
    encoded(
        20 + seed % 13,
        30 + seed % 7,
        seed,
        image::ImageFormat::Jpeg,
    )
}

/// All pixels of a `jpeg` or `raw` sample.
pub fn pixels_of<'a>(decoder: &'a mut Decoder, sample: &Sample<'_>) -> RgbView<'a> {
    let entry = sample.entry();
    let size = (entry.stored_width, entry.stored_height);
    let area = Area::whole(size);
    match decoder
        .decode(
            &sample.read(&mut Vec::new()).unwrap(),
            area,
            Resolution::Full,
        )
        .unwrap()
    {
        Picture::Rgb(view) => view,
        Picture::Planes(_) => panic!("{:?} is stored as coefficients", sample.name()),
    }
}

/// Writes a file and the directories above it.
pub fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Writes numbered images of three classes, in the given order.
pub fn write_classes(root: &Path, order: impl Iterator<Item = u32>) {
    for i in order {
        let path = format!("{}/{i:03}.JPEG", ["b", "a", "a-b"][i as usize % 3]);
        write(root, &path, &jpeg(i));
    }
}

/// Runs the program in a directory.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardtool"));
    command.current_dir(dir).args(args).output().unwrap()
}

/// Runs the program, checks its exit code and returns stdout and stderr.
#[track_caller]
pub fn expect(code: i32, dir: &Path, args: &[&str]) -> (String, String) {
    let output = run(dir, args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}\n{stdout}\n{stderr}"
    );
    (stdout, stderr)
}

/// Names and bytes of the files in a directory, sorted.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}
