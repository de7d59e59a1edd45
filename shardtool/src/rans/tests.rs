//! What holds across tables, encoder, decoder and instruction families.

use proptest::prelude::*;

use super::*;
use crate::simd::Simd;

type Segments = Vec<(Frequencies, Vec<u8>)>;

/// Returns a table of `shape` and symbols that it can code, drawn by its frequencies so that all lengths of words
/// occur.
fn segment(length: impl Strategy<Value = usize>) -> impl Strategy<Value = (Frequencies, Vec<u8>)> {
    let counts = prop_oneof![
        // All symbols alike; a few of them; one that is nearly certain.
        Just([1u32; 256]),
        proptest::collection::vec(prop_oneof![9 => Just(0u32), 1 => 0u32..1000], 256)
            .prop_map(|counts| counts.try_into().unwrap()),
        any::<u8>().prop_map(|symbol| {
            std::array::from_fn(|other| {
                if other == usize::from(symbol) {
                    1 << 20
                } else {
                    0
                }
            })
        }),
    ];
    (counts, any::<bool>(), length, any::<u64>()).prop_map(|(counts, every, length, seed)| {
        let frequencies = normalize(&counts, every);
        let slots = DecodeTable::new(&frequencies).unwrap().slots;
        let mut random = seed;
        let symbols = (0..length)
            .map(|_| {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                slots[(random >> 40) as usize % SLOTS] as u8
            })
            .collect();
        (frequencies, symbols)
    })
}

fn segments() -> impl Strategy<Value = Segments> {
    let length = prop_oneof![4 => 0usize..200, 1 => 0usize..20_000];
    proptest::collection::vec(segment(length), 0..6)
}

fn encode(simd: Simd, segments: &Segments) -> Vec<u8> {
    let tables: Vec<_> = segments
        .iter()
        .map(|(f, _)| EncodeTable::new(f).unwrap())
        .collect();
    let parts: Vec<_> = tables
        .iter()
        .zip(segments)
        .map(|(t, (_, s))| (t, &s[..]))
        .collect();
    let mut run = vec![0xaa; 3];
    Encoder::new(simd).encode(&parts, &mut run).unwrap();
    run.split_off(3)
}

#[derive(Debug, Clone, PartialEq)]
struct Decoded {
    symbols: Vec<Vec<u8>>,
    /// Where each segment left the decoder.
    places: Vec<(States, usize)>,
    finished: bool,
}

fn decode(simd: Simd, run: &[u8], segments: &Segments) -> Result<Decoded, Corrupt> {
    let mut decoder = Decoder::new(simd, run)?;
    let (mut symbols, mut places) = (Vec::new(), Vec::new());
    for (frequencies, expected) in segments {
        let mut out = vec![0; expected.len()];
        decoder.next(&DecodeTable::new(frequencies).unwrap(), &mut out)?;
        symbols.push(out);
        places.push(decoder.place());
    }
    Ok(Decoded {
        symbols,
        places,
        finished: decoder.finish().is_ok(),
    })
}

proptest! {
    #[test]
    fn every_family_writes_the_same_run_and_reads_it_back(segments in segments()) {
        let run = encode(Simd::Scalar, &segments);
        let expected = Decoded {
            symbols: segments.iter().map(|(_, symbols)| symbols.clone()).collect(),
            finished: true,
            ..decode(Simd::Scalar, &run, &segments).unwrap()
        };
        for simd in Simd::available() {
            prop_assert_eq!(&encode(*simd, &segments), &run);
            prop_assert_eq!(&decode(*simd, &run, &segments).unwrap(), &expected);
        }
    }

    #[test]
    fn damage_is_found_or_decoded_alike_by_every_family(
        segments in segments(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..4),
        cut in any::<prop::sample::Index>(),
        cuts: bool,
    ) {
        let mut run = encode(Simd::Scalar, &segments);
        for (place, flip) in flips {
            *place.get_mut(&mut run) ^= flip;
        }
        if cuts {
            run.truncate(cut.index(run.len()));
        }
        let expected = decode(Simd::Scalar, &run, &segments);
        for simd in Simd::available() {
            prop_assert_eq!(decode(*simd, &run, &segments), expected.clone());
        }
    }

    #[test]
    fn arbitrary_bytes_decode_alike_by_every_family(
        states in proptest::collection::vec(LOWEST..LOWEST << 16, LANES),
        words in proptest::collection::vec(any::<u8>(), 0..3000),
        segments in segments(),
    ) {
        let mut run: Vec<u8> = states.iter().flat_map(|state| state.to_le_bytes()).collect();
        run.extend(words);
        let expected = decode(Simd::Scalar, &run, &segments);
        for simd in Simd::available() {
            prop_assert_eq!(decode(*simd, &run, &segments), expected.clone());
        }
    }

    #[test]
    fn a_run_is_as_long_as_the_tables_promise(segment in segment(1000usize..20_000)) {
        let mut histogram = [0; 256];
        segment.1.iter().for_each(|symbol| histogram[usize::from(*symbol)] += 1);
        let promised = EncodeTable::new(&segment.0).unwrap().cost(&histogram).unwrap() as f64 / 8.0;
        let run = encode(Simd::best(), &vec![segment]).len() as f64;
        // States carry 16 bits more than they must; a low state rounds frequencies a little.
        prop_assert!(run >= promised, "{run} < {promised}");
        prop_assert!(run <= promised * 1.005 + 4.0 * LANES as f64, "{run} > {promised}");
    }
}

