//! What the loader serves, and the rings that it makes for ranks.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use shardtool::Escaped;
use tokio::sync::oneshot;

use crate::config::LoaderConfig;
use crate::link::{Hello, PROTOCOL, Refusal, Served, Welcome};
use crate::memory::Mapping;
use crate::pipeline::{self, Attachment, End, Pipeline, geometry};
use crate::ring;
use crate::sampler::PretrainingSampler;

/// A ring that was made for a rank, and the answer to its hello.
pub(super) struct Prepared {
    /// The answer.
    pub(super) welcome: Welcome,
    /// The ring's memory, for the other process.
    pub(super) memory: OwnedFd,
    /// The filling of the ring.
    pub(super) attachment: Arc<Attachment>,
    /// How that came to its end.
    pub(super) ended: oneshot::Receiver<End>,
}

/// The reason why a rank is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unserved {
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    Config(#[from] crate::Error),
    #[error(transparent)]
    Geometry(#[from] ring::Error),
    #[error("no memory for a ring of {len} bytes: {cause}")]
    Memory { len: usize, cause: io::Error },
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    #[error("preparing the ring panicked: {}", Escaped::new(.0))]
    Panic(String),
}

/// What all connections share.
pub(super) struct Server {
    pub(super) pipeline: Arc<Pipeline>,
    config: LoaderConfig,
    /// For the statistics only; connections own their attachments.
    attached: Mutex<Vec<Weak<Attachment>>>,
}

impl Server {
    pub(super) fn new(pipeline: Arc<Pipeline>, config: LoaderConfig) -> Server {
        Server {
            pipeline,
            config,
            attached: Mutex::default(),
        }
    }

    /// Returns the rings that are being filled, and some that have gone.
    pub(super) fn attached(&self) -> MutexGuard<'_, Vec<Weak<Attachment>>> {
        self.attached
            .lock()
            .expect("nothing panics while holding it")
    }

    /// Checks a hello and makes the ring that it asks for. An error is the reason for the refusal.
    pub(super) fn prepare(&self, hello: &Hello) -> Result<Prepared, Unserved> {
        let source = self.pipeline.source();
        let (config, manifest) = (&self.config, source.dataset().manifest());
        let global_batch = config.global_batch(u64::from(hello.world));
        let served = Served {
            sampling_hash: config.sampling_hash(),
            manifest_checksum: manifest.checksum(),
            global_batch,
            groups: global_batch / config.data.batch_size,
        };
        hello.check(&served)?;
        let samples = source.split().len();
        let sampler = Arc::new(PretrainingSampler::new(config, samples, global_batch)?);
        let geometry = geometry(config, &sampler);
        let len = geometry.total_len()?;
        let (mapping, memory) =
            Mapping::create(len).map_err(|cause| Unserved::Memory { len, cause })?;
        let (ended, end) = oneshot::channel();
        let attachment = self.pipeline.attach(
            Arc::new(mapping),
            geometry,
            sampler.clone(),
            hello.share(),
            |end| drop(ended.send(end)),
        )?;
        let welcome = Welcome {
            protocol: PROTOCOL,
            pid: std::process::id(),
            geometry,
            epoch_len: sampler.epoch_len(),
            samples,
            classes: manifest.classes.len() as u64,
            groups: sampler.groups(),
        };
        Ok(Prepared {
            welcome,
            memory,
            attachment: Arc::new(attachment),
            ended: end,
        })
    }
}
