//! What the folders of a tree mean, be it one on disk or one inside an archive: splits, classes, or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::SystemTime;

use globset::GlobSet;

use super::{Class, Contents, Item, Note};

/// What the folders of a tree are taken for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// What their names and numbers suggest.
    #[default]
    Auto,
    /// Each folder is a class.
    Classes,
    /// Each folder is a split, with folders of classes or images in it.
    Splits,
    /// Folders mean nothing: all images are unlabelled.
    Flat,
}

/// How sources are to be understood.
#[derive(Debug, Clone)]
pub struct Options {
    /// What folders mean.
    pub layout: Layout,
    /// How many levels of folders make a class.
    pub class_depth: usize,
    /// What is to be ignored, by path or by any name in it.
    pub exclude: GlobSet,
    /// The split of everything in this source, if the user has said so.
    pub split: Option<String>,
    /// Names of the classes by their numbers, if the user has said so.
    pub classes: Option<Vec<String>>,
    /// A folder with room for what comes through a pipe.
    pub scratch: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            layout: Layout::Auto,
            class_depth: 1,
            exclude: GlobSet::empty(),
            split: None,
            classes: None,
            scratch: std::env::temp_dir(),
        }
    }
}

impl Options {
    /// Tells if the user has excluded a path, or a folder on the way to it.
    pub fn excludes(&self, path: &str) -> bool {
        if self.exclude.is_empty() {
            return false;
        }
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.push(path.len());
        let mut start = 0;
        ends.into_iter().any(|end| {
            let name = &path[start..end];
            start = end + 1;
            self.exclude.is_match(&path[..end]) || self.exclude.is_match(name)
        })
    }
}

/// The files of a tree, before its folders mean something.
#[derive(Debug, Default)]
pub struct Tree {
    /// What is taken for an image.
    pub found: Vec<Found>,
    /// All folders, the root not among them.
    pub folders: Vec<String>,
    /// Texts of files called [`ANNOTATIONS`], by their path.
    pub annotations: Vec<(String, String)>,
    /// What holds no image.
    pub ignored: Vec<Note>,
    /// What may, and cannot be used.
    pub left_out: Vec<Note>,
    /// When the newest of the files was changed last.
    pub newest: Option<SystemTime>,
}

/// A file of a tree that is taken for an image.
#[derive(Debug)]
pub struct Found {
    /// Path below the root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Why it cannot be kept, if that is known.
    pub fault: Option<String>,
    /// Which container it lies in.
    pub container: u32,
    /// Where it lies there.
    pub position: u64,
}

/// The file with which Tiny-ImageNet labels its images for validation: name and class, separated by tabs.
pub const ANNOTATIONS: &str = "val_annotations.txt";

/// Finds out what folders mean, and gives every image its split and class.
///
/// `is_archive` tells that the tree was packed, as a rule with the folder that it came from.
pub fn arrange(tree: Tree, options: &Options, is_archive: bool) -> Contents {
    let mut contents = Contents {
        ignored: tree.ignored,
        left_out: tree.left_out,
        newest: tree.newest,
        classes: options.classes.clone(),
        ..Contents::default()
    };
    let paths: Vec<&str> = tree.found.iter().map(|found| found.path.as_str()).collect();
    let plan = Plan::make(&paths, options, is_archive);
    if !plan.root.is_empty() {
        contents
            .remarks
            .push(format!("images lie in {}", plan.root.trim_end_matches('/')));
    }
    for folder in without_image(&tree.folders, &paths) {
        if plan.expects_images(folder) {
            contents
                .left_out
                .push(Note::new(folder, "a folder without an image"));
        } else if !folder.contains('/') {
            contents
                .ignored
                .push(Note::new(folder, "a folder without an image"));
        }
    }
    let annotated = classes_of(&tree.annotations);
    for found in tree.found {
        match plan.place(&found.path, options) {
            Err(reason) => contents.left_out.push(Note::new(found.path, reason)),
            Ok((split, class)) => {
                let split = options.split.clone().unwrap_or(split);
                let class = annotated.get(&found.path).cloned().or(class);
                contents.items.push(Item {
                    split,
                    path: found.path,
                    class: class.map(Class::Name),
                    size: found.size,
                    fault: found.fault,
                    container: found.container,
                    position: found.position,
                });
            }
        }
    }
    contents
}

