//! The loader as a process, and this process as its consumer.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use loader::LoaderConfig;
use loader::link::{Endpoint, Feed, Hello, PROTOCOL, Welcome};
use rustix::process::{Pid, Signal, kill_process};
use shardtool::{Codec, Manifest};

use super::shards;

/// No wait in these tests is longer.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Images of the data set.
const SAMPLES: u32 = 24;

/// A directory with shards and a configuration for them.
pub struct Place {
    pub directory: tempfile::TempDir,
}

impl Place {
    /// Makes the shards and the configuration.
    pub fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let images: Vec<_> = (0..SAMPLES)
            .map(|number| {
                let (width, height) = (70 + 3 * number, 120 - 2 * number);
                let payload = shards::dct(width, height, &[(2, 2), (1, 1), (1, 1)], number);
                (Codec::Dct, (width, height), payload)
            })
            .collect();
        shards::dataset(directory.path(), &images);
        let loader = format!(
            "slots: 2, workers: 2, shards: {}",
            directory.path().display()
        );
        let text = shards::config(4, "", &loader, "optimization: {global_batch: 8}");
        std::fs::write(directory.path().join("config.yaml"), text).unwrap();
        Place { directory }
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("loader.sock")
    }

    /// Returns a command of the loader with this place's configuration.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loader"));
        command.arg(name).arg("--config").arg(self.config());
        command.stdin(Stdio::null());
        command
    }

    /// Starts `loader run`, its standard error where `stderr` says.
    pub fn start_loader(&self, stderr: impl Into<Stdio>) -> Running {
        Running(self.serving().stderr(stderr).spawn().unwrap())
    }

    /// Returns `loader run` at this place's socket.
    pub fn serving(&self) -> Command {
        let mut command = self.command("run");
        command.arg("--socket").arg(self.socket());
        command
    }

    /// Connects to this place's loader.
    pub fn connect(&self, first_step: u64) -> Feed {
        connect(&self.config(), &self.socket(), first_step)
    }
}

/// Connects to the loader at `socket`, which may not be there yet.
pub fn connect(config: &Path, socket: &Path, first_step: u64) -> Feed {
    let config = LoaderConfig::load(config, &[], None).unwrap();
    let manifest = Manifest::read(&config.shards_dir().unwrap()).unwrap();
    let expected = Welcome::expected(&config, &manifest, 1).unwrap();
    let hello = Hello {
        protocol: PROTOCOL,
        pid: std::process::id(),
        plan: loader::sampler::Plan::Pretraining,
        sampling_hash: config.sampling_hash(),
        manifest_checksum: manifest.checksum(),
        rank: 0,
        world: 1,
        global_batch: 8,
        first_step,
        end_step: None,
    };
    let endpoint = Endpoint::Path(socket.to_owned());
    Feed::connect(&endpoint, &hello, &expected, PATIENCE).unwrap()
}

/// Takes the next group and gives it back. Returns its step, sample numbers and pixels.
pub fn take(feed: &mut Feed) -> (u64, Vec<u64>, Vec<u8>) {
    let group = feed.next().unwrap();
    let copy = (
        group.step(),
        group.sample_ids().to_vec(),
        group.images().to_vec(),
    );
    feed.release(group);
    copy
}

/// A child that does not outlive its test.
pub struct Running(pub Child);

impl Running {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end, but not for ever.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "process {} does not end",
                self.0.id()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
