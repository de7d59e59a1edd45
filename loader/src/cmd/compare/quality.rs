//! How near a square comes to what double precision makes of the crop.

use loader::crop::CropBox;
use shardtool::turbo;

use super::SIDE;
use super::methods::Shards;

/// Makes the squares that others are compared with: the crop of libjpeg-turbo's full decode under Pillow's bilinear
/// filter, without rounding anywhere.
pub struct Reference {
    decoder: turbo::Decoder,
    pixels: Vec<u8>,
    across: Vec<f64>,
    square: Vec<f64>,
}

impl Reference {
    pub fn new() -> Reference {
        Reference {
            decoder: turbo::Decoder::new(),
            pixels: Vec::new(),
            across: Vec::new(),
            square: Vec::new(),
        }
    }

    /// Returns red, green and blue planes of an image's crop.
    pub fn square(
        &mut self,
        shards: &Shards,
        image: usize,
        crop: CropBox,
    ) -> anyhow::Result<&[f64]> {
        let (width, _) = self
            .decoder
            .decode_full(&shards.jpeg(image)?, &mut self.pixels)?;
        let side = SIDE as usize;
        let (columns, rows) = (taps(crop.width as usize), taps(crop.height as usize));
        self.across.clear();
        for y in crop.top..crop.top + crop.height {
            let row = 3 * (y as usize * width as usize + crop.left as usize);
            let row = &self.pixels[row..row + 3 * crop.width as usize];
            for (first, weights) in &columns {
                for channel in 0..3 {
                    let samples = row[3 * first + channel..].iter().step_by(3);
                    let terms = samples
                        .zip(weights)
                        .map(|(&sample, weight)| f64::from(sample) * weight);
                    self.across.push(terms.sum());
                }
            }
        }
        self.square.clear();
        for channel in 0..3 {
            for (first, weights) in &rows {
                for x in 0..side {
                    let samples = self.across[3 * (first * side + x) + channel..]
                        .iter()
                        .step_by(3 * side);
                    self.square.push(
                        samples
                            .zip(weights)
                            .map(|(sample, weight)| sample * weight)
                            .sum(),
                    );
                }
            }
        }
        Ok(&self.square)
    }
}

/// Returns, for each output, the first of the samples that it is made of, and their weights.
fn taps(length: usize) -> Vec<(usize, Vec<f64>)> {
    let scale = length as f64 / f64::from(SIDE);
    let reach = scale.max(1.0);
    let output = |at: u32| {
        let centre = (f64::from(at) + 0.5) * scale;
        let weight =
            |sample: usize| (1.0 - ((sample as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let first = ((centre - reach).max(0.0)) as usize;
        let end = ((centre + reach).ceil() as usize).min(length);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        (first, weights.iter().map(|weight| weight / sum).collect())
    };
    (0..SIDE).map(output).collect()
}

/// PSNRs of many images.
#[derive(Debug, Clone, Default)]
pub struct Likeness(Vec<f64>);

impl Likeness {
    pub fn add(&mut self, square: &[u8], expected: &[f64]) {
        let errors = square
            .iter()
            .zip(expected)
            .map(|(&got, exact)| (f64::from(got) - exact).powi(2));
        let mean = errors.sum::<f64>() / square.len() as f64;
        self.0
            .push(10.0 * (255.0 * 255.0 / mean.max(1e-12)).log10());
    }

    /// Returns mean, first percentile and worst.
    pub fn summary(&mut self) -> [f64; 3] {
        self.0.sort_by(f64::total_cmp);
        let count = self.0.len();
        [
            self.0.iter().sum::<f64>() / count as f64,
            self.0[count / 100],
            self.0[0],
        ]
    }
}
