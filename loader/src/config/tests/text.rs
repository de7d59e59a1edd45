//! Faults of a file's text: its bytes, and its YAML.

use std::path::Path;

use super::super::*;
use super::message;

#[test]
fn faults_of_yaml_are_one_line_with_their_place() {
    let cases = [
        (
            "data: {a: 1}\nmask: {}\ndata: {b: 2}\n",
            "t.yaml:3:1: the key data stands here twice",
        ),
        ("data: [", "t.yaml:"),
        ("data:\n  a: 1\n b: 2\n", "t.yaml:3:2: not YAML: "),
        (
            "data: {a: 1}\n---\ndata: {}\n",
            "t.yaml:3:1: a second document begins here",
        ),
        (
            "data: {a: .nan}\n",
            "t.yaml:1:11: .nan is not a finite number",
        ),
        ("data: *x\n", "t.yaml:1:7: not YAML: "),
        ("data: \"\u{1b}", "t.yaml:"),
        ("data:\n\t- 1: [", "t.yaml:2:"),
    ];
    for (text, expected) in cases {
        let error = ConfigFile::parse(Path::new("t.yaml"), text, &[])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
        for inner in ["\n", "<input>", "Options", "policy", " at line"] {
            assert!(!error.contains(inner), "{text:?}: {error}");
        }
    }
    let error = message(&["data.crop_scale=[.nan, 1]"]);
    assert_eq!(
        error,
        "--set data.crop_scale=[.nan, 1]: .nan is not a finite number"
    );
}

#[test]
fn a_file_that_is_no_utf8_text_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = ConfigFile::load(&path, &[]).unwrap_err().to_string();
        error.split_once("t.yaml").unwrap().1.to_owned()
    };
    let utf16 = |to: fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
        let text = format!("{mark}data: {{}}");
        text.encode_utf16().flat_map(to).collect()
    };
    for bytes in [
        utf16(u16::to_le_bytes, "\u{feff}"),
        utf16(u16::to_be_bytes, "\u{feff}"),
        utf16(u16::to_le_bytes, ""),
        utf16(u16::to_be_bytes, ""),
    ] {
        let error = refused(&bytes);
        assert!(error.starts_with(": UTF-16 or UTF-32"), "{error}");
    }
    let error = refused(b"data:\n  x: \xc3\xa9caf\xe9\n");
    assert_eq!(error, ":2:10: not UTF-8; save the file as UTF-8");
    let error = refused(&vec![b' '; (16 << 20) + 1]);
    assert!(error.starts_with(": more than 16777216 bytes"), "{error}");
    // A mark in front and lines of DOS are no matter.
    std::fs::write(&path, "\u{feff}data: {x: 1}\r\nmask: {}\r\n").unwrap();
    ConfigFile::load(&path, &[]).unwrap();
}

#[test]
fn a_text_beyond_the_limits_is_told_without_the_parsers_words() {
    let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (one, other) in ('a'..'l').zip('b'..'m') {
        laughs += &format!(
            "{other}: &{other} [{}]\n",
            vec![format!("*{one}"); 9].join(",")
        );
    }
    for text in ["[".repeat(5000), laughs] {
        let error = ConfigFile::parse(Path::new("t.yaml"), &text, &[]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.ends_with(": more or deeper values than a configuration has"),
            "{error}"
        );
    }
    let file = ConfigFile::parse(Path::new("t.yaml"), "loader: {split: 2024}", &[]).unwrap();
    let error = file.section::<Loader>("loader").unwrap_err().to_string();
    assert!(
        error.ends_with("expected a string; in quotes it is text"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_mapping_is_refused_by_name() {
    for text in ["- 1\n- 2\n", "data: [", "data: {a: 1}\ndata: {b: 2}\n"] {
        let error = ConfigFile::parse(Path::new("odd.yaml"), text, &[])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("odd.yaml:"), "{error}");
    }
    let file = ConfigFile::parse(Path::new("t.yaml"), "data: 3", &[]).unwrap();
    assert_eq!(
        LoaderConfig::from_file(&file).unwrap_err().to_string(),
        "t.yaml: data: 3 is not a section of keys"
    );
}
