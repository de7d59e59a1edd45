//! The generated part of `configs/README.md`: every file and every key, as the types of the sections have them.
//!
//! Texts are the doc comments of the fields, read from the source: the first paragraph of each. Names, defaults and
//! what may differ on resume are asked of the types themselves. Where the page is out of date, the test says how to
//! write it again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use syn::{Attribute, Expr, Fields, Item, Lit, Meta, Type};

use super::super::{Config, OnResume};
use super::{OFFICIAL, parse};

/// Sections in the order of the page, with the types that hold their keys.
const SECTIONS: [(&str, &str); 10] = [
    ("data", "Data"),
    ("mask", "Mask"),
    ("meta", "Meta"),
    ("optimization", "Optimization"),
    ("logging", "Logging"),
    ("loader", "Loader"),
    ("trainer", "Trainer"),
    ("checkpoint", "Checkpoint"),
    ("method", "Method"),
    ("eval", "Eval"),
];

const BEGIN: &str =
    "<!-- Generated from the types: UPDATE=1 cargo test -p trainer --lib config -->\n";
const END: &str = "<!-- End of the generated part. -->\n";

#[test]
fn the_page_of_the_keys_is_up_to_date() {
    let path = root().join("configs/README.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page's first marker");
    let (_, after) = rest.split_once(END).expect("the page's second marker");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", generated());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    } else if page != wanted {
        let differing = wanted
            .lines()
            .zip(page.lines())
            .find(|(new, old)| new != old);
        panic!("configs/README.md is out of date (UPDATE=1 writes it): {differing:#?}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A struct's field or an enum's variant.
struct Entry {
    name: String,
    doc: String,
    /// The name of a field's type, `Option` taken off.
    kind: String,
}

fn generated() -> String {
    let types = types();
    let defaults = defaults();
    let mut page = String::from("\n## Files\n\n| file | what it is |\n|---|---|\n");
    for (name, title) in files() {
        writeln!(page, "| [`{name}`]({name}) | {title} |").unwrap();
    }
    page.push_str("\n## Keys\n");
    for (section, name) in SECTIONS {
        let (doc, fields) = &types[name];
        write!(page, "\n### `{section}`\n\n{doc}\n\n").unwrap();
        page.push_str("| key | default | on resume | meaning |\n|---|---|---|---|\n");
        let values = defaults[section].as_object().unwrap();
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let mut known: Vec<&str> = values.keys().map(String::as_str).collect();
        let mut sorted = names.clone();
        known.sort_unstable();
        sorted.sort_unstable();
        assert_eq!(
            sorted, known,
            "the fields of {name} are the keys of {section}"
        );
        let mut choices = String::new();
        for field in fields {
            let key = format!("{section}.{}", field.name);
            let default = match &values[&field.name] {
                _ if is_needed(section, &field.name) => "needed".to_owned(),
                Value::Null => "none".to_owned(),
                Value::String(text) => format!("`{text}`"),
                value => format!("`{}`", value.to_string().replace(',', ", ")),
            };
            let resume = match OnResume::of(&key) {
                OnResume::Free => "free",
                OnResume::Allowed => "if allowed",
                OnResume::Fixed => "fixed",
            };
            let mut meaning = field.doc.clone();
            // A type of a value is no choice: it has no variants, and no fields with names.
            let choice = types.get(&field.kind).filter(|(_, all)| !all.is_empty());
            if let Some((_, variants)) = choice {
                let names: Vec<String> = variants
                    .iter()
                    .map(|each| format!("`{}`", each.name))
                    .collect();
                write!(meaning, " One of {}.", names.join(", ")).unwrap();
                for each in variants {
                    writeln!(choices, "| `{key}: {}` | {} |", each.name, each.doc).unwrap();
                }
            }
            writeln!(
                page,
                "| `{}` | {default} | {resume} | {meaning} |",
                field.name
            )
            .unwrap();
        }
        if !choices.is_empty() {
            write!(page, "\n| choice | meaning |\n|---|---|\n{choices}").unwrap();
        }
    }
    page.push('\n');
    page
}

/// Returns each file of `configs/` with the first sentence of its header.
fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(root().join("configs")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = fs::read_to_string(&path).unwrap();
            let title = text.lines().next().and_then(|line| line.strip_prefix("# "));
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.insert(
                name,
                title.expect("a header says what a file is").to_owned(),
            );
        }
    }
    files
}

