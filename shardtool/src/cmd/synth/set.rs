//! A labelled image set of our own: coloured shapes on textured ground, several at several depths.
//!
//! Used by `shardtool synth`, for demonstrations, tests and probes where no other images are at hand. The set is an
//! ImageFolder (`train/<class>/…JPEG`, `val/<class>/…JPEG`) with a `labels.csv` beside it.
//!
//! Invariants:
//! * Image `i` of a split is a pure function of (seed, split, i, classes, size): not of the number of images or
//!   workers.
//! * Labels come from the scene the pixels are drawn from, never from the pixels.
//! * The set appears under its name complete, by rename, or not at all. What is under way stands in `<OUT>.partial`.

mod noise;
mod paint;
mod palette;
mod scene;
mod shape;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use shardtool::Escaped;
use shardtool::disk::{self, Tried};
use shardtool::source::LABELS_FILE;

use scene::{Draw, Scene};
use shape::Shape;

/// The most classes a set can have: one per shape.
pub const MOST_CLASSES: u32 = Shape::ALL.len() as u32;
/// The smallest side of an image.
pub const LEAST_SIDE: u32 = 32;
/// The largest side of an image.
pub const LARGEST_SIDE: u32 = 4096;

/// Names the parameters of a set, inside it; hidden, so that a build does not list it as ignored.
const RECIPE_FILE: &str = ".synth.json";
const LABELS_HEADER: &str = "path,count,distance,ground";
/// Changes whenever the same parameters give other bytes.
const VERSION: u32 = 1;
const QUALITY: u8 = 90;

/// Sizes and how many images in a hundred have them, after ImageNet's: most have a longer side of 500. A zero is drawn
/// from 300..=450 anew for each image.
const SIZES: [(u32, (u32, u32)); 12] = [
    (32, (500, 375)),
    (17, (500, 333)),
    (11, (375, 500)),
    (8, (333, 500)),
    (12, (500, 0)),
    (5, (0, 500)),
    (3, (500, 500)),
    (4, (640, 480)),
    (2, (800, 600)),
    (3, (400, 300)),
    (2, (320, 240)),
    (1, (256, 256)),
];

/// What a set consists of. Two sets of the same recipe are the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of the generator.
    version: u32,
    /// Images in `train`.
    pub images: u64,
    /// Images in `val`; 0 leaves the split out.
    pub val: u64,
    /// The first so many shapes are classes, 1 to [`MOST_CLASSES`].
    pub classes: u32,
    /// Another seed gives another set.
    pub seed: u64,
    /// Width and height of every image; the built-in distribution of sizes where absent.
    pub size: Option<(u32, u32)>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Images in all splits.
    pub images: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// The same set was there already, so nothing was written.
    pub present: bool,
}

/// The reason why a set could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter is out of range.
    #[error("{0}")]
    Parameter(String),
    /// The output holds something else.
    #[error(
        "{}: not empty, and not this image set: {why}; name another folder or remove it",
        Escaped::new(path)
    )]
    Occupied {
        /// The output folder.
        path: PathBuf,
        /// How it differs.
        why: String,
    },
    /// Another process is writing the same set.
    #[error("{}: another process is writing this image set", Escaped::new(path))]
    Busy {
        /// The folder of the unfinished set.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {error}", Escaped::new(path))]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Io { path, error }
}

#[derive(Clone, Copy)]
enum Split {
    Train,
    Val,
}

/// An image: where it goes, and its line of labels.
struct Picture {
    scene: Scene,
    path: String,
}

