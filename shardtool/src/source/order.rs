//! Parts become one listing: classes get their numbers, samples their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::{Class, Contents, Error, Joined, Listing, SourceFile, SourceSplit};
use crate::dataset::{Order, SourceRecord};

/// Joins what parts hold. `place` is for messages.
pub fn arrange(place: &Path, parts: Vec<Contents>, order: Option<Order>) -> Result<Listing, Error> {
    let own = parts.iter().all(|part| part.is_ordered);
    let sequential = parts.iter().find(|part| part.is_sequential);
    let is_own = sequential.is_some() || (own && !parts.is_empty());
    let order = order.unwrap_or(if is_own { Order::Source } else { Order::Sorted });
    if let Some(part) = sequential.filter(|_| order != Order::Source) {
        return Err(Error::Unknown {
            path: place.to_owned(),
            reason: format!(
                "{} is compressed: it can be read in its own order only",
                part.name
            ),
        });
    }
    let numbering = Numbering::of(place, &parts)?;
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let name = names.join("+");
    let mut listing = Listing {
        record: SourceRecord {
            name,
            files: 0,
            bytes: 0,
            listing: 0,
        },
        classes: Vec::new(),
        splits: Vec::new(),
        labels: Joined::default(),
        ignored: Vec::new(),
        left_out: Vec::new(),
        remarks: Vec::new(),
        newest: None,
        order,
        identity: 0,
    };
    let mut labels = Vec::new();
    let mut checksums = Vec::new();
    let mut splits: Vec<(String, Vec<SourceFile>)> = Vec::new();
    for (number, part) in (0..).zip(parts) {
        for item in part.items {
            let file = SourceFile {
                class: item.class.map(|class| numbering.number(&class)),
                path: item.path,
                size: item.size,
                fault: item.fault,
                part: number,
                container: item.container,
                position: item.position,
            };
            match splits.iter_mut().find(|(name, _)| *name == item.split) {
                Some((_, files)) => files.push(file),
                None => splits.push((item.split, vec![file])),
            }
        }
        labels.push(part.labels);
        checksums.extend(part.checksum);
        listing.ignored.extend(part.ignored);
        listing.left_out.extend(part.left_out);
        listing.remarks.extend(part.remarks);
        listing.newest = listing.newest.max(part.newest);
    }
    listing.labels = Joined::new(labels);
    listing.ignored.sort_by(|a, b| a.path.cmp(&b.path));
    listing.left_out.sort_by(|a, b| a.path.cmp(&b.path));
    splits.sort_by_key(|(name, _)| (name != "train", name != "val", name.clone()));
    for (name, mut files) in splits {
        sort(&mut files, order);
        listing.splits.push(SourceSplit { name, files });
    }
    listing.classes = numbering.names;
    listing.remarks.extend(in_one_split_only(&listing));
    listing.record = SourceRecord {
        name: listing.record.name.clone(),
        ..record(&listing.splits, &listing.labels)
    };
    listing.identity = identity(&listing, &checksums);
    Ok(listing)
}

/// Returns the checksum of all that a listing says, and of what parts without a date hold.
fn identity(listing: &Listing, checksums: &[u64]) -> u64 {
    let mut identity = Xxh3::new();
    for checksum in checksums {
        identity.update(&checksum.to_le_bytes());
    }
    for class in &listing.classes {
        identity.update(format!("{class}\n").as_bytes());
    }
    for split in &listing.splits {
        identity.update(format!("\0{}\n", split.name).as_bytes());
        for file in &split.files {
            let line = format!("{}\0{} {:?}\n", file.path, file.size, file.class);
            identity.update(line.as_bytes());
        }
    }
    listing
        .labels
        .identity()
        .for_each(|bytes| identity.update(bytes));
    identity.digest()
}

/// Puts samples into their order; `FORMAT.md` describes it.
fn sort(files: &mut [SourceFile], order: Order) {
    match order {
        Order::Source => {}
        Order::Sorted => files.sort_by(|a, b| (a.class, &a.path).cmp(&(b.class, &b.path))),
        Order::Shuffled { seed } => {
            files.sort_by_cached_key(|file| {
                (
                    xxh3_64_with_seed(file.path.as_bytes(), seed),
                    file.path.clone(),
                )
            });
        }
    }
}

