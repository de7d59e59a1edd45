//! "Find the hidden block": what the predictor knows of what it cannot see, measured without labels.
//!
//! The grid of patches is cut into three rows and two columns of cells. Three masks each show two cells and hide the
//! other four, so that each cell is hidden twice. What the predictor says of a hidden cell is compared, by cosine, with
//! what the target encoder makes of that cell in every image of the set: how often is the right image the nearest, or
//! among the nearest ten? The predictions also go through a linear map to the cell's pixels; its R² is of images that
//! the map has not seen. Predictions and targets are taken less their means over the images at each patch, so that a
//! network that says the same of every image is at chance.
//!
//! Three baselines know nothing of networks: chance, the mean colour of what is seen, and the best linear map from the
//! pixels that are seen to the hidden ones. The last is a strong one.
//!
//! Targets see whole images: a part of a right answer is recognising the image. The pixels' column has no such leak.

mod tally;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::Error;
use super::ridge::{Map, Sums};
use crate::method::hooks::NoHooks;
use crate::method::ijepa::IJepa;
use crate::method::model::{ModelConfig, STD};
use tally::Tally;

/// Rows and columns of cells.
const CELLS: (i64, i64) = (3, 2);
/// The cells that each mask shows, counted row by row.
const SHOWN: [[usize; 2]; 3] = [[0, 5], [1, 4], [2, 3]];
/// Values of a patch's pixels along a side: they are averaged to so many.
const PIXELS: i64 = 4;
/// Of the images that maps are fitted to, one group in so many is left for choosing the penalty.
const HELD_OUT: u64 = 5;

/// What each measure found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Images that were looked for, among each other.
    pub images: i64,
    /// Images that means and linear maps are of.
    pub fitted: u64,
    /// The measures: chance, the baselines, and the network at last.
    pub rows: Vec<Row>,
}

/// How well one way of telling the hidden cells does, in per cent.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What tells.
    pub name: &'static str,
    /// How often the right image is the nearest.
    pub top1: f64,
    /// How often it is among the nearest ten.
    pub top10: f64,
    /// Share of the variance of the hidden pixels that it explains. Below 0 is worse than their mean.
    pub pixels_r2: f64,
}

/// The hidden and the visible patches of one mask, and the sums of its images.
struct Mask {
    /// Numbers of the visible patches.
    visible: Vec<i64>,
    /// Numbers of the patches of each hidden cell.
    hidden: Vec<Vec<i64>>,
    /// From the mean colour, from the visible pixels, and from predictions to the hidden pixels.
    sums: [[Sums; 3]; 2],
}

/// Looks for hidden blocks with the three networks of a training.
pub struct Search<'a> {
    ijepa: &'a IJepa,
    masks: Vec<Mask>,
    groups: u64,
    images: u64,
    /// Sums of the targets over images, (N, D).
    targets: Tensor,
    looked_for: Vec<Looked>,
}

/// What there is to know of a group that is looked for, on the CPU.
struct Looked {
    /// (B, N, D)
    targets: Tensor,
    /// (B, N, K)
    pixels: Tensor,
    /// Of each mask: (B, hidden patches, D).
    predictions: Vec<Tensor>,
}

