//! Crops that change their size in mid-run.

use super::*;

use crate::checkpoint;
use crate::method::positions;

const SIZES: &str = "data.crop_size={0: 32, 1: 48, 2: 40}";
/// The tensors that depend on the size.
const POSITIONS: [(&str, &str); 3] = [
    ("encoder", "pos_embed"),
    ("predictor", "predictor_pos_embed"),
    ("target_encoder", "pos_embed"),
];

fn resizing(config: &Config) -> MadeUp {
    MadeUp {
        crop_size: config.loader.data.crop_size.clone(),
        ..source(1, 2)
    }
}

/// Returns the patches along a side that the positions of a checkpoint are for, of each network.
fn grids(folder: &Path, step: u64) -> Vec<i64> {
    let path = Store::new(folder, "jepa").path(step);
    let grid = |(part, name): (&str, &str)| {
        positions::grid(&checkpoint::read_part(&path, part).unwrap()[name]).unwrap()
    };
    POSITIONS.map(grid).to_vec()
}

/// Stopped in any step, those before and after a change among them, a run goes on as the one that nobody stopped.
#[test]
fn a_run_interrupted_anywhere_is_the_undisturbed_one_bit_by_bit() {
    let whole = tempfile::tempdir().unwrap();
    let config_of = |folder: &tempfile::TempDir| {
        config(
            folder.path(),
            &[SIZES, "checkpoint.every_steps=null", "checkpoint.keep=9"],
        )
    };
    let undisturbed = config_of(&whole);
    let (undisturbed, outcome) = run(&undisturbed, &mut resizing(&undisturbed));
    assert_eq!((outcome, undisturbed.step), (Outcome::Finished, 9));
    assert!(rows(whole.path()).iter().all(|row| row.loss.is_finite()));
    // After each epoch of three steps: the size of the last of them.
    assert_eq!(
        [3, 6, 9].map(|step| grids(whole.path(), step)[0]),
        [4, 6, 5]
    );
    for at in 0..8 {
        let parts = tempfile::tempdir().unwrap();
        let config = config_of(&parts);
        let stopped = MadeUp {
            stop: Some((at, Stop::default())),
            ..resizing(&config)
        };
        let (first, outcome) = run(&config, &mut { stopped });
        assert_eq!(
            (outcome, first.step),
            (Outcome::Preempted("SIGTERM"), at + 1)
        );
        let grid = [4, 4, 4, 6, 6, 6, 5, 5][at as usize];
        assert_eq!(
            grids(parts.path(), at + 1),
            [grid; 3],
            "stopped in step {at}"
        );
        let (second, outcome) = run(&config, &mut resizing(&config));
        assert_eq!((outcome, second.step), (Outcome::Finished, 9));
        assert_eq!(
            losses(parts.path()),
            losses(whole.path()),
            "stopped in step {at}"
        );
        assert_same(&undisturbed, &second);
    }
}

/// Nothing but the positions is another after a change of size; they are those of networks made for it.
#[test]
fn a_change_of_size_gives_other_positions_and_nothing_else() {
    let device = Device::Cpu;
    let mut ijepa = IJepa::new(&model(), 1, device).unwrap();
    let before: Vec<_> = ijepa
        .state()
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.copy()))
        .collect();
    ijepa.resize(48).unwrap();
    let large = ModelConfig {
        image_size: 48,
        ..model()
    };
    let made = IJepa::zeroed(&large, device).unwrap().state();
    for (((name, before), (_, now)), (_, made)) in before.iter().zip(ijepa.state()).zip(made) {
        if name.ends_with("pos_embed") {
            assert!(now.equal(&made) && now.size() != before.size(), "{name}");
            assert!(!now.requires_grad(), "{name}");
        } else {
            assert!(now.equal(before), "{name}");
        }
    }
    assert_eq!(ijepa.encoder.config(), &large);
    assert_eq!(ijepa.target_encoder.config(), &large);
    assert!(ijepa.resize(7).is_err(), "no patch of 8 pixels");
    assert_eq!(ijepa.encoder.config(), &large);
}

/// Positions that are no fixed table are kept, as long as no other size is to come.
#[test]
fn positions_that_cannot_be_computed_end_a_run_before_it_begins() {
    for (network, name) in POSITIONS {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &[SIZES, "trainer.stop_at_step=4"]);
        // In the midst of the second size, with another to come.
        run(&config, &mut resizing(&config));
        let spoil = |run: &mut Run| {
            let whole = format!("{network}.{name}");
            let state = run.ijepa.state();
            let (_, tensor) = state.iter().find(|(name, _)| *name == whole).unwrap();
            let _ = tch::no_grad(|| tensor.shallow_clone().fill_(0.5));
        };
        let later = ["trainer.stop_at_step=5", SIZES];
        let config = super::config(folder.path(), &later);
        let (_, outcome) = run_until(&config, &mut resizing(&config), &PowerCut::never(), spoil);
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        let latest = Store::new(folder.path(), "jepa").latest().unwrap().unwrap();
        let state = checkpoint::read_state(&latest).unwrap();
        let begin = |sizes| {
            let config = super::config(folder.path(), &[sizes]);
            Run::of(
                &model(),
                &config,
                &state,
                Some(&latest),
                Device::Cpu,
                Ranks::alone(),
            )
        };
        let message = begin(SIZES).err().unwrap().to_string();
        let wanted = format!(
            "state: `{network}.{name}` is not the sine-cosine table of fixed positions, so it cannot be computed for \
             images of 40 pixels instead of 48"
        );
        assert!(
            message.contains(&wanted) && !message.contains("last-good"),
            "{message}"
        );
        let kept = begin("data.crop_size=48").unwrap();
        assert_eq!(kept.ijepa.encoder.config().image_size, 48);
    }
}

/// A run that ends in the first step of a size, which it has taken up, and has no checkpoint of that moment but the
/// last one that it writes. Images of another size than the step's are what ends it.
#[test]
fn a_step_of_a_new_size_that_fails_is_done_again() {
    let sets = [
        SIZES,
        "checkpoint.every_steps=null",
        "checkpoint.every_epochs=9",
    ];
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config_of = |folder: &tempfile::TempDir| config(folder.path(), &sets);
    let undisturbed = config_of(&whole);
    let (undisturbed, _) = run(&undisturbed, &mut resizing(&undisturbed));

    let wrong = config(parts.path(), &["data.crop_size={0: 32, 1: 40}"]);
    let mut wrong = resizing(&wrong);
    let config = config_of(&parts);
    let (first, outcome) = run_until(&config, &mut wrong, &PowerCut::never(), |_| {});
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, Error::Compute(crate::Error::ImageSize { .. })),
        "{error}"
    );
    assert_eq!((first.step, steps(parts.path())), (3, vec![3]));
    assert_eq!(grids(parts.path(), 3), [6; 3]);
    let (second, outcome) = run(&config, &mut resizing(&config));
    assert_eq!((outcome, second.step), (Outcome::Finished, 9));
    assert_eq!(losses(parts.path()), losses(whole.path()));
    assert_same(&undisturbed, &second);
}
