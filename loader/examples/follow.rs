//! Follows a loader: connects, takes ten groups, prints their shapes.
//!
//! ```sh
//! loader run --config configs/demo.yaml --shards demo/shards &
//! cargo run -p loader --example follow -- configs/demo.yaml demo/shards
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use loader::link::{self, Endpoint, Feed, Hello, PROTOCOL, Welcome, default_socket_path};
use loader::{LoaderConfig, ring};
use shardtool::Manifest;

/// How long to wait for a loader.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, shards] = &arguments[..] else {
        eprintln!("usage: follow CONFIG SHARDS");
        return ExitCode::from(2);
    };
    match follow(config.as_ref(), shards.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}{error}", hint(&error));
            ExitCode::FAILURE
        }
    }
}

/// What can go wrong here, by who is at fault.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] loader::Error),
    #[error(transparent)]
    Shards(#[from] shardtool::Error),
    #[error(transparent)]
    Link(#[from] link::Error),
}

fn follow(config: &Path, shards: &Path) -> Result<(), Error> {
    let config = LoaderConfig::load(config, &[], Some(shards))?;
    let manifest = Manifest::read(&config.shards_dir()?)?;
    let hello = Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        plan: loader::sampler::Plan::Pretraining,
        sampling_hash: config.sampling_hash(),
        manifest_checksum: manifest.checksum(),
        rank: 0,
        world: 1,
        global_batch: config.global_batch(1),
        first_step: 0,
        end_step: None,
    };
    let endpoint = Endpoint::Path(default_socket_path(hello.sampling_hash));
    let expected = Welcome::expected(&config, &manifest, 1)?;
    let mut feed = Feed::connect(&endpoint, &hello, &expected, PATIENCE)?;
    let geometry = *feed.geometry();
    for _ in 0..10 {
        let group = feed.next()?;
        println!(
            "step {} group {}: {} images of {}x{}x{}, context {}, targets {} x {}",
            group.step(),
            group.group(),
            group.len(),
            geometry.channels,
            geometry.height,
            geometry.width,
            group.context_len(),
            geometry.target_masks,
            group.target_len()
        );
        feed.release(group);
    }
    feed.goodbye();
    Ok(())
}

/// Tells kinds of failure apart, as a program that acts on them would.
fn hint(error: &Error) -> &'static str {
    match error {
        Error::Config(error) => match error {
            loader::Error::NoShards { .. } => "build the shards first: ",
            loader::Error::UnknownKey { .. } | loader::Error::Value { .. } => "mend the file: ",
            _ => "",
        },
        Error::Shards(_) => "",
        Error::Link(error) => match error {
            link::Error::NoLoader { .. } => "start `loader run` first: ",
            link::Error::Refused { .. } => "give both the same configuration: ",
            link::Error::LoaderDied { .. } | link::Error::LoaderClosed { .. } => "start it again: ",
            link::Error::Ring(ring::Error::Version { .. }) => "build both from the same sources: ",
            _ => "",
        },
    }
}

/// Every public error of the crate, matched by kind.
#[cfg(feature = "serve")]
#[allow(dead_code, reason = "shows that callers can tell kinds apart")]
fn kinds(
    storage: &loader::storage::Error,
    pipeline: &loader::pipeline::Error,
    failure: &loader::pipeline::Failure,
    refusal: &link::Refusal,
) -> [&'static str; 4] {
    use loader::{pipeline, storage};
    [
        match storage {
            storage::Error::NoSpace { .. } => "the disk is full",
            storage::Error::Io { .. } | storage::Error::Copy { .. } => "the system refused",
            storage::Error::Shards(_)
            | storage::Error::Checksum { .. }
            | storage::Error::OtherShard { .. } => "the data set is damaged",
            _ => "something else",
        },
        match pipeline {
            pipeline::Error::NoSplit { .. } => "another split was meant",
            pipeline::Error::System { .. } => "no memory or no thread",
            _ => "something else",
        },
        match failure {
            pipeline::Failure::AllDamaged { .. } => "the data set is gone",
            pipeline::Failure::Panic { .. } => "a fault of the loader",
            _ => "something else",
        },
        match refusal {
            link::Refusal::Manifest { .. } => "another data set",
            link::Refusal::Sampling { .. } | link::Refusal::GlobalBatch { .. } => "another run",
            _ => "something else",
        },
    ]
}
