//! Promise: an error says its cause, and says it once. A library's message holds its cause's text, so a cause is no
//! `source` that whoever prints the whole chain would say again.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use loader::LoaderConfig;
use loader::link::{self, Endpoint, Feed};
use syn::{Attribute, Fields, Item, Variant};
use tests::{Site, run};

/// Returns the sources of all crates.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = ["shardtool", "loader", "trainer", "trainer/exchange"];
    let mut folders: Vec<PathBuf> = crates.map(|name| root.join(name).join("src")).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// Returns the tokens of the attribute `name`, without spaces.
fn attribute(attributes: &[Attribute], name: &str) -> Option<String> {
    let found = attributes.iter().find(|each| each.path().is_ident(name))?;
    let tokens = match &found.meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        _ => String::new(),
    };
    Some(tokens.replace(' ', ""))
}

/// Tells whether a type or variant names a source beside a message of its own.
fn says_twice(attributes: &[Attribute], fields: &Fields) -> bool {
    match attribute(attributes, "error").as_deref() {
        None | Some("transparent") => false,
        Some(_) => fields.iter().any(|field| {
            let named = field.ident.as_ref().is_some_and(|name| name == "source");
            let marked = ["source", "from"].map(|name| attribute(&field.attrs, name).is_some());
            named || marked.contains(&true)
        }),
    }
}

#[test]
fn no_error_with_a_message_names_a_source() {
    let (mut looked_at, mut faults) = (0, Vec::new());
    for path in sources() {
        let file = syn::parse_file(&fs::read_to_string(&path).expect("a source")).expect("Rust");
        // Tests, which have their own errors, stand in modules.
        for item in file.items {
            let (name, attributes, twice) = match &item {
                Item::Enum(item) => {
                    let twice = |each: &Variant| says_twice(&each.attrs, &each.fields);
                    (&item.ident, &item.attrs, item.variants.iter().any(twice))
                }
                Item::Struct(item) => {
                    let twice = says_twice(&item.attrs, &item.fields);
                    (&item.ident, &item.attrs, twice)
                }
                _ => continue,
            };
            let derives = attribute(attributes, "derive").unwrap_or_default();
            if !derives.contains("thiserror::Error") {
                continue;
            }
            looked_at += 1;
            if twice {
                faults.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} errors found");
    assert!(
        faults.is_empty(),
        "these say their causes twice: {faults:#?}"
    );
}

/// Asserts that no link of the chain stands in the text of the one before it.
fn assert_said_once(error: &dyn Error) {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let inner = cause.to_string();
        assert!(!text.contains(&inner), "{text:?} holds {inner:?}");
        (text, next) = (inner, cause.source());
    }
}

#[test]
fn a_chain_of_causes_says_each_once() {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let missing = Path::new("/nonexistent/x.yaml");
    let config = LoaderConfig::load(missing, &[], None).expect_err("there is no such file");
    assert!(config.to_string().contains("No such file"), "{config}");
    assert_said_once(&config);
    let (path, what) = (missing.to_owned(), "binding");
    assert_said_once(&link::Error::Socket {
        path: path.clone(),
        what,
        cause: gone(),
    });
    assert_said_once(&link::Error::Io {
        what,
        cause: gone(),
    });
    assert_said_once(&loader::pipeline::Error::System {
        what: what.to_owned(),
        cause: gone(),
    });
    assert_said_once(&loader::storage::Error::Io {
        path: path.clone(),
        what,
        cause: gone(),
    });
    let original = path.clone();
    assert_said_once(&loader::storage::Error::Copy {
        path,
        original,
        cause: gone(),
    });
    assert_said_once(&shardtool::Dataset::open(missing).expect_err("there is no such dataset"));
    let patience = std::time::Duration::from_millis(1);
    let endpoint = Endpoint::Path(missing.to_owned());
    let hello = link::Hello {
        protocol: link::PROTOCOL,
        pid: 1,
        plan: loader::sampler::Plan::Pretraining,
        sampling_hash: 0,
        manifest_checksum: 0,
        rank: 0,
        world: 1,
        global_batch: 1,
        first_step: 0,
        end_step: None,
    };
    let expected = link::Welcome {
        protocol: link::PROTOCOL,
        pid: 0,
        geometry: loader::ring::Geometry {
            slots: 1,
            images_per_slot: 1,
            channels: 1,
            height: 1,
            width: 1,
            context_masks: 1,
            target_masks: 1,
            max_context: 1,
            max_target: 1,
        },
        epoch_len: 1,
        samples: 1,
        classes: 0,
        groups: 1,
    };
    let connected = Feed::connect(&endpoint, &hello, &expected, patience);
    assert_said_once(&connected.expect_err("nobody listens there"));
}

#[test]
fn programs_say_a_cause_once() {
    let site = Site::new(8);
    let config = site.path("config.yaml");
    let (missing, shards) = (site.path("missing"), site.path("shards"));
    let out = format!("{missing}/x.png");
    let resume = format!("--resume={missing}");
    let mut launch = site.launch_arguments("run");
    launch.push(resume);
    let launch: Vec<&str> = launch.iter().map(String::as_str).collect();
    let commands: [(&str, &[&str], &str); 5] = [
        ("loader", &["hash", "--config", &missing], "No such file"),
        (
            "loader",
            &[
                "show", "--config", &config, "--shards", &shards, "--out", &out,
            ],
            "No such file",
        ),
        ("trainer", &["train", "--config", &missing], "No such file"),
        ("trainer", &launch, "neither a checkpoint"),
        ("shardtool", &["inspect", &missing], "No such file"),
    ];
    for (program, arguments, cause) in commands {
        let output = run(program, arguments);
        assert_eq!(output.status.code(), Some(2), "{program} {arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said.matches(cause).count(),
            1,
            "{program} {arguments:?}: {said}"
        );
    }
}