/// Returns the classes that files of annotations tell, by the images' paths.
fn classes_of(annotations: &[(String, String)]) -> HashMap<String, String> {
    let mut classes = HashMap::new();
    for (path, text) in annotations {
        let folder = path.strip_suffix(ANNOTATIONS).unwrap_or_default();
        for line in text.lines() {
            let mut fields = line.split('\t');
            if let (Some(name), Some(class)) = (fields.next(), fields.next()) {
                classes.insert(format!("{folder}images/{name}"), class.to_owned());
            }
        }
    }
    classes
}

/// The images below a folder.
#[derive(Debug, Default, Clone, Copy)]
struct Group {
    /// How many lie directly in it.
    direct: usize,
    /// How many lie in folders below it.
    deeper: usize,
}

impl Group {
    fn all(self) -> usize {
        self.direct + self.deeper
    }
}

/// What the folders of a tree mean.
#[derive(Debug)]
struct Plan {
    /// The folder below which everything is, with a slash at the end; or empty.
    root: String,
    /// The folders that are splits, and the splits' names; one without a folder if there are none.
    splits: Vec<(String, String)>,
    /// The folders that are splits and whose own folders mean nothing.
    flat: BTreeSet<String>,
    class_depth: usize,
}

impl Plan {
    fn make(paths: &[&str], options: &Options, is_archive: bool) -> Plan {
        let layout = options.layout;
        let mut root = String::new();
        let mut here = groups(paths, "");
        let mut splits = match layout {
            Layout::Auto => is_split_in_folders(&here),
            Layout::Splits => true,
            Layout::Classes | Layout::Flat => false,
        };
        // A folder named one level too high, or packed with the archive, is no class.
        let mut inner = String::new();
        while matches!(layout, Layout::Auto | Layout::Splits) && root.is_empty() {
            let below = groups(paths, &inner);
            let is_split = is_split_in_folders(&below)
                && below.folders.keys().any(|name| split_name(name).is_some());
            if !inner.is_empty() && is_split {
                (root, here, splits) = (inner.clone(), below, true);
            } else if let Some(only) = below.only_folder().filter(|_| !is_split) {
                inner = format!("{inner}{only}/");
            } else {
                break;
            }
        }
        if is_archive
            && root.is_empty()
            && !splits
            && layout != Layout::Flat
            && let Some(only) = here.only_folder()
        {
            root = format!("{only}/");
            here = groups(paths, &root);
        }
        let mut plan = Plan {
            root,
            splits: Vec::new(),
            flat: BTreeSet::new(),
            class_depth: options.class_depth,
        };
        if splits {
            let mut names = BTreeSet::new();
            for folder in here.folders.keys() {
                let wanted = match split_name(folder) {
                    Some(name) => name.to_owned(),
                    None if layout == Layout::Splits => plain(folder),
                    None => continue,
                };
                // `valid` beside `val` keeps a name of its own.
                let further = (2..).map(|number| format!("{}-{number}", plain(folder)));
                let mut names_to_try = [wanted, plain(folder)].into_iter().chain(further);
                let name = names_to_try
                    .find(|name| !names.contains(name))
                    .unwrap_or_default();
                names.insert(name.clone());
                plan.splits.push((format!("{folder}/"), name));
            }
        } else {
            plan.splits.push((String::new(), "train".to_owned()));
        }
        for (folder, _) in &plan.splits {
            let own = groups(paths, &format!("{}{folder}", plan.root));
            let in_folders: usize = own.folders.values().map(|group| group.all()).sum();
            let is_flat = match layout {
                Layout::Flat => true,
                Layout::Classes => false,
                Layout::Auto | Layout::Splits => own.direct > in_folders,
            };
            // One folder called `images` is where they lie, not what they show.
            let only = own.folders.iter().next().filter(|_| own.folders.len() == 1);
            let is_one = only.is_some_and(|(name, group)| *name == "images" && group.deeper == 0);
            if is_flat || (is_one && layout != Layout::Classes) {
                plan.flat.insert(folder.clone());
            }
        }
        plan
    }

