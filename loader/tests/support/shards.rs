//! Shards of made-up images, written without the encoders.

use std::path::Path;

use shardtool::Codec;
use shardtool::dataset::{
    CodecOptions, MANIFEST_FILE, Manifest, Order, ShardRecord, SourceRecord, SplitRecord,
};
use shardtool::dct::coefficients::{BLOCK, blocks_along};
use shardtool::dct::payload::{ComponentHead, Entropy, Head};
use shardtool::dct::streams::{STREAMS, stream};
use shardtool::dct::tables::Tables;
use shardtool::format::{NewSample, ShardWriter};
use shardtool::planes::Colour;
use shardtool::rans::{EncodeTable, Encoder, Frequencies, normalize};
use shardtool::simd::Simd;

/// Returns the only table: small values are frequent, any other is possible.
pub fn frequencies() -> Frequencies {
    normalize(&std::array::from_fn(|value| 4096 >> value.min(12)), true)
}

/// Returns a `dct` payload whose coefficients become fewer from frequency to frequency, as those of photographs do.
pub fn dct(width: u32, height: u32, factors: &[(u8, u8)], seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(0x915f_77f5).wrapping_add(0x3c6e_f35f);
        (state >> 16) % below
    };
    let (h, v) = factors[0];
    let mut streams = Vec::new();
    let mut heads = Vec::new();
    for &factors in factors {
        let blocks_wide = blocks_along(width, factors.0, h);
        let blocks_high = blocks_along(height, factors.1, v);
        let blocks = blocks_wide * blocks_high;
        let mut all: [Vec<u8>; STREAMS] = Default::default();
        all[stream::DC_LOW] = (0..blocks).map(|_| draw(6) as u8).collect();
        all[stream::DC_HIGH] = vec![0; blocks];
        for u in 0..8 {
            for block in 0..blocks {
                let bits = (draw(256) & draw(256)) as u8 >> u;
                let mask = if u == 0 { bits & !1 } else { bits };
                all[stream::masks(u)].push(mask);
                let values = (0..mask.count_ones()).map(|_| 1 + draw(3) as u8);
                all[stream::values(u)].extend(values);
                if u == 1 && mask & 1 == 1 && block % 50 == 0 {
                    all[stream::ESCAPE_STEPS].push(0);
                    all[stream::ESCAPE_PLACES].push(8);
                    all[stream::ESCAPE_HIGHS].push(1);
                }
            }
        }
        heads.push(ComponentHead {
            h: factors.0,
            v: factors.1,
            blocks_wide,
            blocks_high,
            quantization: [3; BLOCK],
            // Little, so that planes may be coarse.
            detail: [[200; 6]; 2],
            lengths: std::array::from_fn(|number| all[number].len()),
            tables: [0; STREAMS],
        });
        streams.push(all);
    }
    let colour = match factors.len() {
        1 => Colour::Gray,
        _ => Colour::YCbCr,
    };
    let head = Head::new(Entropy::Rans, colour, &heads);
    let mut payload = Vec::new();
    head.write(&mut payload);
    let table = EncodeTable::new(&frequencies()).unwrap();
    let segments: Vec<(&EncodeTable, &[u8])> = head
        .order()
        .map(|(_, component, number)| (&table, &streams[component][number][..]))
        .collect();
    let mut encoder = Encoder::new(Simd::best());
    encoder.encode(&segments, &mut payload).unwrap();
    payload
}

/// Returns a `raw` payload.
pub fn raw(width: u32, height: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..3 * width * height)
        .map(|byte| (byte * 7 + byte / (3 * width) * 5) as u8)
        .collect();
    zstd::bulk::compress(&pixels, 1).unwrap()
}

/// Returns the text of a configuration for small crops, in groups of `group` images, with these further keys.
pub fn config(group: u64, data: &str, loader: &str, rest: &str) -> String {
    format!(
        "data: {{batch_size: {group}, crop_size: 64, {data}}}\n\
         mask: {{patch_size: 8, min_keep: 4}}\n\
         loader: {{{loader}}}\n{rest}"
    )
}

/// Writes a data set of one split, `train`, of these payloads with the sizes of their images.
pub fn dataset(directory: &Path, payloads: &[(Codec, (u32, u32), Vec<u8>)]) {
    let path = directory.join("train-00000.shard");
    let mut writer = ShardWriter::create(&path, &[], &Tables::write(&[frequencies()])).unwrap();
    for (codec, size, payload) in payloads {
        let sample = NewSample {
            payload,
            codec: *codec,
            stored: *size,
            source: *size,
            class: Some(0),
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
        samples: payloads.len() as u64,
        shards: vec![shard],
    };
    let source = SourceRecord {
        name: "generated".to_owned(),
        files: payloads.len() as u64,
        bytes: 0,
        listing: 0,
    };
    let codec = CodecOptions {
        name: Codec::Dct,
        level: 3,
        entropy: None,
        bound: None,
        shard_size: 1 << 28,
    };
    let manifest = Manifest::new(
        source,
        codec,
        Order::Sorted,
        vec!["one".to_owned()],
        Vec::new(),
        vec![split],
    );
    std::fs::write(directory.join(MANIFEST_FILE), manifest.to_json()).unwrap();
}
