//! Makes the seed corpus and `tables.bin` from the fixtures and golden files of the repository: `make fuzz-seeds`.

mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use exchange::model::ModelConfig;
use exchange::official::archive;
use exchange::official::pickle::{Dtype, Key, Node};
use exchange::official::zip::{self, ZipWriter};
use exchange::parameters::{self, Parameter};
use fuzz::Input;
use shardtool::Codec;
use shardtool::dct::coefficients::Coefficients;
use shardtool::dct::encode::{Coding, Encoder, Statistics};
use shardtool::dct::payload::Head;
use shardtool::dct::tables::Tables;
use shardtool::format::{Label, LabelType, NewSample, ShardWriter};
use shardtool::rans::{self, EncodeTable};
use shardtool::simd::Simd;
use shardtool::turbo::Reader;

/// Parts of an image and resolutions, as [`fuzz::Input::view`] reads them.
const VIEWS: [[u8; 5]; 3] = [
    [0, 255, 0, 255, 0],
    [30, 200, 90, 120, 8],
    [100, 60, 10, 255, 3],
];

/// Largest fixture that becomes a seed as it is.
const MOST_JPEG: usize = 4096;

fn main() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = fuzz.parent().expect("the repository");
    let fixtures = files(&repository.join("shardtool/tests/fixtures/jpeg"), "jpg");
    let images: Vec<(String, Vec<u8>, Coefficients)> = fixtures
        .iter()
        .filter_map(|path| {
            let jpeg = fs::read(path).expect("a fixture");
            let mut image = Coefficients::empty();
            Reader::new().read_coefficients(&jpeg, &mut image).ok()?;
            Some((stem(path), jpeg, image))
        })
        .collect();

    let mut encoder = Encoder::new(Simd::best());
    let mut statistics = Statistics::default();
    for (.., image) in &images {
        encoder
            .count(image, &mut statistics)
            .expect("coefficients of 8 bits");
    }
    let frequencies = statistics.frequencies();
    let tables = Tables::write(&frequencies);
    fs::write(fuzz.join("tables.bin"), &tables).expect("room for the tables");
    let coder =
        |frequencies: &rans::Frequencies| EncodeTable::new(frequencies).expect("good frequencies");
    let rans = Coding::Rans(frequencies.iter().map(coder).collect());
    let mut encode = |image: &Coefficients, coding: &Coding| {
        let mut payload = Vec::new();
        encoder
            .encode(image, coding, &mut payload)
            .expect("counted above");
        payload
    };

    let (dct, streams) = (Corpus::new(fuzz, "dct"), Corpus::new(fuzz, "streams"));
    for (number, (name, _, image)) in images.iter().enumerate() {
        let view = VIEWS[number % VIEWS.len()];
        let [wide, high] = [image.width, image.height].map(|side| (side as u16 - 1).to_le_bytes());
        let prefix = [&wide[..], &high, &view].concat();
        dct.write(&format!("rans-{name}"), &[&prefix, &encode(image, &rans)]);
        let payload = encode(image, &Coding::Zstd(3));
        dct.write(&format!("zstd-{name}"), &[&prefix, &payload]);
        let (head, frames) = Head::parse(&payload, image.width, image.height).expect("our own");
        let bare = &payload[..payload.len() - frames.len()];
        let mut plain = Vec::new();
        let mut rest = frames;
        for length in head.frames {
            let (frame, behind) = rest.split_at(length);
            plain.extend(zstd::bulk::decompress(frame, 1 << 20).expect("our own"));
            rest = behind;
        }
        streams.write(name, &[&prefix, bare, &plain]);
    }

    let corpus = Corpus::new(fuzz, "rans");
    for (number, (_, jpeg, _)) in images.iter().enumerate().take(4) {
        // Two tables as the target reads them, four lengths, and a run that fits them.
        let mut input = Vec::new();
        let coders: [EncodeTable; 2] = [1, 0].map(|every| {
            let mut table = vec![every, 15];
            for byte in 0..15u8 {
                table.push(byte.wrapping_mul(17 + number as u8));
                table.extend((20 * u16::from(byte)).to_le_bytes());
            }
            input.extend(&table);
            coder(&Input(&table).frequencies())
        });
        let lengths = [64, 100, 1000, 130];
        input.extend(lengths.iter().flat_map(|length: &u16| length.to_le_bytes()));
        let symbol = |byte: &u8| (1 + byte % 14).wrapping_mul(17 + number as u8);
        let symbols: Vec<u8> = jpeg.iter().cycle().map(symbol).take(1294).collect();
        let mut rest = &symbols[..];
        let segments: Vec<(&EncodeTable, &[u8])> = (0..)
            .zip(lengths)
            .map(|(number, length)| {
                let (segment, behind) = rest.split_at(usize::from(length));
                rest = behind;
                (&coders[number % 2], segment)
            })
            .collect();
        let mut run = Vec::new();
        rans::Encoder::new(Simd::Scalar)
            .encode(&segments, &mut run)
            .expect("symbols of the tables");
        corpus.write(&number.to_string(), &[&input, &run]);
    }

    let corpus = Corpus::new(fuzz, "raw");
    let pixels: Vec<u8> = (0..3 * 20 * 10).map(|byte| (byte * 7) as u8).collect();
    let size = [19, 0, 9, 0];
    let packed = zstd::bulk::compress(&pixels, 3).expect("memory into memory");
    corpus.write("packed", &[&size, &packed]);
    corpus.write("plain", &[&size, &frame(&pixels)]);

    let corpus = Corpus::new(fuzz, "shard");
    let golden = repository.join("tests/golden/dataset");
    for shard in files(&golden, "shard") {
        corpus.write(&stem(&shard), &[&fs::read(shard).expect("a shard")]);
    }
    let (_, jpeg, image) = images
        .iter()
        .find(|(name, ..)| name == "17x13")
        .expect("a small one");
    let size = (image.width, image.height);
    let raw = frame(&vec![90; 3 * (size.0 * size.1) as usize]);
    let payloads = [
        (Codec::Jpeg, jpeg.clone()),
        (Codec::Raw, raw),
        (Codec::Dct, encode(image, &rans)),
        (Codec::Dct, encode(image, &Coding::Zstd(3))),
    ];
    corpus.write(
        "all",
        &[&shard(&corpus.0.join("all"), size, &tables, &payloads)],
    );

    let corpus = Corpus::new(fuzz, "official");
    let file = fs::read(repository.join("trainer/exchange/tests/official/tiny.pth.tar"))
        .expect("the fixture");
    let entries = zip::read(&file).expect("a good one");
    let pickle = entries
        .iter()
        .find(|entry| entry.name.ends_with("/data.pkl"));
    corpus.write(
        "pickle",
        &[b"p", pickle.expect("as in all of them").content],
    );
    let mut small = vec![b'a'];
    let storages = [[0; 8]; 6];
    let storages = storages.iter().map(|bytes| bytes.as_slice().into());
    archive::write(ZipWriter::new(&mut small), "x", &checkpoint(), storages)
        .expect("room in memory");
    corpus.write("archive", &[&small]);
    let model = ModelConfig::preset("vit_tiny", 32, 8, 48, 1).expect("an official one");
    let networks = [
        ("encoder.module.", parameters::encoder(&model)),
        ("predictor.", parameters::predictor(&model)),
    ];
    let mut lines = String::from("n");
    for (prefix, parameters) in networks {
        for Parameter { name, shape } in parameters {
            let lengths = shape.iter().map(|length| format!(" {length}"));
            lines += &format!("{prefix}{name}{}\n", lengths.collect::<String>());
        }
    }
    corpus.write("names", &[lines.as_bytes()]);

    let corpus = Corpus::new(fuzz, "sources");
    for (name, bytes) in sources::sources() {
        corpus.write(name, &[&bytes]);
    }

    let corpus = Corpus::new(fuzz, "convert");
    for (number, (name, bytes)) in (0..).zip(sources::images()) {
        corpus.write(name, &[&[number], &bytes]);
    }
    for (number, path) in (0..).zip(fixtures) {
        let jpeg = fs::read(&path).expect("a fixture");
        if jpeg.len() <= MOST_JPEG {
            corpus.write(&stem(&path), &[&[number], &jpeg]);
        }
    }
}