/// Returns the identity of a source: its size, and the checksum that `FORMAT.md` calls `source.listing`.
fn record(splits: &[SourceSplit], labels: &Joined) -> SourceRecord {
    let mut listing = Xxh3::new();
    let (mut files, mut bytes) = (0, 0);
    for file in splits.iter().flat_map(|split| &split.files) {
        listing.update(file.path.as_bytes());
        listing.update(format!("\0{}\n", file.size).as_bytes());
        files += 1;
        bytes += file.size;
    }
    labels.identity().for_each(|bytes| listing.update(bytes));
    SourceRecord {
        name: String::new(),
        files,
        bytes,
        listing: listing.digest(),
    }
}

/// The numbers of classes.
struct Numbering {
    names: Vec<String>,
    by_name: HashMap<String, u32>,
}

impl Numbering {
    /// Numbers the classes of all parts: as the parts that number them do, else in the order of their names' bytes,
    /// as a sorted list of file names in Python has them.
    fn of(place: &Path, parts: &[Contents]) -> Result<Numbering, Error> {
        let wrong = |reason: String| Error::Classes {
            path: place.to_owned(),
            reason,
        };
        let mut names: Vec<String> = Vec::new();
        for list in parts.iter().filter_map(|part| part.classes.as_ref()) {
            if !names.is_empty() && names != *list {
                let at = names.iter().zip(list).position(|(a, b)| a != b);
                let at = at.unwrap_or(names.len().min(list.len()));
                return Err(wrong(format!(
                    "parts of the source number classes differently, from number {at} on"
                )));
            }
            names.clone_from(list);
        }
        let items = || parts.iter().flat_map(|part| &part.items);
        let highest = items().filter_map(|item| match item.class {
            Some(Class::Number(number)) => Some(number),
            _ => None,
        });
        let has_names = !names.is_empty();
        if let Some(highest) = highest.max() {
            if has_names && highest as usize >= names.len() {
                return Err(wrong(format!(
                    "class {highest} where {} have names",
                    names.len()
                )));
            }
            const MOST: u32 = 1 << 20;
            if highest >= MOST {
                return Err(wrong(format!(
                    "class {highest}: more than a dataset may have"
                )));
            }
            if !has_names {
                names = (0..=highest).map(|number| number.to_string()).collect();
            }
        }
        let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let named = items().filter_map(|item| match &item.class {
            Some(Class::Name(name)) => Some(name.as_str()),
            _ => None,
        });
        let further: BTreeSet<&str> = named.filter(|name| !known.contains(name)).collect();
        if let (true, Some(first)) = (!names.is_empty(), further.first()) {
            return Err(wrong(format!(
                "class \"{first}\" is not in the list of classes"
            )));
        }
        names.extend(further.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let by_name: HashMap<String, u32> = (0..)
            .zip(&names)
            .map(|(number, name)| (name.clone(), number))
            .collect();
        if by_name.len() != names.len() {
            return Err(wrong("two classes have the same name".to_owned()));
        }
        Ok(Numbering { names, by_name })
    }

    fn number(&self, class: &Class) -> u32 {
        match class {
            Class::Number(number) => *number,
            Class::Name(name) => self.by_name[name],
        }
    }
}

/// Names the classes that not every labelled split has, and splits without labels beside those that have some.
fn in_one_split_only(listing: &Listing) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut of_splits: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for split in &listing.splits {
        let classes = split.files.iter().filter_map(|file| file.class).collect();
        of_splits.insert(&split.name, classes);
    }
    let labelled = of_splits
        .values()
        .filter(|classes| !classes.is_empty())
        .count();
    for split in &listing.splits {
        let classes = &of_splits[split.name.as_str()];
        if classes.is_empty() && labelled > 0 {
            remarks.push(format!("the images of split {} have no class", split.name));
        } else if labelled > 1 {
            let others: BTreeSet<u32> = of_splits
                .iter()
                .filter(|(name, _)| **name != split.name)
                .flat_map(|(_, classes)| classes)
                .copied()
                .collect();
            let only: Vec<&u32> = classes.difference(&others).collect();
            if let [first, ..] = &only[..] {
                let name = &listing.classes[**first as usize];
                let count = only.len();
                remarks.push(format!(
                    "{count} of the classes only in split {}, such as \"{name}\"",
                    split.name
                ));
            }
        }
    }
    if listing.classes.len() == 1 {
        remarks.push(format!(
            "all labelled images are of one class, \"{}\"",
            listing.classes[0]
        ));
    }
    remarks
}
