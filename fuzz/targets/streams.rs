//! What is behind the entropy coding of codec `dct`: a head, and any bytes as its streams. A fuzzer that had to get
//! through the entropy coding would see but few of them.

#![no_main]

use std::cell::RefCell;

use fuzz::{Input, decode_dct};
use libfuzzer_sys::fuzz_target;
use shardtool::dct::decode::Decoder;
use shardtool::dct::payload::{Entropy, Head};
use shardtool::dct::streams::GROUPS;
use shardtool::simd::Simd;

thread_local! {
    static USED: RefCell<Decoder> = RefCell::new(Decoder::new(Simd::best()));
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let size = input.size();
    let view = input.view(size);
    let Ok((mut head, mut streams)) = Head::parse(input.0, size.0, size.1) else {
        return;
    };
    head.entropy = Entropy::Zstd;
    let mut lengths = [0; GROUPS];
    for (group, component, stream) in head.order() {
        lengths[group] += head.components()[component].lengths[stream];
    }
    let mut frames = Vec::new();
    for (frame, length) in head.frames.iter_mut().zip(lengths) {
        let (group, rest) = streams.split_at(length.min(streams.len()));
        streams = rest;
        // What the input lacks is zero.
        let mut group = group.to_vec();
        group.resize(length, 0);
        let compressed = zstd::bulk::compress(&group, -5).expect("memory into memory");
        *frame = compressed.len();
        frames.extend(compressed);
    }
    let mut payload = Vec::new();
    head.write(&mut payload);
    payload.extend(frames);
    USED.with_borrow_mut(|used| {
        decode_dct(used, None, &payload, size, view);
        let _ = used.coefficients(&payload, None, size);
    });
});
