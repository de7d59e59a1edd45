use std::path::Path;

use super::*;

/// Reads one of the shipped configurations with changes.
pub fn official(name: &str, sets: &[&str]) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../configs")
        .join(name);
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    Config::load(&path, &sets, None).unwrap()
}

pub fn imagenet() -> Images {
    Images {
        count: IMAGENET,
        shard_bytes: IMAGENET * BYTES_PER_IMAGE,
        known_from: "a test".to_owned(),
    }
}

fn machines(nodes: u64, devices: u64, gpu: &str) -> Machines {
    let gpu = Gpu::named(gpu).unwrap();
    Machines {
        nodes,
        devices,
        gpu,
    }
}

#[test]
fn the_published_vit_h_14() {
    let config = official("in1k_vith14_ep300.yaml", &[]);
    let plan = Plan::new(&config, imagenet(), machines(2, 8, "A100-80")).unwrap();
    assert_eq!((plan.global_batch, plan.groups_per_rank), (2048, 1));
    assert_eq!((plan.epoch_len, plan.steps), (625, 187_500));
    assert_eq!(plan.fits, Fits::Yes);
    // Context and target of groups of 128 on a grid of 16 × 16.
    let [context, target] = plan.mask_lengths;
    assert!((64.0..73.0).contains(&context) && (42.0..47.0).contains(&target));
    // Weights, moments and the target encoder; gradients are not kept.
    let parameters = &plan.parameters;
    let values = parameters.encoder.all * 2 + parameters.predictor.all + parameters.trained() * 2;
    assert_eq!(plan.checkpoint_bytes, 4 * values);
    // After epochs 50, 100, …, 250, and the last two.
    assert_eq!(plan.checkpoints, 7);
    // All but a sixteenth of the gradients, twice.
    let gradients = 4 * parameters.trained();
    assert_eq!(plan.gradient_bytes, 2 * (gradients - gradients / 16));
    assert!(
        (plan.network_bits_per_s.best * plan.step_s.best / 8.0 / gradients as f64 - 1.0).abs()
            < 1e-9
    );
    assert!((plan.loader_cores.best - plan.images_per_s.best / 2.0 / 3313.0).abs() < 1e-9);

    // The paper says under 72 hours, at a fifth of the peak: the plan is that much too good for that code.
    let hours = plan.hours;
    assert!(hours.best > 22.0 && hours.worst < 40.0, "{hours:?}");
    let share = hours.map(|hours| 72.0 / hours);
    assert!(
        (1.8..3.3).contains(&share.worst) && (1.8..3.3).contains(&share.best),
        "{share:?}"
    );
    let published = plan.utilisation.worst / share.worst;
    assert!((0.15..0.25).contains(&published), "{published}");
}

#[test]
fn fewer_ranks_take_more_groups_and_as_much_memory() {
    let sets = ["optimization.global_batch=2048"];
    let config = official("in1k_vith14_ep300.yaml", &sets);
    let one = Plan::new(&config, imagenet(), machines(1, 1, "H100")).unwrap();
    let eight = Plan::new(&config, imagenet(), machines(1, 8, "H100")).unwrap();
    assert_eq!((one.groups_per_rank, eight.groups_per_rank), (16, 2));
    assert_eq!(one.steps, eight.steps);
    assert_eq!(one.memory.activations, eight.memory.activations);
    let faster = one.hours.best / eight.hours.best;
    assert!(
        (7.5..8.0).contains(&faster),
        "the update is not shared: {faster}"
    );
    assert_eq!((one.gradient_bytes, one.network_bits_per_s.best), (0, 0.0));
    // 16 groups on 7 ranks: all wait for the two that have three.
    let seven = Plan::new(&config, imagenet(), machines(1, 7, "H100")).unwrap();
    assert_eq!(seven.groups_per_rank, 3);
    assert_eq!(seven.step_s, one.speed.step_s(3.0 * 128.0));
}

