//! FORMAT.md and PIXELS.md are enough: a reader that a stranger could have written from them, `tests/read_shards.py`,
//! agrees with shardtool on the golden datasets, coefficients and samples included, and with the loader on pixels. It
//! reports damage.
//!
//! Needs Python 3 with `zstandard` and `xxhash`, which `make python` installs; skipped, loudly, where they are absent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use loader::crop::CropBox;
use loader::render::{Renderer, View};
use serde_json::{Map, Value, json};
use shardtool::codec::{Decoder, Picture};
use shardtool::format::{Label, checksum};
use shardtool::planes::{Area, Resolution};
use shardtool::{Codec, Dataset, Sample};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a member lies in the workspace")
}

fn golden() -> PathBuf {
    workspace().join("tests/golden/dataset")
}

/// Runs the reader, or says why it cannot run.
fn read(dataset: &Path) -> Result<Output, String> {
    read_at(dataset, Resolution::Full)
}

/// The same at a resolution.
fn read_at(dataset: &Path, resolution: Resolution) -> Result<Output, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), PathBuf::from);
    let output = Command::new("python3")
        .arg(workspace().join("tests/read_shards.py"))
        .arg(dataset)
        .args(match resolution {
            Resolution::Full => None,
            Resolution::Fit { side, .. } => Some(side.to_string()),
        })
        .env("PYTHONPATH", target.join("python"))
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    match output.status.code() {
        Some(2) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        _ => Ok(output),
    }
}

/// True if the reader runs here; otherwise says loudly that the test is skipped.
fn available() -> bool {
    match read(&golden()) {
        Ok(_) => true,
        Err(why)
            if why.contains("is missing")
                || why.contains("No such file or directory (os error 2)") =>
        {
            eprintln!("SKIPPED: the Python reader was not run: {why}");
            false
        }
        Err(why) => panic!("the Python reader could not run: {why}"),
    }
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("JSON is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

/// A sample's line as shardtool would have written it, without the SHA-256.
fn expected(dataset: &Dataset, split: &str, number: u64, sample: Sample<'_>) -> Value {
    sample.payload().expect("the golden dataset is whole");
    let entry = sample.entry();
    let manifest = dataset.manifest();
    let labels: Map<String, Value> = manifest
        .labels
        .iter()
        .map(|column| {
            let value = match sample.label(&column.name) {
                None => Value::Null,
                Some(Label::Int(value)) => json!(value),
                Some(Label::Float(value)) => json!(value),
                Some(Label::Text(value)) => json!(value),
            };
            (column.name.clone(), value)
        })
        .collect();
    json!([
        split,
        number,
        sample.name(),
        entry.class.map(|class| &manifest.classes[class as usize]),
        [entry.source_width, entry.source_height],
        [entry.stored_width, entry.stored_height],
        entry.codec.name(),
        entry.orientation,
        labels,
        "ok",
        format!("{:016x}", entry.checksum),
    ])
}

/// Returns the checksum of the loader's square of a part of a sample, as the Python reader cuts it.
fn square(
    renderer: &mut Renderer,
    number: u64,
    sample: Sample<'_>,
    resolution: Resolution,
) -> String {
    let entry = sample.entry();
    let source = (entry.source_width, entry.source_height);
    let crop = CropBox {
        left: source.0 / 5,
        top: source.1 / 7,
        width: (source.0 * 3 / 5).max(1),
        height: (source.1 * 2 / 3).max(1),
    };
    let side = match resolution {
        Resolution::Full => 5,
        Resolution::Fit { side, .. } => side,
    };
    let view = View {
        area: crop.on_grid(source, (entry.stored_width, entry.stored_height)),
        surround: false,
        resolution,
        side,
        mirror: number % 2 == 1,
    };
    let mut planes = vec![0; 3 * (side * side) as usize];
    renderer
        .render(&sample, view, &mut planes)
        .expect("the golden dataset is whole");
    format!("{:016x}", checksum(&planes))
}

/// Checksums of a `dct` sample's coefficients and of its samples, of bytes as the Python reader lays them out.
fn contents(decoder: &mut Decoder, sample: Sample<'_>, resolution: Resolution) -> [String; 2] {
    let (mut coefficients, mut buffer) = (Vec::new(), Vec::new());
    let payload = sample
        .read(&mut buffer)
        .expect("the golden dataset is whole");
    let stored = decoder.coefficients(&payload).expect("coefficients");
    for component in &stored.components {
        coefficients.extend([component.h, component.v]);
        let steps = component.quantization.iter();
        coefficients.extend(steps.flat_map(|step| step.to_le_bytes()));
        coefficients.extend(
            component
                .blocks
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        );
    }
    let whole = Area::whole((stored.width, stored.height));
    let picture = decoder.decode(&payload, whole, resolution);
    let Picture::Planes(planes) = picture.expect("planes") else {
        panic!("coefficients decode to planes");
    };
    let mut samples = Vec::new();
    for plane in &planes.planes[..planes.colour.planes()] {
        let rows = plane.samples.chunks(plane.stride).take(plane.rows);
        samples.extend(rows.flat_map(|row| &row[..plane.columns]));
    }
    [coefficients, samples].map(|bytes| format!("{:016x}", checksum(&bytes)))
}

/// Compares what the two readers make of a dataset.
fn compare(path: &Path, resolution: Resolution) {
    let output = read_at(path, resolution).expect("it ran a moment ago");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut found = lines(&output);
    for line in &mut found {
        let line = line.as_array_mut().expect("each line is a list");
        let sha256 = line.remove(11);
        assert_eq!(sha256.as_str().map(str::len), Some(64));
    }
    let dataset = Dataset::open(path).expect("the dataset opens");
    let mut decoder = Decoder::new();
    let mut renderer = Renderer::new();
    let mut wanted = Vec::new();
    for split in dataset.splits() {
        for number in 0..split.len() {
            let sample = split.sample(number);
            let mut line = expected(&dataset, split.name(), number, sample);
            if sample.entry().codec == Codec::Dct {
                let contents = contents(&mut decoder, sample, resolution);
                let line = line.as_array_mut().expect("a list");
                line.extend(contents.map(Value::from));
                line.push(square(&mut renderer, number, sample, resolution).into());
            }
            wanted.push(line);
        }
    }
    assert!(wanted.len() >= 5);
    assert_eq!(found, wanted);
}

#[test]
fn python_and_shardtool_read_the_same() {
    if !available() {
        return;
    }
    compare(&golden(), Resolution::Full);
    let dct = workspace().join("tests/golden/dct");
    compare(&dct, Resolution::Full);
    for side in [3, 7, 19, 31] {
        // The margin that the page names.
        compare(&dct, Resolution::Fit { side, margin: 1.2 });
    }
    // With zstd for rANS, of which no bytes are kept.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let built = dir.path().join("zstd");
    let source = workspace().join("shardtool/tests/fixtures/jpeg");
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    for level in ["0", "3"] {
        let arguments = ["build", &path(&source), "--out", &path(&built), "--force"];
        let options = ["--entropy", "zstd", "--level", level];
        let output = tests::run("shardtool", &[&arguments[..], &options].concat());
        assert_eq!(output.status.code(), Some(1), "some kinds are rejected");
        compare(&built, Resolution::Full);
    }
}

/// A copy of a dataset in which the byte at `offset` of one shard differs.
fn damaged(dataset: &Path, file: &str, offset: usize) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for entry in fs::read_dir(dataset).expect("the golden dataset") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, copy.path().join(path.file_name().expect("a file"))).expect("a copy");
    }
    let path = copy.path().join(file);
    let mut bytes = fs::read(&path).expect("the shard");
    bytes[offset] ^= 0x10;
    fs::write(&path, bytes).expect("the damaged shard");
    copy
}

