//! rANS alone: any run decodes to the same symbols, or fails, with every family of instructions; what was encoded comes
//! back.

#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use shardtool::rans::{DecodeTable, Decoder, EncodeTable, Encoder, Frequencies};
use shardtool::simd::Simd;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let tables = [input.frequencies(), input.frequencies()];
    let lengths: [usize; 4] = std::array::from_fn(|_| usize::from(input.number() % 2048));
    decode(&tables, lengths, input.0);

    let tables =
        tables.map(|frequencies| EncodeTable::new(&frequencies).expect("good frequencies"));
    let mut rest = input.0;
    let segments: Vec<(&EncodeTable, &[u8])> = (0..)
        .zip(lengths)
        .map(|(number, length)| {
            let (segment, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            (&tables[number % 2], segment)
        })
        .collect();
    let encoded = |simd| {
        let mut run = Vec::new();
        Encoder::new(simd).encode(&segments, &mut run).map(|()| run)
    };
    let run = encoded(Simd::Scalar);
    for &simd in Simd::available() {
        assert_eq!(encoded(simd), run, "{simd:?}");
    }
});

fn decode(tables: &[Frequencies; 2], lengths: [usize; 4], run: &[u8]) {
    let tables =
        tables.map(|frequencies| DecodeTable::new(&frequencies).expect("good frequencies"));
    let symbols = |simd| {
        let mut decoder = Decoder::new(simd, run).ok()?;
        let mut all = Vec::new();
        for (number, length) in lengths.into_iter().enumerate() {
            let mut segment = vec![0; length];
            if decoder.next(&tables[number % 2], &mut segment).is_err() {
                return Some((all, false));
            }
            all.extend(segment);
        }
        Some((all, decoder.finish().is_ok()))
    };
    let expected = symbols(Simd::Scalar);
    for &simd in Simd::available() {
        assert!(symbols(simd) == expected, "{simd:?}");
    }
}
