//! The bridge to libjpeg-turbo: reading coefficients, writing what was read, decoding pixels whole and in part.

#![no_main]

use fuzz::jpeg_size;
use libfuzzer_sys::{Corpus, fuzz_target};
use shardtool::codec::Region;
use shardtool::dct::coefficients::Coefficients;
use shardtool::turbo::{Decoder, Reader, write_jpeg};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((width, height)) = jpeg_size(bytes) else {
        return Corpus::Reject;
    };
    let mut reader = Reader::new();
    let mut coefficients = Coefficients::empty();
    if reader.read_coefficients(bytes, &mut coefficients).is_ok() {
        let mut written = Vec::new();
        // Baseline cannot express every coefficient that a damaged file may give.
        if write_jpeg(&coefficients, &mut written).is_ok() {
            let mut again = Coefficients::empty();
            let reading = reader
                .read_coefficients(&written, &mut again)
                .expect("our own file");
            assert_eq!(reading.flaw, None);
            assert!(again == coefficients, "coefficients do not come back");
        }
    }
    let mut decoder = Decoder::new();
    let mut pixels = Vec::new();
    let _ = decoder.decode_full(bytes, &mut pixels);
    let region = Region {
        x: width / 3,
        y: height / 3,
        width: width / 2,
        height: height / 2,
    };
    let _ = decoder.decode_partial(bytes, region, &mut pixels);
    Corpus::Keep
});
