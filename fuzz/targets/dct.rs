//! Payloads of codec `dct`: no bytes make the decoder panic or leave its buffers, and all vector paths agree.

#![no_main]

use std::cell::RefCell;

use fuzz::{Input, TABLES, decode_dct};
use libfuzzer_sys::fuzz_target;
use shardtool::dct::decode::Decoder;
use shardtool::dct::tables::Tables;
use shardtool::simd::Simd;

thread_local! {
    static USED: RefCell<(Decoder, Tables)> =
        RefCell::new((Decoder::new(Simd::best()), Tables::parse(TABLES).expect("good tables")));
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let size = input.size();
    let view = input.view(size);
    let payload = input.0;
    USED.with_borrow_mut(|(used, tables)| {
        decode_dct(used, Some(tables), payload, size, view);
        let _ = used.coefficients(payload, Some(tables), size);
    });
});