#[test]
fn python_reports_a_flipped_byte() {
    if !available() {
        return;
    }
    let file = "train-00001.shard";
    let whole = lines(&read(&golden()).expect("it ran a moment ago"));
    let size = fs::metadata(golden().join(file)).expect("the shard").len() as usize;
    // Magic, version, reserved, header checksum, and the last byte of the index: the shard is refused.
    for offset in [0, 9, 70, 90, size - 1] {
        let copy = damaged(&golden(), file, offset);
        let output = read(copy.path()).expect("it ran a moment ago");
        assert_eq!(output.status.code(), Some(1), "byte {offset}");
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            reason.contains(file) && reason.lines().count() == 1,
            "byte {offset}: {reason}"
        );
        assert_eq!(
            lines(&output),
            [&whole[..1], &whole[3..]].concat(),
            "byte {offset}"
        );
        assert!(Dataset::open(copy.path()).is_err(), "byte {offset}");
    }
    // Inside the first payload: that sample alone is damaged, and shardtool says so too.
    let copy = damaged(&golden(), file, 100);
    let output = read(copy.path()).expect("it ran a moment ago");
    assert_eq!(output.status.code(), Some(1));
    let states: Vec<_> = lines(&output).iter().map(|line| line[9].clone()).collect();
    assert_eq!(states, ["ok", "damaged", "ok", "ok", "ok"]);
    let dataset = Dataset::open(copy.path()).expect("payloads are not checked at open");
    let split = dataset.split("train").expect("the golden dataset has it");
    let faults: Vec<_> = (0..split.len())
        .map(|number| split.sample(number).payload().is_err())
        .collect();
    assert_eq!(faults, [false, true, false, false]);
}

#[test]
fn python_reports_damaged_tables_and_coefficients() {
    if !available() {
        return;
    }
    let dct = workspace().join("tests/golden/dct");
    let file = "train-00000.shard";
    let dataset = Dataset::open(&dct).expect("the golden dataset opens");
    let shard = &dataset.split("train").expect("the split").shards()[0];
    let entry = shard.entry(0);
    // In the tables: the shard is refused.
    for offset in [96, entry.offset as usize - 1] {
        let copy = damaged(&dct, file, offset);
        let output = read(copy.path()).expect("it ran a moment ago");
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(reason.contains("codec data checksum"), "{reason}");
        assert_eq!(
            lines(&output).len() as u64,
            dataset.splits()[0].len() - u64::from(shard.len())
        );
        assert!(Dataset::open(copy.path()).is_err());
    }
    let last = entry.offset as usize + entry.length as usize - 1;
    let copy = damaged(&dct, file, last);
    let output = read(copy.path()).expect("it ran a moment ago");
    assert_eq!(output.status.code(), Some(1));
    let states: Vec<_> = lines(&output).iter().map(|line| line[9].clone()).collect();
    let wanted = (0..states.len()).map(|id| if id == 0 { "damaged" } else { "ok" });
    assert!(states.iter().eq(wanted), "{states:?}");
}