#[test]
fn epochs_of_smaller_images_take_less_time_and_no_less_memory() {
    let plan = |size: &str| {
        let set = format!("data.crop_size={size}");
        let config = official("in1k_vith14_ep300.yaml", &[&set]);
        Plan::new(&config, imagenet(), machines(2, 8, "A100-80")).unwrap()
    };
    let (small, large) = (plan("168"), plan("224"));
    let both = plan("{0: 168, 200: 224}");
    let weighted = (2.0 * small.hours.best + large.hours.best) / 3.0;
    assert!((both.hours.best / weighted - 1.0).abs() < 1e-9, "{both:?}");
    assert_eq!(both.memory, large.memory);
    assert!(both.to_string().contains("its largest size, 224 px"));
}

#[test]
fn what_does_not_fit_is_said() {
    let vith = |gpu, more: &[&str]| {
        let config = official("in1k_vith14_ep300.yaml", more);
        Plan::new(&config, imagenet(), machines(1, 8, gpu))
            .unwrap()
            .fits
    };
    assert_eq!(vith("4090", &[]), Fits::No);
    assert_eq!(vith("A100-80", &[]), Fits::Yes);
    let less = [
        "trainer.activation_checkpointing=true",
        "data.batch_size=32",
    ];
    assert_eq!(vith("4090", &less), Fits::Yes);
    let gpu = Gpu::named("A100-40").unwrap();
    let gib = |number: f64| (number * f64::from(1 << 30)) as u64;
    assert_eq!(fits(gib(36.0), &gpu), Fits::Yes);
    assert_eq!(fits(gib(38.0), &gpu), Fits::Barely);
    assert_eq!(fits(gib(40.0), &gpu), Fits::No);
}

#[test]
fn checkpoints_that_stay() {
    for (epochs, keep, every, expected) in [
        (300, 2, 50, 7),
        (300, 1, 50, 6),
        (300, 2, 0, 2),
        (1, 2, 50, 1),
        (51, 2, 50, 2),
        (52, 2, 50, 3),
    ] {
        let sets = [
            format!("optimization.epochs={epochs}"),
            format!("checkpoint.keep={keep}"),
            format!("checkpoint.keep_every_epochs={every}"),
        ];
        let config = official(
            "in1k_vith14_ep300.yaml",
            &sets.each_ref().map(String::as_str),
        );
        let steps = epochs * 625;
        assert_eq!(
            checkpoints(&config, 625, steps),
            expected,
            "{epochs} {keep} {every}"
        );
    }
}

#[test]
fn a_run_in_steps_has_its_own_checkpoints_and_epochs() {
    let config = official("tiny20_mini8.yaml", &[]);
    assert_eq!(checkpoints(&config, 312, 6000), 6);
    let config = official("tiny20_mini8.yaml", &["checkpoint.keep=2"]);
    assert_eq!(checkpoints(&config, 312, 6000), 2);
}

/// The count of operations is that of the measured steps on record, whose peak on the same CPU is on record too.
#[test]
fn operations_are_those_of_the_measured_steps_on_record() {
    let record = include_str!("../../benches/records/official-2026-11-23.json");
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    for workload in record["workloads"].as_array().unwrap() {
        let name = workload["model"].as_str().unwrap();
        let width = crate::method::model::Preset::named(name).unwrap().embed_dim / 2;
        let model = crate::method::model::ModelConfig::preset(name, 224, 16, width, 6).unwrap();
        let masks = Masks {
            contexts: 1,
            targets: 4,
            context_len: workload["context_len"].as_f64().unwrap(),
            target_len: workload["target_len"].as_f64().unwrap(),
        };
        let batch = workload["batch"].as_f64().unwrap();
        let measured = workload["flops_per_step"].as_f64().unwrap();
        let counted = batch * flops::per_image(&model, masks);
        assert!(
            (counted / measured - 1.0).abs() < 1e-9,
            "{name}: {counted} {measured}"
        );
    }
}