impl Recipe {
    /// Makes a set of this many training and validation images.
    pub fn new(images: u64, val: u64) -> Recipe {
        Recipe {
            version: VERSION,
            images,
            val,
            classes: 10,
            seed: 0,
            size: None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let parameter = |text: String| Err(Error::Parameter(text));
        if self.images == 0 {
            return parameter("--images: at least one image is needed".into());
        }
        if self.images.max(self.val) > 100_000_000 {
            return parameter("--images, --val: at most 100000000 images".into());
        }
        if !(1..=MOST_CLASSES).contains(&self.classes) {
            return parameter(format!(
                "--classes {}: there are 1 to {MOST_CLASSES} classes",
                self.classes
            ));
        }
        if let Some((width, height)) = self.size {
            let fits = |side: u32| (LEAST_SIDE..=LARGEST_SIDE).contains(&side);
            if !fits(width) || !fits(height) || width.max(height) > 4 * width.min(height) {
                return parameter(format!(
                    "--size {width}x{height}: sides are {LEAST_SIDE} to {LARGEST_SIDE} pixels, the longer at most four times the shorter"
                ));
            }
        }
        Ok(())
    }

    fn picture(&self, split: Split, index: u64) -> Picture {
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        // One stream per image; the top bit tells the splits apart.
        generator.set_stream(index | (split as u64) << 63);
        let mut draw = Draw(generator);
        let drawn = size(&mut draw);
        let (width, height) = self.size.unwrap_or(drawn);
        let shape = Shape::ALL[(index % u64::from(self.classes)) as usize];
        let scene = Scene::draw(&mut draw, shape, width, height);
        let split = match split {
            Split::Train => "train",
            Split::Val => "val",
        };
        let name = shape.name();
        Picture {
            scene,
            path: format!("{split}/{name}/{name}_{index:08}.JPEG"),
        }
    }

    /// Returns the `position`th image of the whole set, training images first.
    fn at(&self, position: u64) -> Picture {
        match position.checked_sub(self.images) {
            None => self.picture(Split::Train, position),
            Some(index) => self.picture(Split::Val, index),
        }
    }
}

fn size(draw: &mut Draw) -> (u32, u32) {
    let mut ticket = draw.below(SIZES.iter().map(|(weight, _)| weight).sum());
    let other = 300 + draw.below(151);
    for (weight, (width, height)) in SIZES {
        if ticket < weight {
            let filled = |side| if side == 0 { other } else { side };
            return (filled(width), filled(height));
        }
        ticket -= weight;
    }
    unreachable!("the ticket is below the sum of the weights")
}

impl Picture {
    fn labels(&self) -> String {
        let scene = &self.scene;
        format!(
            "{},{},{:.3},{}\n",
            self.path,
            scene.objects.len(),
            scene.objects[0].z,
            scene.ground.kind
        )
    }

    fn jpeg(&self) -> Vec<u8> {
        let pixels = paint::paint(&self.scene);
        let mut bytes = Vec::with_capacity(pixels.len() / 3);
        JpegEncoder::new_with_quality(&mut bytes, QUALITY)
            .write_image(
                &pixels,
                self.scene.width,
                self.scene.height,
                ExtendedColorType::Rgb8,
            )
            .expect("a JPEG of a checked size, written to memory");
        bytes
    }
}

/// Makes the set `recipe` at `out` with `workers` threads, telling `progress` the number of finished images.
pub fn generate(
    out: &Path,
    recipe: &Recipe,
    workers: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Summary, Error> {
    recipe.check()?;
    let total = recipe.images + recipe.val;
    if let Some(bytes) = present(out, recipe)? {
        return Ok(Summary {
            images: total,
            bytes,
            present: true,
        });
    }
    let (partial, _lock) = claim(out)?;
    let made = write(&partial, recipe, workers, progress).and_then(|bytes| {
        fs::rename(&partial, out).map_err(at(out))?;
        Ok(Summary {
            images: total,
            bytes,
            present: false,
        })
    });
    if made.is_err() {
        // The reason matters more than a failure to tidy up; the next run clears the folder anyway.
        let _ = fs::remove_dir_all(&partial);
    }
    made
}

/// Returns the size of the set if `out` is it already; an error if `out` is something else.
fn present(out: &Path, recipe: &Recipe) -> Result<Option<u64>, Error> {
    let occupied = |why: &str| Error::Occupied {
        path: out.to_owned(),
        why: why.to_owned(),
    };
    match fs::read_dir(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(out)(error)),
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(None);
            }
        }
    }
    let path = out.join(RECIPE_FILE);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(occupied("it holds no .synth.json"));
        }
        read => read.map_err(at(&path))?,
    };
    let found: Recipe =
        serde_json::from_slice(&text).map_err(|_| occupied("its .synth.json is not understood"))?;
    if found != *recipe {
        return Err(occupied(
            "it was made with other parameters, see its .synth.json",
        ));
    }
    let path = out.join(LABELS_FILE);
    let labels = fs::read_to_string(&path).map_err(at(&path))?;
    let (mut images, mut bytes) = (0, 0);
    for line in labels.lines().skip(1) {
        let path = out.join(line.split(',').next().unwrap_or_default());
        bytes += fs::metadata(&path).map_err(at(&path))?.len();
        images += 1;
    }
    if images != recipe.images + recipe.val {
        return Err(occupied("its labels.csv does not list every image"));
    }
    Ok(Some(bytes))
}

