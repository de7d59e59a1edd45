//! AdamW: its groups, its arithmetic, and its state.

use super::*;

#[test]
fn groups_follow_the_official_rule() {
    let optimizer = Optimizer::new(model().parameter_groups()).unwrap();
    let groups = optimizer.groups();
    assert_eq!(
        groups
            .iter()
            .map(|(decayed, _)| *decayed)
            .collect::<Vec<_>>(),
        [true, true, false, false]
    );
    assert_eq!(
        groups
            .iter()
            .map(|(_, names)| names.len())
            .collect::<Vec<_>>(),
        [10, 8, 19, 12]
    );
    assert_eq!(
        groups[0].1[..2],
        ["encoder.pos_embed", "encoder.patch_embed.proj.weight"]
    );
    assert_eq!(
        groups[1].1[..2],
        ["predictor.mask_token", "predictor.predictor_pos_embed"]
    );
    assert_eq!(
        groups[2].1[..2],
        [
            "encoder.patch_embed.proj.bias",
            "encoder.blocks.0.norm1.weight"
        ]
    );
    assert_eq!(
        groups[3].1[..2],
        [
            "predictor.predictor_embed.bias",
            "predictor.predictor_blocks.0.norm1.weight"
        ]
    );
}

/// AdamW as it is written down, in float64.
fn adamw(p: f64, gradients: &[f64], lr: f64, weight_decay: f64) -> f64 {
    let (mut p, mut m, mut v) = (p, 0.0, 0.0);
    for (i, g) in gradients.iter().enumerate() {
        let step = (i + 1) as i32;
        p *= 1.0 - lr * weight_decay;
        m += 0.1 * (g - m);
        v = 0.999 * v + 0.001 * g * g;
        let denominator = (v / (1.0 - 0.999f64.powi(step))).sqrt() + 1e-8;
        p -= lr * m / (1.0 - 0.9f64.powi(step)) / denominator;
    }
    p
}

#[test]
fn steps_are_adamw_with_the_decay_of_the_group() {
    let ijepa = model();
    let mut optimizer = Optimizer::new(ijepa.parameter_groups()).unwrap();
    let (lr, weight_decay) = (1e-2, 0.4);
    let mut expected: BTreeMap<String, (f32, Vec<f64>)> = BTreeMap::new();
    for (name, tensor) in ijepa
        .state()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("target"))
    {
        expected.insert(name, (floats(&tensor)[0], Vec::new()));
    }
    for _ in 0..3 {
        backward(&ijepa);
        for (name, gradient) in optimizer.gradients() {
            expected
                .get_mut(&name)
                .unwrap()
                .1
                .push(f64::from(floats(&gradient)[0]));
        }
        optimizer.step(lr, weight_decay).unwrap();
        optimizer.zero_grad().unwrap();
    }
    let decays: BTreeMap<&str, bool> = optimizer
        .groups()
        .into_iter()
        .flat_map(|(decayed, names)| names.into_iter().map(move |n| (n, decayed)))
        .collect();
    for (name, tensor) in ijepa
        .state()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("target"))
    {
        let (start, gradients) = &expected[&name];
        let decay = if decays[name.as_str()] {
            weight_decay
        } else {
            0.0
        };
        let wanted = match gradients.as_slice() {
            [] => f64::from(*start),
            gradients => adamw(f64::from(*start), gradients, lr, decay),
        };
        let found = f64::from(floats(&tensor)[0]);
        assert!(
            (found - wanted).abs() <= 3e-7 * wanted.abs().max(0.1),
            "{name}: {found}, expected {wanted}"
        );
    }
}

#[test]
fn a_step_without_gradients_is_an_error_and_moves_nothing() {
    let ijepa = model();
    let before: Vec<Vec<f32>> = ijepa
        .state()
        .iter()
        .map(|(_, tensor)| floats(tensor))
        .collect();
    let error = Optimizer::new(ijepa.parameter_groups())
        .unwrap()
        .step(1e-3, 0.1)
        .unwrap_err();
    assert!(matches!(error, Error::NoGradient(_)), "{error}");
    let after: Vec<Vec<f32>> = ijepa
        .state()
        .iter()
        .map(|(_, tensor)| floats(tensor))
        .collect();
    assert!(before == after);
}

#[test]
fn optimizer_and_model_states_move_to_a_fresh_pair() {
    let mut ijepa = model();
    let mut optimizer = Optimizer::new(ijepa.parameter_groups()).unwrap();
    let copy = |state: Vec<(String, Tensor)>| -> BTreeMap<String, Tensor> {
        state
            .into_iter()
            .map(|(name, tensor)| (name, tensor.detach().copy()))
            .collect()
    };
    let step = |ijepa: &mut IJepa, optimizer: &mut Optimizer| {
        let loss = backward(ijepa);
        optimizer.step(1e-2, 0.1).unwrap();
        optimizer.zero_grad().unwrap();
        ijepa.update_target(0.9).unwrap();
        loss
    };
    step(&mut ijepa, &mut optimizer);
    let (weights, moments) = (copy(ijepa.state()), copy(optimizer.state()));
    let continued: Vec<f64> = (0..3).map(|_| step(&mut ijepa, &mut optimizer)).collect();

    let mut ijepa = IJepa::zeroed(&config(), Device::Cpu).unwrap();
    let mut optimizer = Optimizer::new(ijepa.parameter_groups()).unwrap();
    ijepa.load_state(&weights).unwrap();
    optimizer.load_state(&moments).unwrap();
    let resumed: Vec<f64> = (0..3).map(|_| step(&mut ijepa, &mut optimizer)).collect();
    assert_eq!(continued, resumed);
    assert!(continued[2] < continued[0], "the loss falls: {continued:?}");
}

#[test]
fn states_that_do_not_fit_are_refused_by_name() {
    let mut ijepa = model();
    let name = "predictor.mask_token";
    let state = || -> BTreeMap<String, Tensor> {
        ijepa
            .state()
            .into_iter()
            .map(|(name, tensor)| (name, tensor.detach().copy()))
            .collect()
    };
    let mut missing = state();
    missing.remove(name);
    let mut unknown = state();
    unknown.insert(
        "head.weight".to_string(),
        Tensor::zeros([1], (Kind::Float, Device::Cpu)),
    );
    let mut reshaped = state();
    reshaped.insert(
        name.to_string(),
        Tensor::zeros([1, 1, 16], (Kind::Float, Device::Cpu)),
    );
    let refusals = [
        ijepa.load_state(&missing).unwrap_err(),
        ijepa.load_state(&unknown).unwrap_err(),
        ijepa.load_state(&reshaped).unwrap_err(),
    ];
    assert!(matches!(&refusals[0], Error::MissingTensor(which) if which == name));
    assert!(matches!(&refusals[1], Error::UnknownTensor(which) if which == "head.weight"));
    assert!(matches!(&refusals[2], Error::TensorForm { name: which, .. } if which == name));
}
