//! Before the first step, all ranks make sure that they do the same: one program, one configuration, one data set.

use serde_json::{Map, Value, json};
use shardtool::Manifest;

use crate::config::Config;
use crate::distributed::{Error, Ranks};

/// Compares what every rank is about to do with what rank 0 is about to do: the same error on all of them.
pub(super) fn check(config: &Config, manifest: &Manifest, ranks: &Ranks) -> Result<(), Error> {
    if ranks.are_one() {
        return Ok(());
    }
    let own = json!({
        "program": env!("CARGO_PKG_VERSION"),
        "manifest": format!("{:016x}", manifest.checksum()),
        "config": config.resolved(),
    });
    let all = ranks.gather_text(&own.to_string())?;
    let nonsense = |rank| Error::Nonsense {
        rank: ranks.name(rank),
    };
    let all = all.iter().enumerate().map(|(rank, text)| {
        let plan: Result<Map<String, Value>, _> = serde_json::from_str(text);
        plan.map_err(|_| nonsense(rank))
    });
    let all = all.collect::<Result<Vec<_>, _>>()?;
    for (rank, plan) in all.iter().enumerate().skip(1) {
        let differs = difference(&all[0], plan).ok_or_else(|| nonsense(rank))?;
        if let Some(what) = differs {
            return Err(Error::Differs {
                rank: ranks.name(rank),
                what,
            });
        }
    }
    Ok(())
}

/// Returns the first thing in which a rank's plan differs from rank 0's; `None` for what is no plan.
fn difference(first: &Map<String, Value>, plan: &Map<String, Value>) -> Option<Option<String>> {
    for (key, what) in [
        ("program", "version"),
        ("manifest", "shards with manifest checksum"),
    ] {
        let (theirs, ours) = (plan.get(key)?.as_str()?, first.get(key)?.as_str()?);
        if theirs != ours {
            return Some(Some(format!("{what} {theirs}, rank 0 has {ours}")));
        }
    }
    let config = |plan: &Map<String, Value>| {
        let resolved = plan.get("config")?.as_object()?;
        Config::from_resolved(resolved).ok()
    };
    let changes = config(plan)?.differences(&config(first)?);
    Some(changes.first().map(|change| {
        let (key, now, then) = (&change.key, &change.now, &change.then);
        format!("{key}={now}, rank 0 has {then}")
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use loader::config::ConfigFile;

    use super::*;

    fn plan(sets: &[&str], manifest: &str) -> Map<String, Value> {
        let text = include_str!("../../../configs/in1k_vith14_ep300.yaml");
        let mut sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        sets.push("logging.folder=/runs/one".into());
        let file = ConfigFile::parse(Path::new("test.yaml"), text, &sets).unwrap();
        let config = Config::from_file(&file).unwrap();
        let plan = json!({"program": "1", "manifest": manifest, "config": config.resolved()});
        plan.as_object().unwrap().clone()
    }

    #[test]
    fn what_changes_results_must_be_the_same_on_all_ranks() {
        let first = plan(&[], "aa");
        assert_eq!(difference(&first, &plan(&[], "aa")), Some(None));
        assert_eq!(
            difference(&first, &plan(&["trainer.threads=2"], "aa")),
            Some(None)
        );
        let rate = difference(&first, &plan(&["optimization.lr=0.5"], "aa"));
        assert!(rate.unwrap().unwrap().contains("optimization.lr=0.5"));
        let data = difference(&first, &plan(&[], "bb")).unwrap().unwrap();
        assert!(data.contains("bb, rank 0 has aa"), "{data}");
        assert_eq!(difference(&first, &Map::new()), None);
    }
}