/// Returns an empty `<OUT>.partial`, locked for this process. What an interrupted run left there is cleared.
fn claim(out: &Path) -> Result<(PathBuf, File), Error> {
    let name = out.file_name().ok_or_else(|| {
        Error::Parameter(format!("{}: name a folder to create", Escaped::new(out)))
    })?;
    let mut partial = name.to_owned();
    partial.push(".partial");
    let partial = out.with_file_name(partial);
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    match fs::create_dir(&partial) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(at(&partial)(error));
        }
        _ => {}
    }
    if disk::is_link(&partial) {
        return Err(Error::Occupied {
            path: partial,
            why: "it is a link".into(),
        });
    }
    let lock = File::open(&partial).map_err(at(&partial))?;
    if disk::try_lock(&lock, &partial) == Tried::Held {
        return Err(Error::Busy { path: partial });
    }
    // Only what an earlier run wrote is cleared: it wrote its recipe first.
    let mut entries = fs::read_dir(&partial).map_err(at(&partial))?.peekable();
    if entries.peek().is_some() && !partial.join(RECIPE_FILE).exists() {
        return Err(Error::Occupied {
            path: partial,
            why: "it holds no .synth.json".into(),
        });
    }
    for entry in entries {
        let path = entry.map_err(at(&partial))?.path();
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(at(&path))?;
    }
    Ok((partial, lock))
}

/// Writes the whole set into the empty folder `root`; returns the bytes of its images.
fn write(
    root: &Path,
    recipe: &Recipe,
    workers: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, Error> {
    let path = root.join(RECIPE_FILE);
    let mut text = serde_json::to_string_pretty(recipe).expect("a recipe is plain data");
    text.push('\n');
    fs::write(&path, text).map_err(at(&path))?;
    for (split, images) in [("train", recipe.images), ("val", recipe.val)] {
        for shape in Shape::ALL.iter().take(
            (recipe
                .classes
                .min(u32::try_from(images).unwrap_or(u32::MAX))) as usize,
        ) {
            let path = root.join(split).join(shape.name());
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
    }

    let total = recipe.images + recipe.val;
    let (next, finished, bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    // Each worker keeps its lines with their positions; they are put in order at the end.
    let worker = || -> Result<Vec<(u64, String)>, Error> {
        let mut lines = Vec::new();
        // RELAXED all of these: independent counters and a hint to stop; the join below orders everything else.
        while !failed.load(Ordering::Relaxed) {
            let position = next.fetch_add(1, Ordering::Relaxed);
            if position >= total {
                break;
            }
            let picture = recipe.at(position);
            let jpeg = picture.jpeg();
            let path = root.join(&picture.path);
            if let Err(error) = fs::write(&path, &jpeg) {
                failed.store(true, Ordering::Relaxed);
                return Err(at(&path)(error));
            }
            lines.push((position, picture.labels()));
            bytes.fetch_add(jpeg.len() as u64, Ordering::Relaxed);
            progress(finished.fetch_add(1, Ordering::Relaxed) + 1);
        }
        Ok(lines)
    };
    let mut lines = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            lines.extend(thread.join().expect("a worker does not panic")?);
        }
        Ok(())
    })?;

    lines.sort_unstable_by_key(|(position, _)| *position);
    let mut text = format!("{LABELS_HEADER}\n");
    text.extend(lines.into_iter().map(|(_, line)| line));
    let path = root.join(LABELS_FILE);
    fs::write(&path, text).map_err(at(&path))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests;
