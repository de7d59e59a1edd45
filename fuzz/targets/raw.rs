//! Payloads of codec `raw`.

#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use shardtool::Codec;
use shardtool::codec::{Decoder, Region};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let size = input.size();
    let region = Region {
        x: size.0 / 3,
        y: size.1 / 3,
        width: size.0.div_ceil(2),
        height: size.1.div_ceil(2),
    };
    if let Ok(view) = Decoder::new().decode_payload(Codec::Raw, input.0, size.0, size.1, region) {
        assert_eq!(
            view.rows().map(<[u8]>::len).sum::<usize>() as u32,
            3 * region.width * region.height
        );
    }
});