/// Returns the least that has all parts of an official checkpoint.
fn checkpoint() -> Node {
    let tensor = |storage| Node::Tensor {
        storage,
        dtype: Dtype::F32,
        shape: vec![1, 2],
    };
    let network = |storage| Node::Ordered(vec![("norm.any".into(), tensor(storage))]);
    let moments = Node::Dict(vec![
        ("step".into(), Node::Float(1.0)),
        ("exp_avg".into(), tensor(3)),
        ("exp_avg_sq".into(), tensor(4)),
    ]);
    let group = Node::Dict(vec![
        (
            "betas".into(),
            Node::Tuple(vec![Node::Float(0.9), Node::Float(0.999)]),
        ),
        ("eps".into(), Node::Float(1e-8)),
        ("params".into(), Node::List(vec![Node::Int(0)])),
    ]);
    let opt = vec![
        ("state".into(), Node::Dict(vec![(Key::Int(0), moments)])),
        ("param_groups".into(), Node::List(vec![group])),
    ];
    Node::Dict(vec![
        ("encoder".into(), network(0)),
        ("predictor".into(), network(1)),
        ("target_encoder".into(), network(2)),
        ("opt".into(), Node::Dict(opt)),
        ("epoch".into(), Node::Int(1)),
    ])
}

/// Returns a shard of these payloads whose index is not compressed, so that a fuzzer can change it.
fn shard(path: &Path, size: (u32, u32), tables: &[u8], payloads: &[(Codec, Vec<u8>)]) -> Vec<u8> {
    let columns = [
        ("path", LabelType::Utf8),
        ("count", LabelType::Int64),
        ("far", LabelType::Float64),
    ];
    let mut writer = ShardWriter::create(path, &columns, tables).expect("a new file");
    for (number, (codec, payload)) in payloads.iter().enumerate() {
        let name = format!("some/{number}.jpg");
        let labels = [
            Some(Label::Text(&name)),
            Some(Label::Int(number as i64)),
            None,
        ];
        let sample = NewSample {
            payload,
            codec: *codec,
            stored: size,
            source: size,
            class: Some(number as u32),
            orientation: 1,
            labels: &labels,
        };
        writer.append(&sample).expect("room in the file");
    }
    writer.finish().expect("room in the file");
    let mut bytes = fs::read(path).expect("just written");
    let at =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    let (offset, raw) = (at(&bytes, 32) as usize, at(&bytes, 48) as usize);
    let index = zstd::bulk::decompress(&bytes[offset..], raw).expect("our own");
    bytes.truncate(offset);
    bytes.extend(frame(&index));
    let length = bytes.len() - offset;
    bytes[40..48].copy_from_slice(&(length as u64).to_le_bytes());
    bytes
}

/// Returns a zstd frame whose one block is not compressed.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u32;
    let block = 1 | length << 3;
    let parts = [
        &0xfd2f_b528_u32.to_le_bytes()[..],
        &[0xa0],
        &length.to_le_bytes(),
        &block.to_le_bytes()[..3],
        bytes,
    ];
    parts.concat()
}

/// The seeds of a target.
struct Corpus(PathBuf);

impl Corpus {
    fn new(fuzz: &Path, target: &str) -> Corpus {
        let folder = fuzz.join("corpus").join(target);
        fs::create_dir_all(&folder).expect("a folder");
        Corpus(folder)
    }

    fn write(&self, name: &str, parts: &[&[u8]]) {
        fs::write(self.0.join(name), parts.concat()).expect("room for a seed");
    }
}

/// Returns the files of a folder with this ending, by name.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}