/// Tells whether a file without this key is refused.
fn is_needed(section: &str, key: &str) -> bool {
    let mut tree = official();
    tree[section]
        .as_object_mut()
        .is_some_and(|keys| keys.remove(key).is_some())
        && parse(&tree.to_string(), &[]).is_err()
}

fn official() -> Value {
    let mut tree: Value = serde_saphyr::from_str(OFFICIAL).unwrap();
    for (section, _) in SECTIONS {
        if tree.get(section).is_none() {
            tree[section] = Value::Object(serde_json::Map::new());
        }
    }
    tree
}

/// Returns every key with its default; keys that have none hold some value.
fn defaults() -> serde_json::Map<String, Value> {
    let mut tree = official();
    for (section, _) in SECTIONS {
        let keys = tree[section].as_object_mut().unwrap();
        keys.retain(|key, _| is_needed(section, key));
    }
    let config: Config = parse(&tree.to_string(), &[]).unwrap();
    config.resolved()
}

/// Returns the structs and enums of both configurations by name: what each is, and its fields or variants.
fn types() -> BTreeMap<String, (String, Vec<Entry>)> {
    let mut types = BTreeMap::new();
    for folder in ["loader/src/config", "trainer/src/config"] {
        let folder = root().join(folder);
        let inside = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for path in inside.chain([folder.with_extension("rs")]) {
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
            for item in file.items {
                let (name, attributes, entries) = match item {
                    Item::Struct(item) => (item.ident, item.attrs, fields(item.fields)),
                    Item::Enum(item) => {
                        let variants = item.variants.into_iter().map(|variant| Entry {
                            // All of them are `rename_all = "lowercase"`; `choices_are_read` holds it.
                            name: variant.ident.to_string().to_lowercase(),
                            doc: doc(&variant.attrs),
                            kind: String::new(),
                        });
                        (item.ident, item.attrs, variants.collect())
                    }
                    _ => continue,
                };
                types.insert(name.to_string(), (doc(&attributes), entries));
            }
        }
    }
    types
}

fn fields(fields: Fields) -> Vec<Entry> {
    fields
        .into_iter()
        .filter_map(|field| {
            Some(Entry {
                name: field.ident?.to_string(),
                doc: doc(&field.attrs),
                kind: last_name(&field.ty),
            })
        })
        .collect()
}

fn last_name(kind: &Type) -> String {
    match kind {
        Type::Path(path) => path.path.segments.last().unwrap().ident.to_string(),
        _ => String::new(),
    }
}

/// Returns the first paragraph of a doc comment.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value().trim().to_owned()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        });
    let paragraph: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join(" ");
    paragraph.replace('|', "\\|")
}

/// The names that the page gives for a key's choices are those that the key takes, and no text has a link into code.
#[test]
fn choices_are_read_and_texts_are_for_users() {
    let types = types();
    for (section, name) in SECTIONS {
        let (_, fields) = &types[name];
        for field in fields {
            let key = format!("{section}.{}", field.name);
            assert!(
                !field.doc.is_empty() && !field.doc.contains("[`"),
                "{key}: {}",
                field.doc
            );
            assert!(field.doc.ends_with('.'), "{key}: {}", field.doc);
            for choice in types
                .get(&field.kind)
                .map_or(&[][..], |(_, variants)| variants)
            {
                let set = format!("{key}={}", choice.name);
                // Some laws have numbers of masks of their own.
                let targets = match choice.name.as_str() {
                    "block" | "random" => "mask.num_pred_masks=1",
                    "rasterized" => "mask.num_pred_masks=3",
                    _ => "mask.num_pred_masks=4",
                };
                let config = parse(OFFICIAL, &[&set, targets])
                    .unwrap_or_else(|error| panic!("{set}: {error}"));
                assert_eq!(
                    config.resolved()[section][&field.name],
                    choice.name.as_str()
                );
            }
        }
    }
}
