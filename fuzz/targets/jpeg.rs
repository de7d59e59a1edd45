//! Payloads of codec `jpeg`, of the size that their header says.

#![no_main]

use fuzz::jpeg_size;
use libfuzzer_sys::{Corpus, fuzz_target};
use shardtool::Codec;
use shardtool::codec::{Decoder, Region};
use shardtool::format::fits;

fuzz_target!(
    // A panic of the library below, which the decoder makes an error of, must not end the process before it can. One
    // that gets out of the decoder still does.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| -> Corpus {
        let size = match jpeg_size(bytes) {
            Some((width, height)) if fits(width, height) => (width, height),
            _ => return Corpus::Reject,
        };
        let region = Region::whole(size);
        let _ = Decoder::new().decode_payload(Codec::Jpeg, bytes, size.0, size.1, region);
        Corpus::Keep
    }
);
