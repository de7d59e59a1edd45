//! What a source holds: the official code's files, other files of PyTorch, safetensors, Hugging Face directories, and
//! checkpoints of ours.

use std::path::Path;

use exchange::Networks;
use exchange::huggingface::Directory;
use exchange::names::Left;
use exchange::official::{Archive, Checkpoint, Fault, Optimizer};
use exchange::weights::{Mapped, Tensors};

use super::Options;
use crate::checkpoint::{self, State};
use crate::exchange::{Error, heads_of};

/// The mapped files of a source.
pub(super) enum Files {
    /// A model's directory in Hugging Face's layout.
    HuggingFace(Directory),
    /// A file of PyTorch: the official code's `.pth.tar`, or another.
    Torch(Mapped),
    /// A safetensors file.
    Safetensors([Mapped; 1]),
    /// Encoder, target encoder and predictor of a checkpoint of ours, and where it stands.
    Ours(Box<[Option<Mapped>; 3]>, Box<State>),
}

/// What a source holds.
pub(super) struct Given<'a> {
    pub networks: Networks<'a>,
    /// Attention heads, where the source says.
    pub heads: Option<i64>,
    /// AdamW's state, where there is one and it was asked for.
    pub optimizer: Result<Option<Optimizer<'a>>, Fault>,
    /// Whole epochs done.
    pub epoch: Result<Option<u64>, Fault>,
    pub loss: Option<f64>,
    /// Images of a step on one rank, and ranks.
    pub batch: Option<(u64, u64)>,
    pub notes: Vec<String>,
}

impl Files {
    /// Opens the file or directory `source`.
    pub fn open(source: &Path) -> Result<Files, Error> {
        Files::open_parts(source, &["encoder", "target_encoder", "predictor"])
    }

    /// Opens `source`; of a checkpoint of ours these parts alone, so that others may be gone.
    pub fn open_parts(source: &Path, wanted: &[&str]) -> Result<Files, Error> {
        if source.is_dir() {
            if Directory::is_one(source) {
                return Ok(Files::HuggingFace(Directory::open(source)?));
            }
            return match checkpoint::find(source) {
                Ok(path) => Files::ours(&path, wanted),
                Err(checkpoint::Error::Missing { path }) => Err(Error::NoModel { path }),
                Err(cause) => Err(cause.into()),
            };
        }
        let file = Mapped::open(source).map_err(|cause| Error::Io {
            path: source.to_owned(),
            cause,
        })?;
        let bytes = file.bytes();
        // A zip archive, or the pickle that files of old versions begin with.
        if bytes.starts_with(b"PK") || bytes.starts_with(b"\x80\x02") {
            return Ok(Files::Torch(file));
        }
        // The length of a header, which is JSON.
        if bytes.get(8) == Some(&b'{') {
            return Ok(Files::Safetensors([file]));
        }
        Err(Error::NoWeights {
            path: source.to_owned(),
        })
    }

    fn ours(path: &Path, wanted: &[&str]) -> Result<Files, Error> {
        let state = checkpoint::read_state(path)?;
        let part = |name: &str| {
            let there = state
                .files
                .keys()
                .any(|file| file.starts_with(&format!("{name}.")));
            let there = there && wanted.contains(&name);
            there.then(|| checkpoint::map_part(path, name)).transpose()
        };
        let parts = [
            part("encoder")?,
            part("target_encoder")?,
            part("predictor")?,
        ];
        Ok(Files::Ours(Box::new(parts), Box::new(state)))
    }

    /// Reads what the files hold; of the optimiser's state nothing where training starts over.
    pub fn read(&self, source: &Path, options: &Options) -> Result<Given<'_>, Error> {
        let checked = !options.ignore_checksums;
        let mut given = match self {
            Files::HuggingFace(directory) => {
                let networks = directory.networks(checked)?;
                let heads = Some(directory.model.heads);
                Given {
                    heads,
                    ..Given::of(networks)
                }
            }
            Files::Safetensors(file) => Given::of(Networks::of_safetensors(source, file)?),
            Files::Ours(parts, state) => {
                let [encoder, target_encoder, predictor] = &**parts;
                let networks = Networks {
                    encoder: part(encoder)?,
                    target_encoder: part(target_encoder)?,
                    predictor: part(predictor)?,
                    ..Networks::default()
                };
                Given {
                    heads: heads_of(state),
                    epoch: Ok(Some(state.epoch)),
                    ..Given::of(networks)
                }
            }
            Files::Torch(file) => from_torch(source, file.bytes(), checked, !options.start_over)?,
        };
        given.heads = given.heads.or(options.heads);
        let left = &given.networks.left;
        if left.count > 0 {
            given
                .notes
                .push(format!("left out, as no part of these networks: {left}"));
        }
        Ok(given)
    }
}

impl<'a> Given<'a> {
    /// Lets a single encoder be both.
    pub fn complete_encoders(&mut self) {
        let networks = &mut self.networks;
        let (from, to, missing) = match (
            networks.encoder.is_empty(),
            networks.target_encoder.is_empty(),
        ) {
            (false, true) => (&networks.encoder, &mut networks.target_encoder, "target"),
            (true, false) => (&networks.target_encoder, &mut networks.encoder, "context"),
            _ => return,
        };
        to.clone_from(from);
        self.notes.push(format!(
            "no {missing} encoder in the source: its one encoder becomes both the context and the target encoder"
        ));
    }

    fn of(networks: Networks<'a>) -> Given<'a> {
        Given {
            networks,
            heads: None,
            optimizer: Ok(None),
            epoch: Ok(None),
            loss: None,
            batch: None,
            notes: Vec::new(),
        }
    }
}

/// Returns the tensors of a part of a checkpoint; none where it lacks the part.
fn part(file: &Option<Mapped>) -> Result<Tensors<'_>, ::exchange::Error> {
    file.as_ref().map_or(Ok(Tensors::new()), Mapped::tensors)
}

fn from_torch<'a>(
    source: &Path,
    file: &'a [u8],
    checked: bool,
    with_moments: bool,
) -> Result<Given<'a>, Error> {
    let refuse = |fault| ::exchange::Error::official(source, fault);
    let archive = Archive::read(file, checked).map_err(refuse)?;
    let read = Checkpoint::read(source, &archive)?;
    let optimizer = match with_moments {
        true => Checkpoint::optimizer(&archive),
        false => Ok(None),
    };
    let mut notes = Vec::new();
    let mut foreign = Left::default();
    archive.foreign().for_each(|name| foreign.add(&name));
    if foreign.count > 0 {
        notes.push(format!(
            "objects that code would make were left alone, and nothing was executed: {foreign}"
        ));
    }
    Ok(Given {
        optimizer,
        epoch: read.epoch,
        loss: read.loss,
        batch: read.batch_size.zip(read.world_size),
        notes,
        ..Given::of(read.networks)
    })
}
