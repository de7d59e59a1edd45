//! What the dictionary in an official checkpoint means.
//!
//! | key | value |
//! |---|---|
//! | `encoder`, `predictor`, `target_encoder` | state dictionaries, keys after `module.` if run in parallel |
//! | `opt` | AdamW's: `state` by number of the parameter, and `param_groups`, which number them |
//! | `scaler` | of the gradient scaler, or `None`; not needed here |
//! | `epoch` | whole epochs done |
//! | `loss` | mean over the last epoch |
//! | `batch_size`, `world_size`, `lr` | as configured |

use std::collections::{BTreeMap, HashSet};

use super::archive::{Archive, Elements};
use shardtool::Escaped;

use super::fault::Fault;
use super::pickle::{Dtype, Item, Value};

/// What DistributedDataParallel puts before every name.
const WRAPPED: &str = "module.";

/// Tensors by name, in the order of the file.
pub type Named<'a> = Vec<(String, Elements<'a>)>;

/// An official checkpoint.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    /// The context encoder.
    pub encoder: Named<'a>,
    /// The predictor.
    pub predictor: Named<'a>,
    /// The target encoder.
    pub target_encoder: Named<'a>,
    /// AdamW's state, where the file has it.
    pub optimizer: Option<Optimizer<'a>>,
    /// Whole epochs done.
    pub epoch: Option<u64>,
    /// Mean loss of the last epoch.
    pub loss: Option<f64>,
    /// Images of a step on one rank.
    pub batch_size: Option<u64>,
    /// Ranks.
    pub world_size: Option<u64>,
    /// Keys that the official code does not write.
    pub unknown: Vec<String>,
}

/// AdamW's state.
#[derive(Debug)]
pub struct Optimizer<'a> {
    /// Parameters in each group; they are numbered one group after the other.
    pub groups: Vec<Group>,
    /// Moments by number of the parameter; those that were never trained have none.
    pub moments: BTreeMap<u64, Moments<'a>>,
}

/// Parameters that share their settings.
#[derive(Debug)]
pub struct Group {
    /// Number of its parameters.
    pub parameters: u64,
    /// Decays of the first and second moments.
    pub betas: [f64; 2],
    /// What keeps the division finite.
    pub eps: f64,
}

/// What AdamW keeps for one parameter.
#[derive(Debug)]
pub struct Moments<'a> {
    /// Steps done.
    pub step: f64,
    /// Running mean of the gradient.
    pub exp_avg: Elements<'a>,
    /// Running mean of the gradient's square.
    pub exp_avg_sq: Elements<'a>,
}

impl<'a> Checkpoint<'a> {
    /// Takes the checkpoint out of its archive.
    ///
    /// # Errors
    /// A [`Fault`] with the byte of the value that an official checkpoint does not have in its place.
    pub fn read(archive: &Archive<'a>) -> Result<Checkpoint<'a>, Fault> {
        const KNOWN: [&str; 10] = [
            "encoder",
            "predictor",
            "target_encoder",
            "opt",
            "scaler",
            "epoch",
            "loss",
            "batch_size",
            "world_size",
            "lr",
        ];
        let root = archive.root();
        let network = |key| state_dict(archive, root.get(key)?);
        let count = |key| root.find(key)?.map(Item::count).transpose();
        let mut unknown = Vec::new();
        for (key, _) in root.entries()? {
            let key = key.text()?;
            if !KNOWN.contains(&key) {
                unknown.push(key.to_owned());
            }
        }
        let optimizer = root.find("opt")?;
        let optimizer = optimizer.filter(|opt| !matches!(opt.value(), Value::None));
        Ok(Checkpoint {
            encoder: network("encoder")?,
            predictor: network("predictor")?,
            target_encoder: network("target_encoder")?,
            optimizer: optimizer
                .map(|opt| Optimizer::read(archive, opt))
                .transpose()?,
            epoch: count("epoch")?,
            loss: root.find("loss")?.map(Item::number).transpose()?,
            batch_size: count("batch_size")?,
            world_size: count("world_size")?,
            unknown,
        })
    }
}

fn state_dict<'a>(archive: &Archive<'a>, dict: Item<'_, 'a>) -> Result<Named<'a>, Fault> {
    let wrapped = match dict.entries()?.next() {
        Some((key, _)) => key.text()?.starts_with(WRAPPED),
        None => return Err(dict.content("a network without parameters")),
    };
    let mut seen = HashSet::new();
    let mut tensors = Vec::new();
    for (key, value) in dict.entries()? {
        let full = key.text()?;
        let name = match (wrapped, full.strip_prefix(WRAPPED)) {
            (true, Some(name)) => name,
            (false, None) => full,
            _ => {
                let full = Escaped::new(full);
                return Err(key.content(format!(
                    "some names begin with `{WRAPPED}` and others do not: `{full}`"
                )));
            }
        };
        if !seen.insert(name) {
            return Err(key.content(format!("two tensors `{}`", Escaped::new(name))));
        }
        tensors.push((name.to_owned(), archive.elements(value.tensor()?)?));
    }
    Ok(tensors)
}

