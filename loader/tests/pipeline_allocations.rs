//! A pipeline that has started allocates for each group of a step, a fixed number of times, but not for each image.
//!
//! A test binary of its own, as the allocations of all threads are counted.

#![cfg(feature = "serve")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loader::config::{ConfigFile, Fidelity, Loader};
use loader::pipeline::{OpenSplit, Pipeline, geometry};
use loader::share::RankShare;
use loader::{LoaderConfig, PretrainingSampler};
use shardtool::Codec;

use support::{counting, shards};

/// Steps until everything that is made once is there, and steps that are counted.
const WARM_UP: u64 = 20;
const COUNTED: u64 = 40;

/// Allocations of each group: its slot's record and list of places, and the lists of its masks.
const PER_GROUP: usize = 16;

#[test]
fn no_image_costs_an_allocation() {
    let directory = tempfile::tempdir().unwrap();
    let images = (0..96_u32).map(|number| {
        let size = (40 + 5 * number, 500 - 4 * number);
        let luma = if number % 2 == 0 { (2, 2) } else { (1, 1) };
        match number % 8 {
            7 => (Codec::Raw, size, shards::raw(size.0, size.1)),
            _ => {
                let payload = shards::dct(size.0, size.1, &[luma, (1, 1), (1, 1)], number);
                (Codec::Dct, size, payload)
            }
        }
    });
    let images: Vec<_> = images.collect();
    shards::dataset(directory.path(), &images);
    for (fidelity, group) in [(Fidelity::Fast, 32), (Fidelity::Exact, 64)] {
        let distortions =
            "use_color_distortion: true, color_jitter_strength: 1.0, use_gaussian_blur: true";
        let text = shards::config(group, distortions, "slots: 3", "");
        let file = ConfigFile::parse(Path::new("test.yaml"), &text, &[]).unwrap();
        let config = LoaderConfig::from_file(&file).unwrap();
        let sampler = PretrainingSampler::new(&config, images.len() as u64, group).unwrap();
        let sampler = Arc::new(sampler);
        let options = Loader {
            fidelity,
            ..Loader::default()
        };
        let source = OpenSplit::open(directory.path(), "train").unwrap();
        let pipeline = Pipeline::start(source, 3, &options).unwrap();
        let share = RankShare::from_step(0);
        let geometry = geometry(&config, &sampler);
        let (mut consumer, _attachment) = pipeline.local(geometry, sampler, share).unwrap();
        let mut take = |steps| {
            let before = counting::all();
            for _ in 0..steps {
                let slot = consumer.next(Duration::from_secs(60)).unwrap();
                consumer.release(slot);
            }
            counting::all() - before
        };
        take(WARM_UP);
        let allocations = take(COUNTED);
        // The workers are ahead by the slots of the ring.
        let groups = COUNTED as usize + 3;
        println!("{allocations} allocations in {COUNTED} groups of {group}");
        assert!(
            allocations <= PER_GROUP * groups,
            "{allocations} allocations in {COUNTED} groups of {group}"
        );
        assert!(PER_GROUP < group as usize);
    }
}
