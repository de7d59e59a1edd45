//! A small data set of JPEG images of different sizes in two classes.

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use shardtool::Codec;
use shardtool::dataset::{
    CodecOptions, MANIFEST_FILE, Manifest, Order, ShardRecord, SourceRecord, SplitRecord,
};
use shardtool::format::{NewSample, ShardWriter};

/// Samples of the data set.
pub const SAMPLES: u64 = 24;

/// Writes the data set into `directory`.
pub fn write_dataset(directory: &Path) {
    let path = directory.join("train-00000.shard");
    let mut writer = ShardWriter::create(&path, &[], &[]).unwrap();
    for number in 0..SAMPLES as u32 {
        let (width, height) = (70 + 3 * number, 120 - 2 * number);
        let pixels: Vec<u8> = (0..width * height * 3)
            .map(|byte| (byte * 7 + byte / (3 * width) * (number + 1)) as u8 ^ (number * 11) as u8)
            .collect();
        let mut payload = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut payload, 90);
        encoder
            .encode(&pixels, width, height, image::ExtendedColorType::Rgb8)
            .unwrap();
        let sample = NewSample {
            payload: &payload,
            codec: Codec::Jpeg,
            stored: (width, height),
            source: (width, height),
            class: Some(number % 2),
            orientation: 1,
            labels: &[],
        };
        writer.append(&sample).unwrap();
    }
    let written = writer.finish().unwrap();
    let shard = ShardRecord {
        file: "train-00000.shard".to_owned(),
        samples: written.samples,
        bytes: written.bytes,
        checksum: written.checksum,
    };
    let split = SplitRecord {
        name: "train".to_owned(),
        samples: SAMPLES,
        shards: vec![shard],
    };
    let source = SourceRecord {
        name: "generated".to_owned(),
        files: SAMPLES,
        bytes: 0,
        listing: 0,
    };
    let codec = CodecOptions {
        name: Codec::Jpeg,
        level: 0,
        entropy: None,
        bound: None,
        shard_size: 1 << 28,
    };
    let classes = vec!["even".to_owned(), "odd".to_owned()];
    let manifest = Manifest::new(
        source,
        codec,
        Order::Sorted,
        classes,
        Vec::new(),
        vec![split],
    );
    std::fs::write(directory.join(MANIFEST_FILE), manifest.to_json()).unwrap();
}