impl<'a> Optimizer<'a> {
    fn read(archive: &Archive<'a>, opt: Item<'_, 'a>) -> Result<Optimizer<'a>, Fault> {
        let mut groups = Vec::new();
        let mut parameters = 0;
        for group in opt.get("param_groups")?.elements()? {
            let numbers = group.get("params")?.elements()?;
            let count = numbers.len() as u64;
            for number in numbers {
                if number.count()? != parameters {
                    return Err(number.content(format!(
                        "parameters out of order, expected number {parameters}"
                    )));
                }
                parameters += 1;
            }
            let betas: Vec<f64> = group
                .get("betas")?
                .elements()?
                .map(Item::number)
                .collect::<Result<_, _>>()?;
            let betas = betas
                .try_into()
                .map_err(|_| group.content("`betas` are not two numbers: not AdamW's state"))?;
            groups.push(Group {
                parameters: count,
                betas,
                eps: group.get("eps")?.number()?,
            });
        }
        let mut moments = BTreeMap::new();
        for (key, value) in opt.get("state")?.entries()? {
            let number = key.count()?;
            if number >= parameters {
                return Err(key.content(format!("moments of parameter {number} of {parameters}")));
            }
            for (name, _) in value.entries()? {
                let name_text = name.text()?;
                if !["step", "exp_avg", "exp_avg_sq"].contains(&name_text) {
                    let name_text = Escaped::new(name_text);
                    return Err(name.content(format!(
                        "`{name_text}` is not part of the official AdamW's state"
                    )));
                }
            }
            let tensor = |name| archive.elements(value.get(name)?.tensor()?);
            let read = Moments {
                step: step(archive, value.get("step")?)?,
                exp_avg: tensor("exp_avg")?,
                exp_avg_sq: tensor("exp_avg_sq")?,
            };
            if moments.insert(number, read).is_some() {
                return Err(key.content(format!("moments of parameter {number} stand twice")));
            }
        }
        Ok(Optimizer { groups, moments })
    }
}

/// Reads the steps done: a number, or since PyTorch 1.12 a tensor of one.
fn step<'a>(archive: &Archive<'a>, item: Item<'_, 'a>) -> Result<f64, Fault> {
    let Value::Tensor(tensor) = item.value() else {
        return item.number();
    };
    let elements = archive.elements(tensor)?;
    let number = match (elements.dtype, &elements.bytes[..]) {
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
        (Dtype::F64, bytes) => f64::from_le_bytes(
            bytes
                .try_into()
                .map_err(|_| item.content("a step that is no number"))?,
        ),
        (Dtype::I64, bytes) => i64::from_le_bytes(
            bytes
                .try_into()
                .map_err(|_| item.content("a step that is no number"))?,
        ) as f64,
        _ => return Err(item.content("a step that is no number")),
    };
    Ok(number)
}