#[test]
fn lengths_around_a_round_survive() {
    let frequencies = normalize(&std::array::from_fn(|symbol| 256 - symbol as u32), true);
    for length in 0..200 {
        let symbols = (0..length).map(|i| (i * i % 251) as u8).collect();
        let segments = vec![(frequencies, symbols)];
        let run = encode(Simd::Scalar, &segments);
        for simd in Simd::available() {
            assert_eq!(encode(*simd, &segments), run);
            let decoded = decode(*simd, &run, &segments).unwrap();
            assert_eq!(
                (&decoded.symbols[0], decoded.finished),
                (&segments[0].1, true)
            );
        }
    }
}

#[test]
fn a_cut_or_lengthened_run_is_damaged() {
    let symbols: Vec<u8> = (0..3000u32).map(|i| ((i * i) >> 3) as u8).collect();
    let segments = vec![(normalize(&[1; 256], true), symbols)];
    let run = encode(Simd::Scalar, &segments);
    for simd in Simd::available() {
        for cut in 0..run.len() {
            assert!(decode(*simd, &run[..cut], &segments).is_err(), "{cut}");
        }
        let longer = [&run[..], &[0, 0]].concat();
        assert!(!decode(*simd, &longer, &segments).unwrap().finished);
        let mut shorter = segments.clone();
        shorter[0].1.pop();
        assert!(!decode(*simd, &run, &shorter).unwrap().finished);
    }
}

#[test]
fn states_out_of_range_are_refused() {
    let mut run = encode(Simd::Scalar, &vec![]);
    assert_eq!(run.len(), 4 * LANES);
    for state in [0, LOWEST - 1, LOWEST << 16, u32::MAX] {
        run[4 * LANES - 4..].copy_from_slice(&state.to_le_bytes());
        assert_eq!(Decoder::new(Simd::Scalar, &run).err(), Some(Corrupt));
    }
    run[4 * LANES - 4..].copy_from_slice(&((LOWEST << 16) - 1).to_le_bytes());
    assert!(Decoder::new(Simd::Scalar, &run).is_ok());
}

#[test]
fn a_symbol_that_the_table_lacks_is_an_error_in_every_lane() {
    let mut counts = [1; 256];
    (counts[77], counts[255]) = (0, 0);
    let table = EncodeTable::new(&normalize(&counts, false)).unwrap();
    for simd in Simd::available() {
        let mut encoder = Encoder::new(*simd);
        for place in 0..100 {
            for lacking in [77, 255] {
                let mut symbols = vec![3; 100];
                symbols[place] = lacking;
                let mut out = vec![9];
                assert_eq!(
                    encoder.encode(&[(&table, &symbols)], &mut out),
                    Err(Uncodable)
                );
                assert_eq!(out, [9]);
            }
        }
    }
}

/// The example worked by hand from the specification: what a reader written from it alone must agree with.
#[test]
fn the_specification_gives_these_bytes() {
    let mut counts = [0; 256];
    (counts[65], counts[66]) = (1, 1);
    let segments = vec![(normalize(&counts, false), b"AB".repeat(LANES / 2 * 20))];
    let run = encode(Simd::Scalar, &segments);
    // A bit for each symbol: 20 a lane. A's lower half, taken 16 times, doubles a state of 2^15 up to 2^31, so the last
    // but 15 gives a word.
    assert_eq!(run.len(), 4 * LANES + 2 * LANES);
    let lane = |index: usize| u32::from_le_bytes(run[4 * index..][..4].try_into().unwrap());
    let mut expected = [LOWEST; 2];
    let mut words = [0; 2];
    for _ in 0..20 {
        for (lane, state) in expected.iter_mut().enumerate() {
            if *state >= 2048 << 19 {
                words[lane] = *state as u16;
                *state >>= 16;
            }
            *state = ((*state / 2048) << 12) + *state % 2048 + 2048 * lane as u32;
        }
    }
    for index in 0..LANES {
        assert_eq!(lane(index), expected[index % 2]);
        let word = run[4 * LANES + 2 * index..][..2].try_into().unwrap();
        assert_eq!(u16::from_le_bytes(word), words[index % 2]);
    }
}
