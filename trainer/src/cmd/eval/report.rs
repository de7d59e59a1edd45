//! What an evaluation found: a table for people, and JSON with the whole grid.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use shardtool::Escaped;
use trainer::evaluate::knn::Neighbours;
use trainer::evaluate::linear::{Grid, Head, Settings};
use trainer::evaluate::lowshot::LowShot;
use trainer::evaluate::{Pooling, Score};

/// Layout of the JSON; raised when a key changes its meaning.
pub const VERSION: u32 = 1;

/// All that is known of an evaluation.
#[derive(Serialize)]
pub struct Report {
    pub version: u32,
    pub weights: Weights,
    pub data: Data,
    /// Type of the encoder's matrix products.
    pub dtype: &'static str,
    /// The files of the features, where they are the result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<PathBuf>,
    /// Divisor of a neighbour's cosine in its vote.
    pub temperature: f64,
    /// How linear heads were trained.
    pub linear: Option<Settings>,
    /// Their images were random crops.
    pub augmented: bool,
    /// How attentive heads were trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attentive: Option<Settings>,
    /// How the encoder was trained on the labelled images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fine_tuned: Option<Settings>,
    /// Range of the crops' shares of their images, where there are random ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_scale: Option<[f64; 2]>,
    pub results: Vec<Probed>,
}

/// The encoder.
#[derive(Serialize)]
pub struct Weights {
    pub path: String,
    /// True where the weights were drawn afresh.
    pub untrained: bool,
    pub encoder: &'static str,
    pub checksum: String,
    pub model: String,
}

/// The images.
#[derive(Serialize)]
pub struct Data {
    /// Checksum of the shards' manifest.
    pub shards: String,
    /// Those to learn from.
    pub train: Images,
    /// Those to count on.
    pub val: Images,
    /// The label column that stands for the class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub classes: i64,
    pub crop_size: u32,
    pub resize: u32,
    pub pooling: Pooling,
}

/// The images of a split that could be read.
#[derive(Serialize)]
pub struct Images {
    pub split: String,
    pub images: i64,
}

/// What the probes of features of one kind found.
#[derive(Default, Serialize)]
pub struct Probed {
    /// `last` or `last4`.
    pub features: &'static str,
    pub knn: Vec<Neighbours>,
    pub linear: Option<Grid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attentive: Option<Grid>,
    pub lowshot: Option<LowShot>,
    /// Of the encoder that went on learning with the labelled images: none where its weights are not finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fine_tuned: Option<Option<Score>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (weights, data) = (&self.weights, &self.data);
        writeln!(
            f,
            "{}{}: {} encoder, {}",
            if weights.untrained {
                "fresh weights, as of "
            } else {
                ""
            },
            weights.path,
            weights.encoder,
            weights.model
        )?;
        let split = |Images { split, images }: &Images| {
            format!("{images} images of {:?}", Escaped::new(split))
        };
        writeln!(
            f,
            "{} to learn from, {} to count on; {} classes{}; {} px of {}; {} of patches; {}",
            split(&data.train),
            split(&data.val),
            data.classes,
            match &data.label {
                Some(label) => format!(" of {:?}", Escaped::new(label)),
                None => String::new(),
            },
            data.crop_size,
            data.resize,
            data.pooling.name(),
            self.dtype
        )?;
        for path in &self.features {
            writeln!(f, "{}", Escaped::new(path))?;
        }
        if self.results.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<10}{:<15}{:>7}{:>9}",
            "features", "probe", "top-1 %", "top-5 %"
        )?;
        let mut row = |features: &str, probe: &str, score: Option<Score>, note: &str| {
            let of = |get: fn(Score) -> f64| {
                score.map_or("-".to_owned(), |score| format!("{:.2}", get(score)))
            };
            let (top1, top5) = (of(|score| score.top1), of(|score| score.top5));
            writeln!(f, "{features:<10}{probe:<15}{top1:>7}{top5:>9}{note}")
        };
        for Probed {
            features,
            knn,
            linear,
            attentive,
            lowshot,
            fine_tuned,
        } in &self.results
        {
            for Neighbours { k, score } in knn {
                row(features, &format!("{k}-nn"), Some(*score), "")?;
            }
            let augmented = if self.augmented {
                "linear, crops"
            } else {
                "linear"
            };
            for (name, grid) in [(augmented, linear), ("attentive", attentive)] {
                let Some(grid) = grid else { continue };
                let chosen = grid.chosen();
                let note = chosen.map_or(
                    "  no rate of the grid gave finite weights".to_owned(),
                    |head| format!("  rate {}, weight decay {}", head.lr, head.weight_decay),
                );
                row(features, name, chosen.and_then(|head| head.val), &note)?;
            }
            if let Some(found) = lowshot {
                let (images, penalty) = (found.images, found.penalty);
                let how = match found.held_out_images {
                    0 => "too few to choose it",
                    _ => "chosen on a part of them",
                };
                let note = format!("  {images} labelled images; penalty {penalty}, {how}");
                row(features, "low-shot", found.val, &note)?;
            }
            if let (Some(score), Some(settings)) = (fine_tuned, &self.fine_tuned) {
                let (epochs, lr, decay) =
                    (settings.epochs, settings.lrs[0], settings.weight_decays[0]);
                let note = format!("  {epochs} epochs; rate {lr}, weight decay {decay}");
                row(features, "fine-tuned", *score, &note)?;
            }
        }
        for probed in &self.results {
            for (name, grid, settings) in [
                ("linear", &probed.linear, &self.linear),
                ("attentive", &probed.attentive, &self.attentive),
            ] {
                if let (Some(grid), Some(settings)) = (grid, settings) {
                    self.grid(f, name, probed.features, grid, settings)?;
                }
            }
        }
        Ok(())
    }
}

