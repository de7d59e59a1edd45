//! Losses and gradients that are not finite.

use super::*;

fn is_finite(run: &Run) -> bool {
    weights(run)
        .iter()
        .all(|(_, tensor)| bool::try_from(tensor.isfinite().all()).unwrap())
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_before_it_does_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (run, outcome) = run(
        &config(folder.path(), &[]),
        &mut MadeUp {
            broken: vec![5],
            ..source(2, 2)
        },
    );
    let Outcome::NotFinite {
        step,
        losses,
        gradient_norm,
        samples,
        dump,
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!((step, run.step), (5, 5));
    assert!(losses[0].is_finite() && losses[1].is_nan() && gradient_norm.is_nan());
    assert_eq!(samples, [22, 23], "those of the second group of step 5");
    assert_eq!(
        steps(folder.path()).last(),
        Some(&4),
        "no checkpoint after the fault"
    );
    assert!(is_finite(&run));

    let report = std::fs::read_to_string(dump.as_ref().unwrap().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["step"], 5);
    assert_eq!(report["groups"][0]["loss"], losses[0]);
    assert_eq!(report["groups"][1]["loss"], "NaN");
    assert_eq!(report["groups"][1]["samples"], serde_json::json!([22, 23]));
    assert_eq!(report["gradient_norms"]["encoder.norm.weight"], "NaN");
    assert!(report["weight_norms"]["encoder.norm.weight"].is_number());
    assert_eq!(report["learning_rate"], run.schedule.lr(5));
    let bytes = std::fs::read(dump.as_ref().unwrap().join("group1.safetensors")).unwrap();
    let group = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(group.tensor("images").unwrap().shape(), [2, 3, 32, 32]);
    assert_eq!(group.tensor("target1").unwrap().shape(), [2, 4]);
    assert_eq!(group.tensor("context0").unwrap().shape(), [2, 7]);
    assert_eq!(
        group.tensor("sample_ids").unwrap().data()[..8],
        22i64.to_le_bytes()
    );
    assert!(
        !dump.as_ref().unwrap().join("group0.safetensors").exists(),
        "it is not at fault"
    );
}

#[test]
fn a_gradient_that_overflows_stops_the_run_although_the_loss_is_finite() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &[]);
    let poison = |run: &mut Run| {
        let weights = run.ijepa.state().into_iter();
        let (_, mut weight) = weights
            .into_iter()
            .find(|(name, _)| name == "predictor.predictor_proj.weight")
            .unwrap();
        tch::no_grad(|| drop(weight.fill_(1e30)));
    };
    let (run, outcome) = run_until(&config, &mut source(2, 2), &PowerCut::never(), poison);
    let Outcome::NotFinite {
        step,
        losses,
        gradient_norm,
        samples,
        dump,
    } = outcome.unwrap()
    else {
        panic!("it went on to step {}", run.step)
    };
    assert_eq!(step, 0);
    assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    assert!(!gradient_norm.is_finite());
    assert_eq!(samples, [0, 1, 2, 3], "any of them");
    assert!(dump.as_ref().unwrap().join("group1.safetensors").exists());
    assert!(is_finite(&run));
}

#[test]
fn skipped_steps_move_nothing_and_a_resumed_run_skips_the_same() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sets = ["trainer.on_nonfinite=skip", "trainer.max_skipped=2"];
    let broken = || MadeUp {
        broken: vec![3, 4, 7],
        ..source(1, 2)
    };
    let (undisturbed, outcome) = run(&config(whole.path(), &sets), &mut broken());
    assert_eq!((outcome, undisturbed.step), (Outcome::Finished, 9));
    assert!(is_finite(&undisturbed));
    let skipped: Vec<u64> = rows(whole.path())
        .iter()
        .filter(|record| record.skipped && record.loss.is_nan())
        .map(|record| record.step)
        .collect();
    assert_eq!(skipped, [3, 4, 7]);
    assert_eq!(losses(whole.path()).len(), 9, "their rows are there");
    // As many optimizer steps as there were good ones.
    let (_, count) = undisturbed.optimizer.state().swap_remove(0);
    assert_eq!(f32::try_from(count).unwrap(), 6.0);

    // Interrupted between the two skips in a row.
    let stop = Some((3, Stop::default()));
    let config = config(parts.path(), &sets);
    let (first, outcome) = run(&config, &mut MadeUp { stop, ..broken() });
    assert_eq!((outcome, first.step), (Outcome::Preempted("SIGTERM"), 4));
    assert_eq!(first.skipped, 1);
    let (second, _) = run(&config, &mut broken());
    assert_eq!(losses(parts.path()), losses(whole.path()));
    assert_same(&undisturbed, &second);
}

#[test]
fn too_many_skipped_steps_in_a_row_stop_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["trainer.on_nonfinite=skip", "trainer.max_skipped=2"];
    let mut broken = MadeUp {
        broken: vec![1, 3, 4, 5, 6],
        ..source(1, 2)
    };
    let (_, outcome) = run(&config(folder.path(), &sets), &mut broken);
    assert!(
        matches!(outcome, Outcome::NotFinite { step: 5, .. }),
        "{outcome:?}"
    );
    // Begun again it comes to the same end; it may go on where more is allowed.
    let sets = ["trainer.on_nonfinite=skip", "trainer.max_skipped=4"];
    let (run, outcome) = run(&config(folder.path(), &sets), &mut broken);
    assert_eq!((outcome, run.step), (Outcome::Finished, 9));
}
