//! Promise: `trainer report` writes a page that a browser shows without any network, whatever stands in a log.
//!
//! The browser is Debian's package `chromium`; without it, the test says that it is skipped. `SCREENSHOTS=DIR` keeps
//! what it showed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::run_ok;

/// The longest that a browser may take for a page.
const PATIENCE: Duration = Duration::from_secs(120);
/// Steps of the made-up runs.
const STEPS: u64 = 5000;
/// What a hostile log is named and filled with.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>";

/// Writes the log of a made-up run, with a restart, a skipped step, a torn line and foreign names.
fn make_run(folder: &Path, scale: f64) {
    fs::create_dir_all(folder).expect("a directory");
    let row = |step: u64| {
        let loss = match step {
            7 => "null,\"skipped\":true".to_owned(),
            step => (scale / (step + 10) as f64).to_string(),
        };
        format!(
            "{{\"version\":1,\"step\":{step},\"total_steps\":9000,\"epoch\":{},\"itr\":{},\"loss\":{loss},\"lr\":0.001,\
             \"images\":8,\"replaced\":0,\"step_ms\":100,\"wait_ms\":1,\"images_per_s\":80,\"since_s\":{},\
             \"signs\":{{\"rank_target\":{step},\"{HOSTILE}\":1}},\"novel\":{}}}\n",
            step / 100 + 1,
            step % 100,
            step / 2000,
            step % 3,
        )
    };
    let rows: String = (0..STEPS).map(row).collect();
    let log = format!("{rows}{HOSTILE}\n{{\"step\":1,");
    fs::write(folder.join("jepa_r0.jsonl"), log).expect("a log");
    let params = format!("logging:\n  folder: '{HOSTILE}'\n  scale: {scale}\n");
    fs::write(folder.join("params-ijepa.yaml"), params).expect("a configuration");
    let scores = "{\"step\":100,\"epoch\":1,\"scores\":{\"knn\":0.2}}\n{\"step\":200,\"scores\":{\"knn\":0.3}}\n";
    fs::write(folder.join("evaluations.jsonl"), scores).expect("evaluations");
}

/// Returns the browser, if there is one.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("chromium"));
    found.into_iter().find(|path| path.is_file())
}

/// Has a browser load a page, and returns what it made of it as HTML.
fn shown(browser: &Path, page: &Path, profile: &Path, width: u32, dark: bool) -> String {
    let mut arguments: Vec<String> = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=4000",
        "--dump-dom",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--window-size={width},2600"));
    arguments.push(format!("--user-data-dir={}", profile.display()));
    if dark {
        arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
    }
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        let name = format!("report-{width}{}.png", if dark { "-dark" } else { "" });
        let picture = Path::new(&folder).join(name);
        arguments.push(format!("--screenshot={}", picture.display()));
    }
    arguments.push(format!("file://{}", page.display()));
    let out = profile.with_extension("html");
    let file = fs::File::create(&out).expect("a file");
    let mut child = Command::new(browser)
        .args(&arguments)
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("it can be killed");
            panic!("the browser has not shown the page in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    fs::read_to_string(out).expect("text")
}

#[test]
fn a_browser_draws_the_page_of_several_runs_and_runs_nothing_of_theirs() {
    let site = tempfile::tempdir().expect("a temporary directory");
    let runs = [site.path().join("one"), site.path().join("<b>two")];
    make_run(&runs[0], 3.0);
    make_run(&runs[1], 2.0);
    let page = site.path().join("report.html");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (one, two, out) = (text(&runs[0]), text(&runs[1]), text(&page));
    let said = run_ok("trainer", &["report", &one, &two, "--out", &out]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let html = fs::read_to_string(&page).expect("a page");
    assert!(html.len() < 1 << 20, "{} bytes", html.len());
    assert!(!html.contains("<img"), "foreign text is markup");

    let Some(browser) = browser() else {
        eprintln!(
            "SKIPPED a page shown by a browser: no chromium (apt-get install chromium fonts-dejavu-core)"
        );
        return;
    };
    // And once more after a reader has tried the axes.
    let tried = "<script>[1, 2, 3].forEach(axis => document.querySelectorAll('#axis button')[axis].click())</script>";
    fs::write(&page, html + tried).expect("the page is written");
    for (number, (width, dark)) in [(1200, false), (390, true)].into_iter().enumerate() {
        let profile = site.path().join(format!("profile-{number}"));
        let dom = shown(&browser, &page, &profile, width, dark);
        let body = dom
            .split("<script type=\"application/json\"")
            .next()
            .unwrap_or_default();
        // What the program writes last, after all curves.
        assert!(
            dom.contains("drag in a chart"),
            "the page's program did not come to its end"
        );
        for expected in [
            "step 5,000 of 9,000",
            "aria-pressed=\"true\">hours",
            "images/s",
            "to go",
            "1 step(s) skipped",
            "1 line(s) of the log passed over",
            "Scores of evaluations",
            "Ranks of features",
            "novel",
            "Begun again at step 2,000, 4,000.",
            "Differences of configuration",
            "logging.scale",
        ] {
            assert!(body.contains(expected), "{expected} is not in the page");
        }
        // Loss, scores, ranks of features, the foreign sign, rate, speed, waiting, time of a step, the novel number.
        let charts = body.matches("<canvas").count();
        assert!(charts >= 9, "{charts} charts");
        assert!(
            !body.contains("<b>two") && !body.contains("<img"),
            "foreign text is markup"
        );
    }
}
