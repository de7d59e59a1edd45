//! Official checkpoints of random weights and moments.

use std::fs;
use std::path::Path;

use exchange::official::archive;
use exchange::official::pickle::{Dtype, Key, Node};
use exchange::official::zip::ZipWriter;
use tch::Device;
use trainer::method::encoder::Encoder;
use trainer::method::parameters::{self, Parameter};
use trainer::method::predictor::Predictor;

use crate::{EPOCH, STEPS_PER_EPOCH, model};

/// Writes an official checkpoint with nothing unusual.
pub fn official_checkpoint(path: &Path) {
    Official::default().write(path);
}

/// The ways in which a checkpoint differs from the usual one.
pub struct Official {
    /// A tensor of another shape, of which nothing else takes note.
    pub reshaped: Option<(&'static str, Vec<usize>)>,
    /// The networks that it has.
    pub networks: Vec<&'static str>,
    /// What stands before the names of their parameters.
    pub prefix: &'static str,
    /// Whether positions are random numbers, as learned ones would be.
    pub learned: bool,
    /// Whether it has the optimiser's moments.
    pub moments: bool,
    /// Whole epochs done.
    pub epoch: u64,
}

impl Default for Official {
    fn default() -> Official {
        Official {
            reshaped: None,
            networks: vec!["encoder", "predictor", "target_encoder"],
            prefix: "module.",
            learned: false,
            moments: true,
            epoch: EPOCH,
        }
    }
}

/// Returns the fixed positions of the encoder or the predictor, as bytes.
fn positions(name: &str) -> Vec<u8> {
    let (encoder, predictor);
    let mut parameters = match name {
        "pos_embed" => {
            encoder = Encoder::new(&model(), Device::Cpu).unwrap();
            encoder.parameters().iter()
        }
        _ => {
            predictor = Predictor::new(&model(), Device::Cpu).unwrap();
            predictor.parameters().iter()
        }
    };
    let (_, tensor) = parameters.find(|(found, _)| found == name).unwrap();
    let numbers = Vec::<f32>::try_from(&tensor.flatten(0, -1)).unwrap();
    numbers.into_iter().flat_map(f32::to_le_bytes).collect()
}

impl Official {
    /// Writes it.
    pub fn write(&self, path: &Path) {
        let mut storages: Vec<Vec<u8>> = Vec::new();
        let mut tensor = |name: &str, shape: &[usize]| {
            // Layer norms keep their inputs' size, so that features do as well.
            let base = match name {
                "exp_avg_sq" => 0.0,
                _ if shape.len() == 1 && name.ends_with("weight") => 1.0,
                _ => -0.03,
            };
            let elements: usize = shape.iter().product();
            let mut seed = storages.len() as u32;
            let values = (0..elements).map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 8) as f32 / (1 << 28) as f32 + base
            });
            storages.push(match name.ends_with("pos_embed") && !self.learned {
                true => positions(name),
                false => values.flat_map(f32::to_le_bytes).collect(),
            });
            Node::Tensor {
                storage: storages.len() - 1,
                dtype: Dtype::F32,
                shape: shape.iter().map(|&length| length as u64).collect(),
            }
        };
        let networks = [
            ("encoder", parameters::encoder(&model())),
            ("predictor", parameters::predictor(&model())),
            ("target_encoder", parameters::encoder(&model())),
        ];
        let mut root: Vec<(Key, Node)> = Vec::new();
        for (network, forms) in networks {
            if !self.networks.contains(&network) {
                continue;
            }
            let entries = forms.into_iter().map(|Parameter { name, mut shape }| {
                if let Some((reshaped, other)) = &self.reshaped
                    && *reshaped == name
                {
                    shape.clone_from(other);
                }
                let key = Key::Text(format!("{}{name}", self.prefix));
                (key, tensor(&name, &shape))
            });
            root.push((network.into(), Node::Ordered(entries.collect())));
        }
        let (mut state, mut groups, mut number) = (Vec::new(), Vec::new(), 0);
        for group in parameters::optimizer_groups(&model()) {
            let first = number;
            for parameter in group.members {
                if parameter.is_trained() && self.moments {
                    let shape = &parameter.shape;
                    let moments = vec![
                        (
                            "step".into(),
                            Node::Float((self.epoch * STEPS_PER_EPOCH) as f64),
                        ),
                        ("exp_avg".into(), tensor("", shape)),
                        ("exp_avg_sq".into(), tensor("exp_avg_sq", shape)),
                    ];
                    state.push((Key::Int(number), Node::Dict(moments)));
                }
                number += 1;
            }
            groups.push(Node::Dict(vec![
                (
                    "betas".into(),
                    Node::Tuple(vec![Node::Float(0.9), Node::Float(0.999)]),
                ),
                ("eps".into(), Node::Float(1e-8)),
                (
                    "params".into(),
                    Node::List((first..number).map(Node::Int).collect()),
                ),
            ]));
        }
        let opt = vec![
            ("state".into(), Node::Dict(state)),
            ("param_groups".into(), Node::List(groups)),
        ];
        root.extend([
            ("opt".into(), Node::Dict(opt)),
            ("scaler".into(), Node::None),
            ("epoch".into(), Node::Int(self.epoch as i64)),
            ("loss".into(), Node::Float(0.25)),
            ("batch_size".into(), Node::Int(4)),
            ("world_size".into(), Node::Int(2)),
            ("lr".into(), Node::Float(1e-3)),
        ]);
        let file = fs::File::create(path).unwrap();
        let storages = storages.iter().map(|bytes| bytes.into());
        archive::write(
            ZipWriter::new(std::io::BufWriter::new(file)),
            "a",
            &Node::Dict(root),
            storages,
        )
        .unwrap();
    }
}
