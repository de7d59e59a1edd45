//! Whole shard files: no bytes make the reader panic, read out of bounds or allocate without limit, and what it accepts
//! it can hand out. Checksums are not compared here (`cfg(fuzzing)`), as no fuzzer guesses one.

#![no_main]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use fuzz::MAX_PIXELS;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use shardtool::Shard;
use shardtool::codec::Decoder;
use shardtool::planes::{Area, Resolution};

thread_local! {
    /// A file that has a name but lies in memory.
    static FILE: File = File::from(memfd_create("shard", MemfdFlags::CLOEXEC).expect("a file in memory"));
}

fuzz_target!(|bytes: &[u8]| {
    FILE.with(|file| {
        let written = file
            .set_len(bytes.len() as u64)
            .and_then(|()| file.write_all_at(bytes, 0));
        written.expect("room in memory");
        if let Ok(shard) = Shard::open(&PathBuf::from(format!(
            "/proc/self/fd/{}",
            file.as_raw_fd()
        ))) {
            use_all(&shard);
        }
    });
});

fn use_all(shard: &Shard) {
    let names: Vec<String> = shard.labels().map(|(name, _)| name.to_owned()).collect();
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
    for sample in (0..shard.len()).map(|number| shard.sample(number)).take(64) {
        for name in &names {
            let _ = sample.label(name);
        }
        let _ = sample.name();
        let entry = sample.entry();
        let (width, height) = (entry.stored_width, entry.stored_height);
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            continue;
        }
        let Ok(payload) = sample.read(&mut buffer) else {
            continue;
        };
        let whole = Area::whole((width, height));
        let part = Area {
            left: whole.width / 5.0,
            top: whole.height / 7.0,
            width: whole.width / 3.0,
            height: whole.height / 2.0,
        };
        let _ = decoder.decode(&payload, whole, Resolution::Full);
        let _ = decoder.decode(
            &payload,
            part,
            Resolution::Fit {
                side: 16,
                margin: 1.2,
            },
        );
    }
}
