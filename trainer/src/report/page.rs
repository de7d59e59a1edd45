//! The page of runs: one HTML file with everything in it, or the same page live.
//!
//! The page is `page/`: a template, a style and a program that draws with uPlot (`trainer/vendor/uplot`). What is known
//! of the runs stands in it as JSON, in which nothing can end the element that holds it; the program puts all text into
//! the page as text. The page loads nothing, which its content security policy sees to as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use shardtool::{Escaped, disk};

use super::facts::{Facts, shown};
use super::follow::Followed;
use super::{Error, name_of, named, thin};
use crate::observe;

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const PROGRAM: &str = include_str!("page/page.js");
const UPLOT: &str = include_str!("../../vendor/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("../../vendor/uplot/uPlot.min.css");
/// The most points of the clock of a run.
const CLOCK: usize = 1000;
/// The share of the time, in percent, from which waiting for data is to be looked at.
const MUCH_WAITING: f64 = 10.0;

/// Runs that are shown together.
#[derive(Debug)]
pub struct Runs(Vec<Run>);

/// A run that is shown.
#[derive(Debug)]
struct Run {
    place: PathBuf,
    name: String,
    log: Followed,
    /// Why the log could not be read the last time.
    fault: Option<String>,
}

impl Runs {
    /// Finds the logs of run directories, or takes paths to logs, and reads them.
    ///
    /// # Errors
    /// If there is no log, or it cannot be read.
    pub fn open(places: &[PathBuf]) -> Result<Runs, Error> {
        let names: Vec<String> = places.iter().map(|place| name_of(place)).collect();
        let mut runs = Vec::new();
        for (place, name) in places.iter().zip(&names) {
            // Runs of the same name, as seeds below different folders, go by their paths.
            let is_alone = names.iter().filter(|other| *other == name).count() == 1;
            let full = Escaped::new(place).to_string();
            runs.push(Run {
                place: place.clone(),
                name: shown(if is_alone { name } else { &full }),
                log: Followed::find(place)?,
                fault: None,
            });
        }
        runs.iter_mut().try_for_each(|run| run.log.read())?;
        Ok(Runs(runs))
    }

    /// Reads what the logs hold by now. Of a run whose log cannot be read any more, what is known stays, beside a
    /// warning.
    pub fn read(&mut self) {
        for run in &mut self.0 {
            run.fault = run.log.read().err().map(|error| error.to_string());
        }
    }

    /// Returns names and numbers of steps of the runs.
    pub fn steps(&self) -> impl Iterator<Item = (&str, usize)> {
        let runs = self.0.iter();
        runs.map(|run| (run.name.as_str(), run.log.columns.steps.len()))
    }

    /// Returns what the page shows of the runs, each from the step that `from` has for it: all of it where that is 0 or
    /// stands for a log that is not there any more.
    ///
    /// `from` are pairs of a reading of the log and a step of it, as an earlier answer had them.
    pub fn data(&self, from: &[(u64, u64)]) -> Value {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let runs = self.0.iter().enumerate().map(|(number, run)| {
            let (reading, step) = from.get(number).copied().unwrap_or_default();
            let has_more = reading == run.log.readings && step > 0;
            run.data(has_more.then_some(step))
        });
        json!({
            "now": now.map_or(0, |now| now.as_secs()),
            "program": env!("CARGO_PKG_VERSION"),
            "runs": runs.collect::<Vec<_>>(),
        })
    }

    /// Returns the page; one that is `live` asks for more data from where it came.
    pub fn html(&self, live: bool) -> String {
        // `<` begins what could end the element; JSON has it in strings alone.
        let data = self.data(&[]).to_string().replace('<', "\\u003c");
        let names: Vec<&str> = self.0.iter().map(|run| run.name.as_str()).collect();
        let title = escape(&format!("I-JEPA: {}", names.join(", ")));
        let connect = if live { "; connect-src 'self'" } else { "" };
        // In the order of the template.
        let parts = [
            ("connect", connect),
            ("title", title.as_str()),
            ("uplot.css", UPLOT_STYLE),
            ("page.css", STYLE),
            ("live", if live { "live" } else { "still" }),
            ("data", &data),
            ("uplot.js", UPLOT),
            ("page.js", PROGRAM),
        ];
        let mut rest = TEMPLATE;
        let mut html = String::new();
        for (name, part) in parts {
            let mark = format!("{{{{{name}}}}}");
            let (before, after) = rest.split_once(&mark).expect("the template has all marks");
            html.push_str(before);
            html.push_str(part);
            rest = after;
        }
        html + rest
    }

    /// Returns the latest rows as metrics for Prometheus.
    pub fn metrics(&self) -> String {
        let runs = self.0.iter().filter(|run| run.log.columns.last.is_object());
        let rows: Vec<_> = runs
            .map(|run| (run.name.as_str(), &run.log.columns.last))
            .collect();
        observe::prometheus_text(&rows)
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, out: &Path) -> Result<(), Error> {
        // A log or a configuration has another name, and stays.
        let is_page = |ending: &std::ffi::OsStr| {
            ["html", "htm"]
                .iter()
                .any(|known| ending.eq_ignore_ascii_case(known))
        };
        if !out.extension().is_some_and(is_page) {
            return Err(Error::NotHtml {
                path: out.to_owned(),
            });
        }
        if fs::metadata(out).is_ok_and(|found| found.is_dir()) {
            let cause = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return named(out, Err(cause));
        }
        named(out, disk::write_output(out, self.html(false).as_bytes()))
    }
}

impl Run {
    /// Returns what is shown of the run; of the curves, what there is from a step on.
    fn data(&self, from: Option<u64>) -> Value {
        let columns = &self.log.columns;
        let first = from.map_or(0, |from| columns.steps.partition_point(|step| *step < from));
        let curves = columns.named.iter().filter_map(|(name, column)| {
            let points: Vec<_> = columns.points(column, first).collect();
            let curve = (!points.is_empty()).then(|| thin::curve(&points))?;
            Some((shown(name), curve))
        });
        let next = columns.steps.last().map_or(0, |step| step + 1);
        let mut data = json!({
            "name": self.name,
            "is_whole": from.is_none(),
            "next": [self.log.readings, next],
            "head": self.head(),
            "curves": curves.collect::<Map<_, _>>(),
            "clock": self.clock(first),
            "restarts": columns.restarts,
            "warnings": self.warnings(),
        });
        if from.is_none() {
            data["facts"] = Facts::read(&self.place).to_value();
        }
        data
    }

    /// Returns where the run stands.
    fn head(&self) -> Value {
        let columns = &self.log.columns;
        let last = |name: &str| columns.last.get(name).cloned().unwrap_or_default();
        let step_ms = columns.latest("step_ms");
        let images = columns.latest("images").zip(step_ms);
        let left = columns
            .total_steps
            .zip(columns.steps.last())
            .map(|(total, last)| total.saturating_sub(last + 1));
        let eta = left
            .zip(step_ms)
            .map(|(left, step_ms)| left as f64 * step_ms / 1e3);
        let number = |value: Option<f64>| value.map_or(Value::Null, thin::short);
        json!({
            "step": columns.steps.last().map(|step| step + 1),
            "total_steps": columns.total_steps,
            "epoch": last("epoch"),
            "time_s": last("time_s"),
            "loss": number(columns.latest("loss")),
            "images_per_s": number(images.map(|(images, step_ms)| images / step_ms.max(1e-9) * 1e3)),
            "step_ms": number(step_ms),
            "waiting": number(columns.latest("wait_ms").zip(step_ms).map(|(wait, step)| wait / step.max(1e-9) * 1e2)),
            "eta_s": number(eta),
            "replaced": columns.sum("replaced"),
        })
    }

    /// Returns what is to be looked at.
    fn warnings(&self) -> Vec<String> {
        let (log, columns) = (&self.log, &self.log.columns);
        let mut warnings: Vec<String> = self.fault.iter().cloned().collect();
        if columns.steps.is_empty() {
            warnings.push("no steps in the log yet".to_owned());
        }
        let mut count = |count: u64, what: &str| {
            if count > 0 {
                warnings.push(format!("{count} {what}"));
            }
        };
        count(
            columns.skipped.len() as u64,
            "step(s) skipped, their loss or gradient not finite",
        );
        count(
            columns.sum("replaced") as u64,
            "damaged sample(s) replaced by others",
        );
        count(log.foreign, "line(s) of the log passed over, damaged");
        count(columns.left_out, "number(s) left out, too many to show");
        if let Some(waiting) = columns.latest("waiting")
            && waiting >= MUCH_WAITING
        {
            warnings.push(format!(
                "waiting for data {waiting:.0} % of the time: the loader is the slower side"
            ));
        }
        warnings
    }

    /// Returns epochs, images and hours at some steps, from the index `first` on.
    fn clock(&self, first: usize) -> Value {
        let columns = &self.log.columns;
        let length = columns.steps.len();
        // The first epoch is as long as what follows says.
        let known = columns
            .steps
            .iter()
            .zip(&columns.clock)
            .find(|(_, clock)| clock[0].is_finite());
        let epoch_len = known.map(|(step, clock)| (step + 1) as f64 / clock[0]);
        let every = (length - first).div_ceil(CLOCK).max(1);
        let mut chosen: Vec<usize> = (first..length).step_by(every).collect();
        if length > first && chosen.last() != Some(&(length - 1)) {
            chosen.push(length - 1);
        }
        let steps: Vec<u64> = chosen.iter().map(|index| columns.steps[*index]).collect();
        let column = |number: usize| -> Vec<Value> {
            let value = |index: &usize| {
                let value = columns.clock[*index][number];
                let begun = (columns.steps[*index] + 1) as f64;
                match epoch_len {
                    Some(length) if number == 0 && value.is_nan() => thin::short(begun / length),
                    _ => thin::short(value),
                }
            };
            chosen.iter().map(value).collect()
        };
        json!({"steps": steps, "epochs": column(0), "images": column(1), "hours": column(2)})
    }
}

/// Returns text as HTML has it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(names: &[&str], text: &str) -> (tempfile::TempDir, Runs) {
        let folder = tempfile::tempdir().unwrap();
        let places: Vec<PathBuf> = names.iter().map(|name| folder.path().join(name)).collect();
        for place in &places {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join("jepa_r0.jsonl"), text).unwrap();
        }
        let runs = Runs::open(&places).unwrap();
        (folder, runs)
    }

    fn row(step: u64) -> String {
        let row = json!({"step": step, "epoch": step / 4 + 1, "itr": step % 4, "total_steps": 20, "images": 8,
            "loss": 0.5, "step_ms": 100.0, "wait_ms": 25.0, "</script>": 1});
        row.to_string() + "\n"
    }

    #[test]
    fn foreign_text_ends_no_element_and_the_page_asks_for_nothing() {
        let text: String = (0..6).map(row).collect();
        let (_folder, runs) = runs(&["<b>\u{202e}&"], &text);
        let html = runs.html(false);
        assert_eq!(
            html.matches("</script>").count(),
            3,
            "data and two programs"
        );
        assert!(!html.contains("<b>") && !html.contains('\u{202e}'));
        assert!(html.contains("&lt;b&gt;\\u{202e}&amp;"));
        assert!(html.contains("default-src 'none'") && !html.contains("connect-src"));
        assert!(runs.html(true).contains("connect-src 'self'"));
        assert!(!html.contains("{{"));
    }

    #[test]
    fn the_head_says_what_matters() {
        let text: String = (0..6).map(row).collect();
        let (_folder, runs) = runs(&["a", "b"], &(text + "damaged\n"));
        let data = runs.data(&[]);
        let run = &data["runs"][1];
        let head = &run["head"];
        assert_eq!(
            (&head["step"], &head["total_steps"]),
            (&json!(6), &json!(20))
        );
        assert_eq!(
            (&head["loss"], &head["images_per_s"]),
            (&json!(0.5), &json!(80.0))
        );
        assert_eq!(
            (&head["waiting"], &head["eta_s"]),
            (&json!(25.0), &json!(1.4))
        );
        let warnings = run["warnings"].to_string();
        assert!(
            warnings.contains("1 line(s) of the log") && warnings.contains("waiting for data 25 %")
        );
        assert_eq!(
            run["clock"]["epochs"],
            json!([0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
        );
        assert!(runs.metrics().contains("ijepa_loss{run=\"a\"} 0.5\n"));
    }

    #[test]
    fn a_run_that_is_lost_is_warned_of_beside_the_others() {
        let (folder, mut runs) = runs(&["a", "b"], &row(0));
        fs::remove_dir_all(folder.path().join("b")).unwrap();
        runs.read();
        let data = runs.data(&[]);
        let warnings = |run: usize| data["runs"][run]["warnings"].to_string();
        assert!(warnings(1).contains("jepa_r0.jsonl"), "{}", warnings(1));
        assert!(!warnings(0).contains("jsonl"), "{}", warnings(0));
        assert_eq!(data["runs"][1]["curves"]["loss"]["steps"], json!([0]));
    }

    #[test]
    fn a_page_takes_the_place_of_no_other_kind_of_file() {
        let (folder, runs) = runs(&["a"], &row(0));
        let log = folder.path().join("a/jepa_r0.jsonl");
        let error = runs.write(&log).unwrap_err().to_string();
        assert!(error.contains(".html"), "{error}");
        assert_eq!(fs::read_to_string(&log).unwrap(), row(0));
        runs.write(&folder.path().join("Page.HTML")).unwrap();
    }

    #[test]
    fn more_is_what_came_since_and_all_of_another_log() {
        let text: String = (0..6).map(row).collect();
        let (folder, mut runs) = runs(&["a"], &text);
        let next = runs.data(&[])["runs"][0]["next"].clone();
        assert_eq!(next, json!([1, 6]));
        let path = folder.path().join("a/jepa_r0.jsonl");
        fs::write(&path, text + &row(6)).unwrap();
        runs.read();
        let data = runs.data(&[(1, 6)]);
        assert_eq!(data["runs"][0]["curves"]["loss"]["steps"], json!([6]));
        assert_eq!(data["runs"][0]["is_whole"], json!(false));
        let again: String = (0..7).map(row).chain([row(4)]).collect();
        fs::write(&path, again).unwrap();
        runs.read();
        let run = &runs.data(&[(1, 7)])["runs"][0];
        assert_eq!(
            (&run["is_whole"], &run["next"]),
            (&json!(true), &json!([2, 5]))
        );
        fs::write(&path, row(0)).unwrap();
        runs.read();
        let run = &runs.data(&[(2, 5)])["runs"][0];
        assert_eq!(
            (&run["is_whole"], &run["next"]),
            (&json!(true), &json!([3, 1]))
        );
    }
}
