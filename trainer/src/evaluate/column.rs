//! Other labels than the class: a label column of the shards, as the number of objects or their distance.
//!
//! Whole numbers and texts are classes as they are. Numbers with fractions are parted at given bounds, as VTAB parts
//! CLEVR's distances into six.

use std::collections::BTreeSet;

use shardtool::dataset::LabelColumn;
use shardtool::format::{Label, LabelType};
use shardtool::{Dataset, Sample, Split};
use tch::Tensor;

use super::{Error, Table};

/// The most values that a column may have to be told apart.
const MAX_CLASSES: usize = 10_000;

/// A label column and its classes.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    /// Bounds between the classes of numbers with fractions, ascending. A number at a bound is of the class below it,
    /// as VTAB has it.
    bounds: Vec<f64>,
    /// What each class stands for, in order.
    values: Vec<Value>,
}

/// A value that is a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i64),
    Text(String),
}

impl Column {
    /// Finds the classes of a column in `splits`: its values in order, or the parts between `bounds`.
    ///
    /// # Errors
    /// [`Error::NoColumn`], [`Error::Bounds`] or [`Error::ManyValues`].
    pub fn find(
        dataset: &Dataset,
        splits: &[&Split],
        name: &str,
        bounds: &[f64],
    ) -> Result<Column, Error> {
        let known = &dataset.manifest().labels;
        let Some(LabelColumn { kind, .. }) = known.iter().find(|column| column.name == name) else {
            return Err(Error::NoColumn {
                name: name.to_owned(),
                known: known.iter().map(|column| column.name.clone()).collect(),
            });
        };
        let is_parted = *kind == LabelType::Float64;
        let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let finite = bounds.iter().all(|bound| bound.is_finite());
        if is_parted == bounds.is_empty() || !ascending || !finite {
            return Err(Error::Bounds {
                name: name.to_owned(),
                is_parted,
            });
        }
        let mut column = Column {
            name: name.to_owned(),
            bounds: bounds.to_vec(),
            values: Vec::new(),
        };
        if is_parted {
            return Ok(column);
        }
        let mut values = BTreeSet::new();
        for split in splits {
            for id in 0..split.len() {
                values.extend(split.sample(id).label(name).and_then(value));
                if values.len() > MAX_CLASSES {
                    return Err(Error::ManyValues {
                        name: name.to_owned(),
                        most: MAX_CLASSES,
                    });
                }
            }
        }
        column.values = values.into_iter().collect();
        Ok(column)
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> i64 {
        match self.bounds.len() {
            0 => self.values.len() as i64,
            bounds => bounds as i64 + 1,
        }
    }

    /// Returns the class of a sample; -1 where it has no value.
    pub fn class(&self, sample: &Sample<'_>) -> i64 {
        match sample.label(&self.name) {
            Some(Label::Float(number)) if !number.is_nan() => {
                self.bounds.partition_point(|bound| *bound < number) as i64
            }
            Some(label) => value(label)
                .and_then(|value| self.values.binary_search(&value).ok())
                .map_or(-1, |class| class as i64),
            None => -1,
        }
    }

    /// Gives a table the classes of the column: -1 where a sample has no value.
    ///
    /// # Errors
    /// From libtorch.
    pub fn label(&self, table: Table, split: &Split) -> Result<Table, Error> {
        let samples = Vec::<i64>::try_from(&table.samples).map_err(crate::Error::from)?;
        let class = |sample: &i64| self.class(&split.sample(*sample as u64));
        let labels: Vec<i64> = samples.iter().map(class).collect();
        Ok(Table {
            labels: Tensor::f_from_slice(&labels).map_err(crate::Error::from)?,
            ..table
        })
    }
}

fn value(label: Label<'_>) -> Option<Value> {
    match label {
        Label::Int(number) => Some(Value::Number(number)),
        Label::Text(text) => Some(Value::Text(text.to_owned())),
        Label::Float(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::{Device, Kind};

    use super::*;

    fn golden() -> Dataset {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dataset");
        Dataset::open(&folder).unwrap()
    }

    /// Returns the classes of a split's samples in a column, and the number of classes.
    fn classes(name: &str, bounds: &[f64]) -> Result<(Vec<i64>, i64), Error> {
        let dataset = golden();
        let splits = ["train", "val"].map(|split| dataset.split(split).unwrap());
        let column = Column::find(&dataset, &splits, name, bounds)?;
        let samples = splits[0].len() as i64;
        let table = Table {
            features: Tensor::zeros([samples, 1], (Kind::Float, Device::Cpu)),
            labels: Tensor::zeros([samples], (Kind::Int64, Device::Cpu)),
            samples: Tensor::arange(samples, (Kind::Int64, Device::Cpu)),
        };
        let labels = column.label(table, splits[0])?.labels;
        Ok((Vec::try_from(&labels).unwrap(), column.classes()))
    }

    /// Returns what a reader of the shards makes of them.
    fn values(name: &str) -> Vec<Option<String>> {
        let dataset = golden();
        let split = dataset.split("train").unwrap();
        let value = |id| Some(split.sample(id).label(name)?.to_string());
        (0..split.len()).map(value).collect()
    }

    #[test]
    fn equal_values_are_one_class_and_missing_ones_none() {
        for name in ["objects", "note"] {
            let (found, count) = classes(name, &[]).unwrap();
            let values = values(name);
            for (one, class) in values.iter().zip(&found) {
                assert_eq!(one.is_none(), *class == -1, "{name}: {values:?} {found:?}");
                for (other, theirs) in values.iter().zip(&found) {
                    assert_eq!(
                        one == other,
                        class == theirs,
                        "{name}: {values:?} {found:?}"
                    );
                }
            }
            assert!(found.iter().all(|class| *class < count));
            assert!(found.iter().any(|class| *class > 0), "{values:?}");
        }
    }

    #[test]
    fn numbers_with_fractions_are_parted_at_their_bounds() {
        let numbers = values("distance");
        let numbers: Vec<Option<f64>> = numbers
            .into_iter()
            .map(|value| Some(value?.parse().unwrap()))
            .collect();
        let bound = numbers.iter().flatten().copied().fold(f64::MAX, f64::min);
        let (found, count) = classes("distance", &[bound]).unwrap();
        assert_eq!(count, 2);
        for (number, class) in numbers.iter().zip(found) {
            let expected = number.map_or(-1, |number| i64::from(number > bound));
            assert_eq!(class, expected, "{number:?} at {bound}");
        }
    }

    #[test]
    fn what_is_no_column_or_has_other_bounds_is_said() {
        let fault = |name, bounds: &[f64]| classes(name, bounds).unwrap_err().to_string();
        let text = fault("object", &[]);
        assert!(
            text.contains("\"object\"") && text.contains("objects, distance"),
            "{text}"
        );
        assert!(fault("distance", &[]).contains("--bounds, ascending"));
        assert!(fault("distance", &[2.0, 1.0]).contains("ascending"));
        assert!(fault("distance", &[f64::NAN]).contains("ascending"));
        assert!(fault("objects", &[1.0]).contains("no --bounds"));
    }
}