impl Report {
    /// Returns the top-1 of every probe under a name that says how it differs from the usual one.
    pub fn scores(&self) -> BTreeMap<String, f64> {
        let Data {
            val,
            label,
            pooling,
            ..
        } = &self.data;
        let mut marks = Vec::new();
        marks.extend((self.weights.encoder != "target").then(|| self.weights.encoder.to_owned()));
        marks.extend((val.split != "val").then(|| val.split.clone()));
        marks.extend(label.clone());
        marks.extend((*pooling != Pooling::Mean).then(|| pooling.name().to_owned()));
        let mut scores = BTreeMap::new();
        for probed in &self.results {
            let mut marks = marks.clone();
            marks.extend((probed.features != "last").then(|| probed.features.to_owned()));
            let mut keep = |probe: &str, score: Option<Score>| {
                let name = [&marks[..], &[format!("{probe} top-1")]]
                    .concat()
                    .join(", ");
                scores.extend(score.map(|score| (name, score.top1)));
            };
            for Neighbours { k, score } in &probed.knn {
                keep(&format!("{k}-nn"), Some(*score));
            }
            let of = |grid: &Option<Grid>| grid.as_ref().and_then(Grid::chosen)?.val;
            let linear = if self.augmented {
                "augmented linear"
            } else {
                "linear"
            };
            keep(linear, of(&probed.linear));
            keep("attentive", of(&probed.attentive));
            keep("fine-tuned low-shot", probed.fine_tuned.flatten());
            keep(
                "low-shot",
                probed.lowshot.as_ref().and_then(|found| found.val),
            );
        }
        scores
    }

    /// Writes the grid of the probes of one kind on features of one kind.
    fn grid(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        features: &str,
        grid: &Grid,
        settings: &Settings,
    ) -> fmt::Result {
        let val = Escaped::new(&self.data.val.split);
        let (shown, chosen) = match grid.held_out_images {
            0 => (
                format!("on {val:?}"),
                format!("* the best on {val:?} itself"),
            ),
            held => (
                format!("on {held} held-out images / on {val:?}"),
                format!(
                    "* the best on the held-out images of {:?}",
                    Escaped::new(&self.data.train.split)
                ),
            ),
        };
        writeln!(
            f,
            "\n{name} probes of `{features}`, top-1 % {shown}, by rate and weight decay; {chosen}"
        )?;
        write!(f, "{:<10}", "rate")?;
        for decay in &settings.weight_decays {
            write!(f, "{decay:>18}")?;
        }
        writeln!(f)?;
        let top1 = |score: Option<Score>| {
            score.map_or("-".to_owned(), |score| format!("{:.2}", score.top1))
        };
        for (row, lr) in settings.lrs.iter().enumerate() {
            write!(f, "{lr:<10}")?;
            for column in 0..settings.weight_decays.len() {
                let number = row * settings.weight_decays.len() + column;
                let Head { held_out, val, .. } = grid.heads[number];
                let mark = if grid.best == Some(number) { "*" } else { "" };
                let text = match grid.held_out_images {
                    0 => format!("{mark}{}", top1(val)),
                    _ => format!("{mark}{} / {}", top1(held_out), top1(val)),
                };
                write!(f, "{text:>18}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
