//! Options of the method: each changes a run, and none makes it depend on when it was resumed.

use super::*;

const OPTIONS: [&str; 4] = [
    "method.variance_covariance=0.001",
    "method.normality=0.5",
    "method.visible_loss=0.5",
    "method.position_noise=0.25",
];

fn trained(sets: &[&str]) -> (Run, Vec<Record>) {
    let folder = tempfile::tempdir().unwrap();
    let (run, outcome) = run(&config(folder.path(), sets), &mut source(2, 2));
    assert_eq!(outcome, Outcome::Finished);
    (run, rows(folder.path()))
}

#[test]
fn each_option_changes_what_is_learnt_and_says_what_it_added() {
    let (plain, records) = trained(&[]);
    assert!(records.iter().all(|record| record.regularizer.is_none()));
    for option in OPTIONS {
        let (run, records) = trained(&[option]);
        let changed = weights(&run)
            .iter()
            .zip(&weights(&plain))
            .any(|((_, one), (_, other))| !one.equal(other));
        assert!(changed, "{option}");
        let added: Vec<_> = records.iter().map(|record| record.regularizer).collect();
        // The loss on visible patches begins after a tenth of the run; noise adds nothing of its own.
        match option {
            "method.position_noise=0.25" => assert!(added.iter().all(Option::is_none)),
            "method.visible_loss=0.5" => {
                assert_eq!(added[0], Some(0.0));
                assert!(
                    added[1..].iter().all(|added| added.unwrap() > 0.0),
                    "{added:?}"
                );
            }
            _ => assert!(added.iter().all(|added| added.unwrap() > 0.0), "{added:?}"),
        }
    }
}

#[test]
fn a_run_with_all_options_goes_on_bit_by_bit() {
    let (whole, half) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (undisturbed, _) = run(&config(whole.path(), &OPTIONS), &mut source(2, 2));
    let stopped = [&OPTIONS[..], &["trainer.stop_at_step=4"]].concat();
    let (first, _) = run(&config(half.path(), &stopped), &mut source(2, 2));
    assert_eq!(first.step, 4);
    let (second, outcome) = run(&config(half.path(), &OPTIONS), &mut source(2, 2));
    assert_eq!(outcome, Outcome::Finished);
    assert_same(&second, &undisturbed);
    assert_eq!(losses(half.path()), losses(whole.path()));
}

#[test]
fn noise_is_that_of_the_seed() {
    let first_loss = |option: &str, seed: u64| {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &[option]);
        // The weights are those of another seed, and the same.
        let change = |run: &mut Run| run.seed = seed;
        let never = PowerCut::never();
        let (_, outcome) = run_until(&config, &mut source(2, 2), &never, change);
        outcome.unwrap();
        losses(folder.path())[0]
    };
    for option in [OPTIONS[1], OPTIONS[3]] {
        assert_eq!(first_loss(option, 3), first_loss(option, 3));
        assert_ne!(first_loss(option, 3), first_loss(option, 4), "{option}");
    }
    assert_eq!(first_loss(OPTIONS[0], 3), first_loss(OPTIONS[0], 4));
}
