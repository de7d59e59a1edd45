//! The image side of a build: any file is kept, rejected or left out, one of them and no two, by every codec. What is
//! kept can be decoded.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fuzz::{Input, end_at_our_panics, folder, is_small};
use libfuzzer_sys::{Corpus, fuzz_target};
use shardtool::build::{self, Error, OnError, Options};
use shardtool::codec::Decoder;
use shardtool::dataset::{Bound, CodecOptions, EntropyCoding};
use shardtool::planes::{Area, Resolution};
use shardtool::source::Source;
use shardtool::{Codec, Dataset};

/// Names of the one file: some say what it is, and are wrong as a rule.
const NAMES: [&str; 2] = ["x", "x.jpg"];

thread_local! {
    static FOLDER: PathBuf = {
        let folder = folder("convert");
        fs::create_dir_all(&folder).expect("room for a folder");
        folder
    };
}

fuzz_target!(
    init: end_at_our_panics(),
    |bytes: &[u8]| -> Corpus {
        let mut input = Input(bytes);
        let mode = usize::from(input.byte());
        let codecs = codecs();
        let codec = codecs[mode % codecs.len()].clone();
        let name = NAMES[mode / codecs.len() % NAMES.len()];
        let dry_run = !(mode / codecs.len() / NAMES.len()).is_multiple_of(4);
        if !is_small(input.0) {
            return Corpus::Reject;
        }
        FOLDER.with(|folder| {
            for other in NAMES {
                let _ = fs::remove_file(folder.join(other));
            }
            fs::write(folder.join(name), input.0).expect("room for an input");
            let options = Options {
                out: folder.with_extension("shards"),
                codec,
                workers: 1,
                on_error: OnError::Skip,
                dry_run,
                force: true,
                began: SystemTime::UNIX_EPOCH,
            };
            convert(&Source::folder(folder).expect("a folder with a file"), name, &options);
        });
        Corpus::Keep
    }
);

/// All ways of coding, but with rANS: making its tables takes longer than all the rest, and target `rans` has them.
fn codecs() -> [CodecOptions; 5] {
    let options = |name, bound| CodecOptions {
        name,
        level: 1,
        entropy: (name == Codec::Dct).then_some(EntropyCoding::Zstd),
        bound,
        shard_size: 1 << 20,
    };
    let bound = |chroma| Bound {
        short_side: 8,
        quality: 90,
        chroma,
    };
    [
        options(Codec::Dct, None),
        options(Codec::Jpeg, None),
        options(Codec::Raw, None),
        options(Codec::Dct, Some(bound(420))),
        options(Codec::Dct, Some(bound(444))),
    ]
}

/// Builds, and counts what became of the file.
fn convert(source: &Source, name: &str, options: &Options) {
    let listing = source.listing();
    match build::run(source, options, &mut |_| {}) {
        Ok(outcome) => {
            let report = outcome.report;
            let others = report.rejected.len() + report.left_out.len() + report.ignored.len();
            assert_eq!((report.kept, others), (1, 0), "{report:?}");
            assert!(outcome.payload_bytes > 0);
            if !options.dry_run {
                decode(&options.out);
            }
        }
        Err(Error::NoneKept { found, first, .. }) => {
            assert_eq!((found, first.path.as_str()), (1, name));
            assert!(listing.left_out.is_empty() && listing.ignored.is_empty());
        }
        Err(Error::AllLeftOut { found, first, .. }) => {
            assert_eq!((found, first.path.as_str()), (1, name));
            assert!(listing.ignored.is_empty());
        }
        Err(Error::NoImages(_)) => assert_eq!(listing.ignored.len(), 1),
        Err(error) => panic!("{error}"),
    }
}

/// Decodes the one image of a dataset as the loader does.
fn decode(dataset: &Path) {
    let dataset = Dataset::open(dataset).expect("just built");
    let sample = dataset.split("train").expect("the only one").sample(0);
    let entry = sample.entry();
    let whole = Area::whole((entry.stored_width, entry.stored_height));
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
    let payload = sample.read(&mut buffer).expect("just written");
    let decoded = decoder.decode(&payload, whole, Resolution::Full);
    assert!(decoded.is_ok(), "{:?}", decoded.err());
}