    /// Returns the split of an image and its class, or why it has none.
    fn place(
        &self,
        path: &str,
        options: &Options,
    ) -> Result<(String, Option<String>), &'static str> {
        let below = path
            .strip_prefix(&self.root)
            .ok_or("outside the folder that holds the rest")?;
        let (folder, split) = self
            .splits
            .iter()
            .find(|(folder, _)| below.starts_with(folder.as_str()))
            .ok_or("outside the folders of splits (--layout classes: they are classes)")?;
        let inside = &below[folder.len()..];
        let (folders, _) = inside.rsplit_once('/').unwrap_or(("", inside));
        let class = if self.flat.contains(folder) {
            if !folders.is_empty() && folders != "images" && options.layout != Layout::Flat {
                return Err(
                    "in a folder beside the images that are the dataset (--layout classes, or flat)",
                );
            }
            None
        } else {
            let names: Vec<&str> = folders.split('/').take(self.class_depth).collect();
            if folders.is_empty() {
                return Err("beside the folders of classes (--layout flat: folders mean nothing)");
            }
            if names.len() < self.class_depth {
                return Err("in fewer folders than make a class");
            }
            Some(names.join("/"))
        };
        Ok((split.clone(), class))
    }

    /// Tells if a folder should be a class or a split.
    fn expects_images(&self, folder: &str) -> bool {
        let Some(below) = folder.strip_prefix(&self.root) else {
            return false;
        };
        if self.splits.iter().all(|(split, _)| !split.is_empty()) && split_name(below).is_some() {
            return true;
        }
        let split = self
            .splits
            .iter()
            .find(|(split, _)| below.starts_with(split.as_str()));
        split.is_some_and(|(split, _)| {
            !self.flat.contains(split) && !below[split.len()..].contains('/')
        })
    }
}

/// Returns the folders that hold no image, nor do folders in them.
fn without_image<'a>(folders: &'a [String], paths: &[&str]) -> Vec<&'a String> {
    let mut with: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        let mut folder = *path;
        while let Some((above, _)) = folder.rsplit_once('/') {
            if !with.insert(above) {
                break;
            }
            folder = above;
        }
    }
    folders
        .iter()
        .filter(|folder| !with.contains(folder.as_str()))
        .collect()
}

/// The folders and images directly in a folder.
struct Groups<'a> {
    folders: BTreeMap<&'a str, Group>,
    direct: usize,
}

impl Groups<'_> {
    /// Returns the only folder, if there is nothing beside it and no image directly in it.
    fn only_folder(&self) -> Option<&str> {
        let (name, group) = self.folders.iter().next()?;
        let alone = self.folders.len() == 1 && self.direct == 0 && group.direct == 0;
        (alone && split_name(name).is_none()).then_some(*name)
    }
}

fn groups<'a>(paths: &[&'a str], below: &str) -> Groups<'a> {
    let mut groups = Groups {
        folders: BTreeMap::new(),
        direct: 0,
    };
    for path in paths.iter().filter_map(|path| path.strip_prefix(below)) {
        match path.split_once('/') {
            None => groups.direct += 1,
            Some((folder, rest)) => {
                let group: &mut Group = groups.folders.entry(folder).or_default();
                if rest.contains('/') {
                    group.deeper += 1;
                } else {
                    group.direct += 1;
                }
            }
        }
    }
    groups
}

/// Tells if folders are splits: all are called like splits, or `train` has folders of its own as only a split has.
fn is_split_in_folders(here: &Groups<'_>) -> bool {
    let is_split = |name: &str| split_name(name).is_some();
    let folders = &here.folders;
    if folders.is_empty() || here.direct > folders.values().map(|group| group.all()).sum() {
        return false;
    }
    let train = folders
        .iter()
        .find(|(name, _)| split_name(name) == Some("train"));
    folders.keys().all(|name| is_split(name))
        || train.is_some_and(|(_, group)| group.deeper > group.direct)
}

/// Returns a folder's name as that of a split, which becomes a file's name.
fn plain(folder: &str) -> String {
    let letter = |letter: char| {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            letter
        } else {
            '-'
        }
    };
    folder.to_lowercase().chars().map(letter).collect()
}

/// Returns the name of the split that a folder's name means.
pub(super) fn split_name(folder: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 8] = [
        ("train", "train"),
        ("training", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("validation", "val"),
        ("test", "test"),
        ("testing", "test"),
        ("dev", "dev"),
    ];
    let found = NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(folder));
    found.map(|(_, split)| *split)
}
