//! How sources are understood: the options that `build` and `verify --repair` share, since they decide what a source's
//! images are called and which classes they have.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::builder::TypedValueParser;
use globset::{Glob, GlobSetBuilder};
use shardtool::Escaped;
use shardtool::program::arguments;
use shardtool::source::{Layout, Options, Request};

/// Options that say how sources are read.
#[derive(Debug, PartialEq, clap::Args)]
pub struct Reading {
    /// The classes of ImageNet's images for validation: the devkit, the list of synsets, valprep.sh or
    /// LOC_val_solution.csv [default: such a file beside the archive]
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    val_labels: Option<PathBuf>,
    /// Names of the classes, one a line; their numbers are those of the lines, from 0
    #[arg(long, value_name = "FILE", value_parser = arguments::path())]
    classes: Option<PathBuf>,
    /// What folders mean: as their names suggest, or each is a class, or a split, or nothing
    #[arg(long, value_enum, default_value = "auto")]
    layout: Layout,
    /// How many levels of folders make a class: 2 for places like a/abbey
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    class_depth: u8,
    /// Leave out files and folders whose path, or any name in it, is like this; may be given several times
    #[arg(long, value_name = "GLOB", value_parser = arguments::text().try_map(|text| glob(&text)))]
    exclude: Vec<Glob>,
}

impl Reading {
    /// Tells whether none of the options was given.
    pub fn is_default(&self) -> bool {
        *self
            == Reading {
                val_labels: None,
                classes: None,
                layout: Layout::Auto,
                class_depth: 1,
                exclude: Vec::new(),
            }
    }

    /// Returns a request for these sources and lists, read with these options for a dataset at a path: where that is or
    /// will be, there is room for what comes through a pipe.
    pub fn request(
        &self,
        sources: &[PathBuf],
        lists: &[PathBuf],
        dataset: &Path,
    ) -> anyhow::Result<Request> {
        let dataset = std::path::absolute(dataset)?;
        let folder = dataset.ancestors().find(|path| path.is_dir());
        let mut exclude = GlobSetBuilder::new();
        for glob in &self.exclude {
            exclude.add(glob.clone());
        }
        Ok(Request {
            sources: sources.to_owned(),
            lists: lists.to_owned(),
            val_labels: self.val_labels.clone(),
            options: Options {
                layout: self.layout,
                class_depth: usize::from(self.class_depth),
                exclude: exclude.build().context("--exclude")?,
                classes: self.classes.as_deref().map(class_names).transpose()?,
                scratch: folder.unwrap_or(Path::new("/")).to_owned(),
                ..Options::default()
            },
            order: None,
        })
    }
}

/// Reads a glob; as paths have it, without `./` before or a slash behind.
fn glob(text: &str) -> Result<Glob, globset::Error> {
    Glob::new(text.trim_start_matches("./").trim_end_matches('/'))
}

/// Reads a file of class names.
fn class_names(path: &Path) -> anyhow::Result<Vec<String>> {
    let shown = Escaped::new(path);
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown}: cannot be read"))?;
    let names: Vec<String> = text.lines().map(str::to_owned).collect();
    ensure!(!names.is_empty(), "{shown}: names no class");
    Ok(names)
}
