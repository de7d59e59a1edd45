//! Metrics in Prometheus' text form: `metrics.prom` in the run directory, for node_exporter's textfile collector.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use shardtool::{Escaped, disk};

use super::moment::numbers;

/// The file's name.
const NAME: &str = "metrics.prom";

/// The file of metrics of a run.
#[derive(Debug)]
pub(super) struct Metrics {
    path: PathBuf,
    run: String,
    is_failing: bool,
}

impl Metrics {
    /// Names the file in the run directory `folder`.
    pub(super) fn new(folder: &Path) -> Metrics {
        let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = full.file_name().unwrap_or(full.as_os_str());
        Metrics {
            path: folder.join(NAME),
            run: name.to_string_lossy().into_owned(),
            is_failing: false,
        }
    }

    /// Replaces the file by the numbers of a row: a reader sees the old ones or the new.
    pub(super) fn write(&mut self, row: &Value) {
        let written = self.replace(&text(&[(&self.run, row)]));
        if let Err(error) = &written
            && !self.is_failing
        {
            let path = Escaped::new(&self.path);
            tracing::warn!("{path}: cannot be written: {error}; training goes on");
        }
        self.is_failing = written.is_err();
    }

    /// Unlike [`disk::write`], waits for no disk: the next line has other numbers.
    fn replace(&self, text: &str) -> io::Result<()> {
        let aside = self
            .path
            .with_file_name(format!("{}{NAME}", disk::TEMPORARY));
        disk::create(&aside)?.write_all(text.as_bytes())?;
        fs::rename(&aside, &self.path)
    }
}

/// Returns the latest rows of runs, each under its name, as metrics: a gauge for each number.
pub fn text(runs: &[(&str, &Value)]) -> String {
    let mut gauges: BTreeMap<String, String> = BTreeMap::new();
    for (run, row) in runs {
        let mut take = |name: &str, value: f64| {
            let name = metric(name);
            let samples = gauges.entry(name.clone()).or_default();
            let _ = writeln!(samples, "{name}{{run=\"{}\"}} {value}", label(run));
        };
        for name in ["step", "total_steps", "epoch", "time_s"] {
            if let Some(value) = row.get(name).and_then(Value::as_f64) {
                take(name, value);
            }
        }
        numbers(row, &mut take);
    }
    let mut text = String::new();
    for (name, samples) in gauges {
        let _ = write!(text, "# TYPE {name} gauge\n{samples}");
    }
    text
}

/// Returns the name of a metric.
fn metric(name: &str) -> String {
    let plain = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter.to_ascii_lowercase(),
        false => '_',
    };
    "ijepa_".chars().chain(name.chars().map(plain)).collect()
}

/// Returns the value of a label.
fn label(text: &str) -> String {
    let mut label = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => label.push_str("\\\\"),
            '"' => label.push_str("\\\""),
            '\n' => label.push_str("\\n"),
            other => label.push(other),
        }
    }
    label
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gauge_has_its_type_once_and_a_sample_for_each_run() {
        let row = json!({"step": 3, "loss": 0.5, "signs": {"rank": 7}, "time_s": 1.5e9});
        let text = text(&[("a\"\\\n", &row), ("b", &json!({"loss": 1e-9}))]);
        let expected = "# TYPE ijepa_loss gauge\n\
            ijepa_loss{run=\"a\\\"\\\\\\n\"} 0.5\n\
            ijepa_loss{run=\"b\"} 0.000000001\n\
            # TYPE ijepa_signs_rank gauge\n\
            ijepa_signs_rank{run=\"a\\\"\\\\\\n\"} 7\n\
            # TYPE ijepa_step gauge\n\
            ijepa_step{run=\"a\\\"\\\\\\n\"} 3\n\
            # TYPE ijepa_time_s gauge\n\
            ijepa_time_s{run=\"a\\\"\\\\\\n\"} 1500000000\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_file_is_replaced_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let aside = folder.path().join(".tmp-metrics.prom");
        for name in [folder.path().join(NAME), aside] {
            std::os::unix::fs::symlink(&victim, name).unwrap();
        }
        Metrics::new(folder.path()).write(&json!({"loss": 0.5}));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert!(text.ends_with("\"} 0.5\n"), "{text}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
