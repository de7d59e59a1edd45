//! The signs of collapse in whole runs: beside the training, without a say in it.

use super::*;

use crate::observe::Signs;

/// Returns the steps with a measurement.
fn measured(folder: &Path) -> Vec<(u64, Signs)> {
    let rows = rows(folder).into_iter();
    rows.filter_map(|row| Some((row.step, row.signs?)))
        .collect()
}

#[test]
fn signs_change_nothing_and_are_the_same_after_an_interruption() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [with, without, parts] = &folders;
    let of = |folder: &Path, every: u64| {
        let every = format!("trainer.signs_every={every}");
        config(folder, &[&every])
    };
    let (one, _) = run(&of(with.path(), 2), &mut source(2, 2));
    let (other, _) = run(&of(without.path(), 0), &mut source(2, 2));
    assert_same(&one, &other);
    assert_eq!(losses(with.path()), losses(without.path()));
    assert!(measured(without.path()).is_empty());
    let whole = measured(with.path());
    let steps: Vec<u64> = whole.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [1, 3, 5, 7, 8]);
    let images: Vec<f64> = whole.iter().map(|(_, signs)| signs.images).collect();
    assert_eq!(images, [8.0, 8.0, 8.0, 8.0, 4.0]);

    // Interrupted in the midst of steps 4 and 5: their measurement alone is missing, and the others are the same.
    let config = of(parts.path(), 2);
    let stop = Some((4, Stop::default()));
    let mut first = MadeUp {
        stop,
        ..source(2, 2)
    };
    run(&config, &mut first);
    run(&config, &mut source(2, 2));
    let others: Vec<_> = whole.into_iter().filter(|(step, _)| *step != 5).collect();
    assert_eq!(measured(parts.path()), others);
}

#[test]
fn a_head_beside_the_training_changes_nothing() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [with, without] = &folders;
    let of = |folder: &Path, online: bool| config(folder, &[&format!("eval.online={online}")]);
    let (one, _) = run(&of(with.path(), true), &mut source(2, 2));
    let (other, _) = run(&of(without.path(), false), &mut source(2, 2));
    assert_same(&one, &other);
    assert_eq!(losses(with.path()), losses(without.path()));
    let told = |folder: &Path| {
        rows(folder)
            .iter()
            .filter_map(|row| row.online_top1)
            .count()
    };
    let labelled = rows(with.path()).len();
    assert_eq!((told(with.path()), told(without.path())), (labelled, 0));
}

#[test]
fn updates_are_how_far_the_weights_have_moved() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &["trainer.signs_every=1"]);
    let state = State::new(0, EPOCH_LEN, config.resolved());
    let device = Device::Cpu;
    let mut run = Run::of(&model(), &config, &state, None, device, Ranks::alone()).unwrap();
    let copies = |tensors: Vec<Tensor>| -> Vec<Tensor> {
        tensors
            .iter()
            .map(|tensor| tensor.to_kind(Kind::Double).detach().copy())
            .collect()
    };
    let of_target = |run: &Run| {
        let parameters = run.ijepa.target_encoder.parameters().iter();
        copies(
            parameters
                .map(|(_, tensor)| tensor.shallow_clone())
                .collect(),
        )
    };
    let norm = |tensors: &[Tensor]| {
        let squares = tensors
            .iter()
            .map(|tensor| tensor.square().sum(Kind::Double));
        let squares = squares.map(|square| f64::try_from(square).unwrap());
        squares.sum::<f64>().sqrt()
    };
    let moved = |before: &[Tensor], after: &[Tensor]| {
        let pairs = before.iter().zip(after);
        norm(
            &pairs
                .map(|(before, after)| after - before)
                .collect::<Vec<_>>(),
        )
    };
    let near = |one: f64, other: f64| assert!((one / other - 1.0).abs() < 1e-3, "{one} {other}");
    for _ in 0..3 {
        let before = (copies(run.ijepa.trained()), of_target(&run));
        let stats = run.step(&mut source(1, 2)).unwrap().unwrap();
        run.step += 1;
        let after = (copies(run.ijepa.trained()), of_target(&run));
        let signs = stats.signs.unwrap();
        near(signs.update_norm, moved(&before.0, &after.0));
        near(
            signs.update_ratio,
            moved(&before.0, &after.0) / norm(&before.0),
        );
        let target = moved(&before.1, &after.1) / norm(&before.1);
        near(signs.target_update_ratio, target);
    }
}

#[test]
fn a_step_that_moves_nothing_costs_a_measurement() {
    let folder = tempfile::tempdir().unwrap();
    let sets = ["trainer.signs_every=2", "trainer.on_nonfinite=skip"];
    let mut broken = MadeUp {
        broken: vec![3],
        ..source(1, 2)
    };
    run(&config(folder.path(), &sets), &mut broken);
    let steps: Vec<u64> = measured(folder.path())
        .iter()
        .map(|(step, _)| *step)
        .collect();
    assert_eq!(steps, [1, 5, 7, 8]);
}
