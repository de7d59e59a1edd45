//! AdamW's state in an official checkpoint.

use std::collections::BTreeMap;

use shardtool::Escaped;

use super::archive::{Archive, Elements};
use super::fault::Fault;
use super::pickle::Item;

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

impl<'a> Optimizer<'a> {
    /// Takes the state out of the dictionary `opt`.
    ///
    /// # Errors
    /// A [`Fault`] with the byte of the value that the official code does not write in its place.
    pub(super) fn read(archive: &Archive<'a>, opt: Item<'_, 'a>) -> Result<Optimizer<'a>, Fault> {
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
                .map(|beta| archive.number(beta))
                .collect::<Result<_, _>>()?;
            let betas = betas
                .try_into()
                .map_err(|_| group.content("`betas` are not two numbers: not AdamW's state"))?;
            groups.push(Group {
                parameters: count,
                betas,
                eps: archive.number(group.get("eps")?)?,
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
                // A number, or since PyTorch 1.12 a tensor of one.
                step: archive.number(value.get("step")?)?,
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
