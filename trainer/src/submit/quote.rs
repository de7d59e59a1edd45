//! Text for the shell, for `#SBATCH` lines, and for names of files with SLURM's patterns.

use std::path::Path;

use super::Error;

/// Returns `text` as one word of the shell, whatever is in it.
pub(super) fn shell(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,+@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns `value` as it stands behind an option in a `#SBATCH` line, which sbatch takes apart in its own way.
///
/// # Errors
/// If it holds a character that ends a line or is none to see: there is no way to write that.
pub(super) fn directive(option: &'static str, value: &str) -> Result<String, Error> {
    if value.chars().any(char::is_control) {
        return Err(Error::Option {
            option,
            value: value.to_owned(),
            reason: "a character that an #SBATCH line cannot hold",
        });
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,+@%".contains(&byte);
    if !value.is_empty() && value.bytes().all(is_plain) {
        return Ok(value.to_owned());
    }
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
    Ok(format!("\"{escaped}\""))
}

/// Returns a path as a name of a file in which SLURM replaces patterns such as `%j`, with nothing to replace in it.
///
/// # Errors
/// If it holds a backslash, with which SLURM replaces nothing at all.
pub(super) fn pattern(path: &Path) -> Result<String, Error> {
    let text = text(path)?;
    if text.contains('\\') {
        return Err(Error::Path {
            path: path.to_owned(),
            reason: "SLURM takes no backslash in the name of an output file",
        });
    }
    Ok(text.replace('%', "%%"))
}

/// Returns a path as text.
///
/// # Errors
/// If it is none: a script is one.
pub(super) fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Path {
        path: path.to_owned(),
        reason: "not UTF-8",
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const HOSTILE: [&str; 12] = [
        "",
        "a b",
        "it's",
        "\"q\"",
        "$HOME `id` $(id)",
        "a\\b\\",
        "!x *?[a]{b,c}",
        "~/x",
        "#c",
        "a\nb\tc",
        "-x",
        "Fjällräven",
    ];

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in HOSTILE {
            let command = format!("printf %s. {}", shell(text));
            let output = Command::new("bash")
                .args(["-c", &command])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{text}."));
        }
        let script = format!("printf '%s|' {}", HOSTILE.map(shell).join(" "));
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            HOSTILE.join("|") + "|"
        );
        assert_eq!(shell("--config=runs/a.yaml"), "--config=runs/a.yaml");
    }

    #[test]
    fn a_directive_has_one_line() {
        assert_eq!(directive("--partition", "gpu").unwrap(), "gpu");
        assert_eq!(
            directive("--job-name", "a \"b\" \\ #c").unwrap(),
            r#""a \"b\" \\ #c""#
        );
        assert_eq!(directive("--job-name", "").unwrap(), "\"\"");
        for text in ["a\n#SBATCH --account=other", "a\r", "\u{1b}[2J"] {
            assert!(matches!(
                directive("--qos", text),
                Err(Error::Option { .. })
            ));
        }
    }

    #[test]
    fn nothing_is_replaced_in_a_folder_s_name() {
        assert_eq!(pattern(Path::new("/r/100%/a b")).unwrap(), "/r/100%%/a b");
        assert!(pattern(Path::new("/r/a\\b")).is_err());
    }
}
