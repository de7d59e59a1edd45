//! The networks of a file from elsewhere, under their official names.

use std::path::Path;

use safetensors::tensor::SafeTensors;

use crate::names::{self, Left, Network};
use crate::weights::{Data, Mapped, Tensors};
use crate::{Error, huggingface};

/// The networks in a file, as far as it has them: one that is missing has no tensors.
#[derive(Debug, Default)]
pub struct Networks<'a> {
    /// The context encoder, or an encoder that nothing says more about.
    pub encoder: Tensors<'a>,
    /// The target encoder.
    pub target_encoder: Tensors<'a>,
    /// The predictor.
    pub predictor: Tensors<'a>,
    /// What is no network's.
    pub left: Left,
}

impl<'a> Networks<'a> {
    /// Sorts the tensors of the file `path` by network; `take` is called for those that belong to one.
    ///
    /// # Errors
    /// [`Error::Twice`] if two tensors have one name, [`Error::NoNetwork`] if none is a network's, and those of `take`.
    pub fn gather<T>(
        path: &Path,
        tensors: impl IntoIterator<Item = (String, T)>,
        take: impl Fn(&str, T) -> Result<Data<'a>, Error>,
    ) -> Result<Networks<'a>, Error> {
        let sorted = names::sort(tensors).map_err(|(network, name)| Error::Twice {
            path: path.to_owned(),
            network: network.key(),
            name,
        })?;
        if sorted.tensors.is_empty() {
            return Err(Error::NoNetwork {
                path: path.to_owned(),
                found: sorted.left,
            });
        }
        let mut networks = Networks {
            left: sorted.left,
            ..Networks::default()
        };
        for (network, name, tensor) in sorted.tensors {
            let data = take(&name, tensor)?;
            networks.of(network).insert(name, data);
        }
        for network in [Network::Encoder, Network::TargetEncoder] {
            let tensors = networks.of(network);
            if huggingface::is_named_so(tensors) {
                *tensors = huggingface::renamed(path, std::mem::take(tensors))?;
            }
        }
        Ok(networks)
    }

    /// Returns the networks in safetensors files that belong together; `path` is what they are called.
    ///
    /// # Errors
    /// [`Error::Safetensors`] if a file is damaged, and those of [`gather`](Networks::gather).
    pub fn of_safetensors(path: &Path, files: &'a [Mapped]) -> Result<Networks<'a>, Error> {
        let mut views = Vec::new();
        for file in files {
            let read = SafeTensors::deserialize(file.bytes());
            let read = read.map_err(|cause| Error::safetensors(file.path(), cause))?;
            let with_file = |(name, view)| (name, (file, view));
            views.extend(read.tensors().into_iter().map(with_file));
        }
        Networks::gather(path, views, |name, (file, view)| file.tensor(name, &view))
    }

    fn of(&mut self, network: Network) -> &mut Tensors<'a> {
        match network {
            Network::Encoder => &mut self.encoder,
            Network::TargetEncoder => &mut self.target_encoder,
            Network::Predictor => &mut self.predictor,
        }
    }
}
