//! The schedules of two published runs, against values recorded as C99 hexadecimal floats.

use std::path::{Path, PathBuf};

use serde_json::Value;
use trainer::method::schedule::{Schedule, ScheduleConfig};

/// `0x1.8p-3` and the like.
fn hexadecimal(text: &str) -> f64 {
    let (mantissa, exponent) = text
        .strip_prefix("0x")
        .and_then(|rest| rest.split_once('p'))
        .unwrap();
    let (whole, fraction) = mantissa.split_once('.').unwrap();
    let digits = u64::from_str_radix(&format!("{whole}{fraction}"), 16).unwrap();
    digits as f64 * 2f64.powi(exponent.parse::<i32>().unwrap() - 4 * fraction.len() as i32)
}

#[test]
fn hexadecimal_floats_are_read_exactly() {
    assert_eq!(hexadecimal("0x1.8p-3"), 0.1875);
    assert_eq!(hexadecimal("0x1.fffffffffffffp+0"), 2f64.next_down());
}

#[test]
fn recorded_schedules_to_the_last_bit() {
    let shared = std::env::var("IJEPA_SHARED").map(PathBuf::from);
    let shared =
        shared.unwrap_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let path = shared.join("reference/schedules.json");
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("SKIPPED: no recorded schedules at {}", path.display());
        return;
    };
    let runs: Value = serde_json::from_slice(&text).unwrap();
    let mut compared = 0;
    for (name, run) in runs
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, run)| run.is_object())
    {
        let number = |key: &str| run[key].as_f64().unwrap();
        let config = ScheduleConfig {
            epochs: run["epochs"].as_u64().unwrap(),
            warmup: number("warmup_epochs"),
            ipe_scale: number("ipe_scale"),
            start_lr: number("start_lr"),
            lr: number("lr"),
            final_lr: number("final_lr"),
            weight_decay: number("wd"),
            final_weight_decay: number("final_wd"),
            ema: [0, 1].map(|i| run["ema"][i].as_f64().unwrap()),
        };
        let schedule = Schedule::new(&config, run["ipe"].as_u64().unwrap()).unwrap();
        for row in run["rows"].as_array().unwrap() {
            let step = row["step"].as_u64().unwrap() - 1;
            let recorded = |key: &str| hexadecimal(row[key].as_str().unwrap());
            assert_eq!(
                schedule.lr(step),
                recorded("lr_hex"),
                "{name}: lr at step {step}"
            );
            assert_eq!(
                schedule.weight_decay(step),
                recorded("wd_hex"),
                "{name}: wd at step {step}"
            );
            assert_eq!(
                schedule.momentum(step),
                recorded("momentum_hex"),
                "{name}: momentum at step {step}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 100, "{compared} rows");
}
