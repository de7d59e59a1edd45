//! Memory per worker is fixed at its start, and bytes from outside cannot make it more.

#![cfg(feature = "serve")]

mod support;

use loader::config::Fidelity;
use loader::render::{Renderer, View};
use shardtool::codec::{Decoder, Largest};
use shardtool::planes::{Area, Resolution};
use shardtool::{Codec, Dataset};

use support::{counting, shards};

const SIDE: u32 = 224;

/// Images of many sizes, samplings and codecs, but for `jpeg`, whose decoder allocates for itself.
fn payloads() -> Vec<(Codec, (u32, u32), Vec<u8>)> {
    let samplings: [&[(u8, u8)]; 4] = [
        &[(2, 2), (1, 1), (1, 1)],
        &[(1, 1); 3],
        &[(2, 1), (1, 1), (1, 1)],
        &[(1, 1)],
    ];
    let sizes = [
        (500, 375),
        (9, 700),
        (640, 480),
        (1, 1),
        (375, 500),
        (2500, 40),
    ];
    let mut payloads = Vec::new();
    for (number, (width, height)) in (0..).zip(sizes) {
        for sampling in samplings {
            let payload = shards::dct(width, height, sampling, number);
            payloads.push((Codec::Dct, (width, height), payload));
        }
        payloads.push((Codec::Raw, (width, height), shards::raw(width, height)));
    }
    payloads
}

/// Views of an image of this size: all of it, parts, very small ones.
fn views(size: (u32, u32)) -> impl Iterator<Item = View> {
    let whole = Area::whole(size);
    let shares = [
        (0.0, 1.0),
        (0.2, 0.5),
        (0.61, 0.3),
        (0.1, 0.05),
        (0.0, 0.75),
        (0.5, 0.1),
    ];
    shares.into_iter().flat_map(move |(start, share)| {
        [Fidelity::Exact, Fidelity::Fast].map(|fidelity| View {
            area: Area {
                left: start * whole.width,
                top: start * whole.height,
                width: share * whole.width,
                height: share * whole.height,
            },
            surround: false,
            resolution: fidelity.resolution(SIDE),
            side: SIDE,
            mirror: share < 0.4,
        })
    })
}

#[test]
fn rendering_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    shards::dataset(directory.path(), &payloads());
    let dataset = Dataset::open(directory.path()).unwrap();
    let split = dataset.split("train").unwrap();
    let entries = split.shards().iter().flat_map(|shard| shard.entries());
    let mut renderer = Renderer::new();
    renderer.reserve(&Largest::of(entries), SIDE);
    let mut planes = vec![0; 3 * (SIDE * SIDE) as usize];
    for id in 0..split.len() {
        let sample = split.sample(id);
        let entry = sample.entry();
        let size = (entry.stored_width, entry.stored_height);
        for view in views(size) {
            let (allocations, largest) = counting::during(|| {
                renderer.render(&sample, view, &mut planes).unwrap();
            });
            assert_eq!(
                (allocations, largest),
                (0, 0),
                "{:?} of {size:?}, {view:?}",
                entry.codec
            );
        }
    }
}

#[test]
fn a_small_payload_gets_little_memory_whatever_it_claims() {
    let largest = (13_377, 13_377);
    let directory = tempfile::tempdir().unwrap();
    // Heads of the largest image, whose streams end soon, and pixels likewise.
    let mut dct = shards::dct(largest.0 / 16, largest.1 / 16, &[(1, 1); 3], 5);
    let of_component = 2 + 12 + 4 * 10 + 21;
    let head = 3 + 3 * of_component + 65;
    for component in 0..3 {
        // As many values as the blocks could have, behind the lengths of escapes.
        let lengths = 3 + component * of_component + 2 + 12 + 8;
        for u in 0..8 {
            dct[lengths + 4 * u..][..4].copy_from_slice(&10_000_000_u32.to_le_bytes());
        }
    }
    dct.truncate(head + 256);
    let mut raw = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    raw.extend((3 * largest.0 * largest.1).to_le_bytes());
    raw.extend([3, 0, 0, 7].repeat(50));
    shards::dataset(
        directory.path(),
        &[(Codec::Dct, largest, dct), (Codec::Raw, largest, raw)],
    );
    let dataset = Dataset::open(directory.path()).unwrap();
    let split = dataset.split("train").unwrap();
    for id in 0..2 {
        let sample = split.sample(id);
        let bound = (1 << 15) * sample.payload().unwrap().len() + (1 << 10);
        for resolution in [
            Resolution::Full,
            Resolution::Fit {
                side: 32,
                margin: 1.2,
            },
        ] {
            let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
            let payload = sample.read(&mut buffer).unwrap();
            let (_, taken) = counting::during(|| {
                let decoded = decoder.decode(&payload, Area::whole(largest), resolution);
                let reason = decoded.map(|_| ()).unwrap_err().to_string();
                assert!(reason.contains("bytes cannot hold"), "{reason}");
            });
            assert!(
                taken <= bound,
                "{taken} bytes for sample {id}, {resolution:?}"
            );
        }
    }
}