impl<'a> Search<'a> {
    /// Begins a search with networks.
    ///
    /// # Errors
    /// [`Error::Grid`] where the images have too few patches, and [`Error::Compute`].
    pub fn new(ijepa: &'a IJepa) -> Result<Search<'a>, Error> {
        let model = ijepa.target_encoder.config();
        let (grid, d) = (model.grid(), model.embed_dim);
        if grid < CELLS.0 {
            return Err(Error::Grid { grid });
        }
        let cells = cells(grid);
        let k = PIXELS.min(model.patch_size).pow(2) * 3;
        let masks = SHOWN.map(|shown| -> Result<Mask, Error> {
            let mut visible = shown.map(|cell| cells[cell].clone()).concat();
            visible.sort_unstable();
            let hidden = (0..cells.len()).filter(|cell| !shown.contains(cell));
            let hidden: Vec<Vec<i64>> = hidden.map(|cell| cells[cell].clone()).collect();
            let there = hidden.iter().map(Vec::len).sum::<usize>() as i64;
            let sums = || -> Result<[Sums; 3], crate::Error> {
                Ok([
                    Sums::new(1, 3, there * k)?,
                    Sums::new(1, visible.len() as i64 * k, there * k)?,
                    Sums::new(there, d, k)?,
                ])
            };
            let sums = [sums()?, sums()?];
            Ok(Mask {
                visible,
                hidden,
                sums,
            })
        });
        let targets = Tensor::f_zeros([grid * grid, d], (Kind::Double, Device::Cpu));
        Ok(Search {
            ijepa,
            masks: masks.into_iter().collect::<Result<_, _>>()?,
            groups: 0,
            images: 0,
            targets: targets.map_err(crate::Error::from)?,
            looked_for: Vec::new(),
        })
    }

    /// Returns the bytes that it takes to look for so many images: their targets, pixels and predictions, and a copy.
    pub fn bytes(model: &ModelConfig, images: u64) -> u64 {
        let k = PIXELS.min(model.patch_size).pow(2) * 3;
        // Three masks hide two thirds of the patches each.
        let values = model.patches() * (3 * model.embed_dim + k);
        images.saturating_mul(2 * 4 * values as u64)
    }

    /// Adds images, (B, 3, H, W) and normalised, to those that means and maps are of.
    ///
    /// # Errors
    /// [`Error::Compute`].
    pub fn fit(&mut self, images: &Tensor) -> Result<(), Error> {
        Ok(tch::no_grad(|| self.fit_to(images))?)
    }

    fn fit_to(&mut self, images: &Tensor) -> Result<(), crate::Error> {
        let pixels = self.pixels(images)?;
        let sum = self
            .encode(images)?
            .f_sum_dim_intlist([0i64].as_slice(), false, Kind::Double)?;
        self.targets = self.targets.f_add(&sum.f_to_device(Device::Cpu)?)?;
        let held = usize::from(self.groups % HELD_OUT == HELD_OUT - 1);
        for number in 0..self.masks.len() {
            let predictions = self.predict(images, number)?;
            let mask = &mut self.masks[number];
            let hidden = at(&pixels, &mask.hidden.concat())?; // (B, hidden, K)
            let seen = at(&pixels, &mask.visible)?;
            let flat = hidden.f_flatten(1, 2)?.f_unsqueeze(1)?;
            let [colour, linear, network] = &mut mask.sums[held];
            colour.add(&mean_colour(&seen)?, &flat)?;
            linear.add(&seen.f_flatten(1, 2)?.f_unsqueeze(1)?, &flat)?;
            network.add(&predictions, &hidden)?;
        }
        self.groups += 1;
        self.images += images.size()[0] as u64;
        Ok(())
    }

    /// Adds images, (B, 3, H, W) and normalised, to those that are looked for.
    ///
    /// # Errors
    /// [`Error::Compute`].
    pub fn look_for(&mut self, images: &Tensor) -> Result<(), Error> {
        let look = || -> Result<Looked, crate::Error> {
            let masks = 0..self.masks.len();
            Ok(Looked {
                targets: self.encode(images)?.f_to_device(Device::Cpu)?,
                pixels: self.pixels(images)?.f_to_device(Device::Cpu)?,
                predictions: masks
                    .map(|number| Ok(self.predict(images, number)?.f_to_device(Device::Cpu)?))
                    .collect::<Result<_, crate::Error>>()?,
            })
        };
        self.looked_for.push(tch::no_grad(look)?);
        Ok(())
    }

    /// Returns what was found.
    ///
    /// # Errors
    /// [`Error::NothingShown`] without images of both kinds, and [`Error::Compute`].
    pub fn found(&self) -> Result<Found, Error> {
        // One group is left for choosing, and another is needed.
        if self.groups < HELD_OUT || self.looked_for.is_empty() {
            return Err(Error::NothingShown { groups: HELD_OUT });
        }
        Ok(tch::no_grad(|| self.measure())?)
    }

    fn measure(&self) -> Result<Found, crate::Error> {
        let targets = self.joined(|looked| &looked.targets)?;
        let pixels = self.joined(|looked| &looked.pixels)?;
        let means = self.targets.f_div_scalar(self.images.max(1) as f64)?;
        let targets = targets.f_sub(&means.f_to_kind(Kind::Float)?)?;
        let mut tallies: [Tally; 3] = Default::default();
        for (number, mask) in self.masks.iter().enumerate() {
            let [fit, held] = &mask.sums;
            let maps = [0, 1, 2].map(|of| Map::chosen(&fit[of], &held[of]));
            let [colour, linear, network] = maps;
            let hidden = mask.hidden.concat();
            let there = hidden.len() as i64;
            let truth = at(&pixels, &hidden)?;
            let k = truth.size()[2];
            let (mean_told, mean_pixels) = fit[2].plus(&held[2])?.means()?;
            let truth = truth.f_sub(&mean_pixels.f_to_kind(Kind::Float)?)?;
            let seen = at(&pixels, &mask.visible)?;
            let predictions = self.joined(|looked| &looked.predictions[number])?;
            let apply = |map: &Map, x: &Tensor| -> Result<Tensor, crate::Error> {
                Ok(map.apply(x)?.f_view([-1, there, k])?)
            };
            let made = [
                apply(&colour?, &mean_colour(&seen)?)?,
                apply(&linear?, &seen.f_flatten(1, 2)?.f_unsqueeze(1)?)?,
                apply(&network?, &predictions)?,
            ];
            let predictions = predictions.f_sub(&mean_told.f_to_kind(Kind::Float)?)?;
            let looked_for = at(&targets, &hidden)?;
            for (of, tally) in tallies.iter_mut().enumerate() {
                tally.add_pixels(&made[of], &truth)?;
                let (told, right) = match of {
                    2 => (&predictions, &looked_for),
                    _ => (&made[of], &truth),
                };
                let mut first = 0;
                for cell in &mask.hidden {
                    let part =
                        |t: &Tensor| t.f_narrow(1, first, cell.len() as i64)?.f_flatten(1, 2);
                    tally.add_ranks(&part(told)?, &part(right)?)?;
                    first += cell.len() as i64;
                }
            }
        }
        let images = targets.size()[0];
        let chance = |k: i64| 100.0 * k.min(images) as f64 / images as f64;
        let names = [
            "mean colour of what is seen",
            "linear map of what is seen",
            "the predictor",
        ];
        let mut rows = vec![Row {
            name: "chance",
            top1: chance(1),
            top10: chance(10),
            pixels_r2: 0.0,
        }];
        rows.extend(
            names
                .into_iter()
                .zip(tallies)
                .map(|(name, tally)| tally.row(name)),
        );
        Ok(Found {
            images,
            fitted: self.images,
            rows,
        })
    }

    /// Joins what there is of all groups that are looked for.
    fn joined(&self, of: impl Fn(&Looked) -> &Tensor) -> Result<Tensor, crate::Error> {
        let parts: Vec<&Tensor> = self.looked_for.iter().map(of).collect();
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// Returns the targets of all patches: (B, N, D).
    fn encode(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        let patches: Vec<i64> = (0..self.ijepa.target_encoder.config().patches()).collect();
        let all = repeated(&patches, images)?;
        let targets = self.ijepa.target(images, &[all], 1, &mut NoHooks)?;
        Ok(targets.f_to_kind(Kind::Float)?)
    }

    /// Returns what is said of a mask's hidden patches, cell after cell: (B, hidden, D).
    fn predict(&self, images: &Tensor, mask: usize) -> Result<Tensor, crate::Error> {
        let mask = &self.masks[mask];
        let context = [repeated(&mask.visible, images)?];
        let z = self.ijepa.context(images, &context, &mut NoHooks)?;
        let mut said = Vec::new();
        for cell in &mask.hidden {
            let target = [repeated(cell, images)?];
            said.push(
                self.ijepa
                    .predict(&z, &context, &target, None, &mut NoHooks)?,
            );
        }
        Ok(Tensor::f_cat(&said, 1)?.f_to_kind(Kind::Float)?)
    }

    /// Returns the pixels of each patch, averaged to a few values, in the units of [0, 1]: (B, N, K).
    fn pixels(&self, images: &Tensor) -> Result<Tensor, crate::Error> {
        let model = self.ijepa.target_encoder.config();
        let (grid, side) = (model.grid(), PIXELS.min(model.patch_size));
        let whole = grid * model.patch_size;
        let std = Tensor::f_from_slice(&STD)?.f_view([1, 3, 1, 1])?;
        let images = images.f_narrow(2, 0, whole)?.f_narrow(3, 0, whole)?;
        let images = images.f_mul(&std.f_to_device(images.device())?)?;
        let small = images.f_adaptive_avg_pool2d([grid * side, grid * side])?;
        let (b, _, _, _) = small.size4()?;
        Ok(small
            .f_view([b, 3, grid, side, grid, side])?
            .f_permute([0, 2, 4, 3, 5, 1])?
            .f_reshape([b, grid * grid, side * side * 3])?)
    }
}

/// Returns the patches of each cell, row by row.
fn cells(grid: i64) -> Vec<Vec<i64>> {
    let bounds = |parts: i64| move |i: i64| (i * grid + parts / 2) / parts;
    let (rows, columns) = (bounds(CELLS.0), bounds(CELLS.1));
    let mut cells = Vec::new();
    for row in 0..CELLS.0 {
        for column in 0..CELLS.1 {
            let down = rows(row)..rows(row + 1);
            let across = columns(column)..columns(column + 1);
            cells.push(
                down.flat_map(|y| across.clone().map(move |x| y * grid + x))
                    .collect(),
            );
        }
    }
    cells
}

/// Returns a mask of the same patches for each image.
fn repeated(patches: &[i64], images: &Tensor) -> Result<Tensor, crate::Error> {
    let rows = [images.size()[0], patches.len() as i64];
    let mask = Tensor::f_from_slice(patches)?.f_to_device(images.device())?;
    Ok(mask.f_unsqueeze(0)?.f_expand(rows, false)?.f_contiguous()?)
}

/// Returns the values (B, N, K) at these patches.
fn at(values: &Tensor, patches: &[i64]) -> Result<Tensor, crate::Error> {
    let patches = Tensor::f_from_slice(patches)?.f_to_device(values.device())?;
    Ok(values.f_index_select(1, &patches)?)
}

/// Returns the mean colour of visible pixels (B, C, K): (B, 1, 3).
fn mean_colour(seen: &Tensor) -> Result<Tensor, crate::Error> {
    let (b, c, k) = seen.size3()?;
    let colours = seen.f_reshape([b, c * k / 3, 3])?;
    Ok(colours.f_mean_dim([1i64].as_slice(), true, Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelConfig {
        ModelConfig {
            image_size: 24,
            patch_size: 4,
            embed_dim: 24,
            depth: 1,
            heads: 2,
            mlp_dim: 48,
            predictor_dim: 16,
            predictor_depth: 1,
        }
    }

    #[test]
    fn cells_part_the_grid_and_each_is_hidden_twice() {
        for grid in 3..20 {
            let mut all = cells(grid).concat();
            assert_eq!(cells(grid).len(), 6);
            assert!(cells(grid).iter().all(|cell| !cell.is_empty()));
            all.sort_unstable();
            assert!(all.into_iter().eq(0..grid * grid), "{grid}");
        }
        let mut shown = SHOWN.concat();
        shown.sort_unstable();
        assert_eq!(shown, [0, 1, 2, 3, 4, 5]);
    }

    /// Returns images whose halves are alike: the left one tells the right one.
    fn images(count: i64, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        let options = (Kind::Float, Device::Cpu);
        let coarse = Tensor::randn([count, 3, 3, 2], options);
        let mirrored = coarse.flip([3i64].as_slice());
        let coarse = &coarse * 0.5 + mirrored * 0.5 + Tensor::randn([count, 3, 1, 1], options);
        coarse.upsample_nearest2d([24, 24], None, None)
    }

    #[test]
    fn a_linear_law_is_found_by_the_linear_baseline_and_colour_by_both() {
        let ijepa = IJepa::new(&model(), 3, Device::Cpu).unwrap();
        let mut search = Search::new(&ijepa).unwrap();
        for group in 0..20 {
            search.fit(&images(60, group)).unwrap();
        }
        for group in 0..2 {
            search.look_for(&images(30, 100 + group)).unwrap();
        }
        let found = search.found().unwrap();
        assert_eq!((found.images, found.fitted), (60, 1200));
        let [chance, colour, linear, network] = &found.rows[..] else {
            panic!("{found:?}");
        };
        assert!((chance.top1 - 100.0 / 60.0).abs() < 1e-9);
        assert!(
            colour.pixels_r2 > 30.0 && colour.top10 > 2.0 * chance.top10,
            "{found:?}"
        );
        assert!(
            linear.pixels_r2 > colour.pixels_r2 && linear.top1 > colour.top1,
            "{found:?}"
        );
        assert!(
            network.pixels_r2.abs() < 100.0 && network.top1 <= network.top10,
            "{found:?}"
        );
    }

    #[test]
    fn too_few_images_or_patches_are_named() {
        let ijepa = IJepa::new(&model(), 3, Device::Cpu).unwrap();
        let search = Search::new(&ijepa).unwrap();
        assert!(matches!(search.found(), Err(Error::NothingShown { .. })));
        let small = ModelConfig {
            image_size: 8,
            ..model()
        };
        let ijepa = IJepa::new(&small, 3, Device::Cpu).unwrap();
        assert!(matches!(Search::new(&ijepa), Err(Error::Grid { grid: 2 })));
    }
}
