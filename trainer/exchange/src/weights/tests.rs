//! Tensors that are no network's.

use super::{Data, MAX_DEPTH, Tensors, Unfit, check, sizes};
use crate::model::{ModelConfig, SizesError};
use crate::parameters;

fn model() -> ModelConfig {
    ModelConfig::preset("vit_tiny", 32, 8, 48, 1).unwrap()
}

/// Returns all tensors of a network, without elements: only shapes are looked at.
fn tensors(parameters: Vec<parameters::Parameter>) -> Tensors<'static> {
    let tensors = parameters.into_iter();
    tensors
        .map(|parameter| (parameter.name, shaped(&parameter.shape)))
        .collect()
}

/// Returns a tensor of this shape whose elements nobody reads.
fn shaped(shape: &[usize]) -> Data<'static> {
    Data::zeros(shape)
}

fn networks() -> (Tensors<'static>, Tensors<'static>) {
    let model = model();
    (
        tensors(parameters::encoder(&model)),
        tensors(parameters::predictor(&model)),
    )
}

#[test]
fn sizes_come_from_the_shapes() {
    let (encoder, predictor) = networks();
    assert_eq!(sizes(&encoder, Some(&predictor), None), Ok(model()));
    let alone = sizes(&encoder, None, None).unwrap();
    assert_eq!((alone.predictor_dim, alone.predictor_depth), (0, 0));
    assert_eq!(
        check("encoder", &encoder, &parameters::encoder(&model())),
        Ok(())
    );
}

#[test]
fn shapes_that_make_no_network_are_refused() {
    let (encoder, predictor) = networks();
    let change = |name: &'static str, shape: &[usize]| {
        let mut encoder = encoder.clone();
        encoder.insert(name.to_owned(), shaped(shape));
        sizes(&encoder, Some(&predictor), Some(3)).unwrap_err()
    };
    // Patches of no pixels would be divided by; lengths of which none is read would overflow a product.
    for (name, shape) in [
        ("patch_embed.proj.weight", &[192, 3, 0, 0][..]),
        ("patch_embed.proj.weight", &[0, 3, 8, 8]),
        ("patch_embed.proj.weight", &[192, 0, 1 << 62, 8]),
        ("pos_embed", &[1, 0, 192]),
        ("pos_embed", &[0, 1 << 62, 192]),
        ("blocks.0.mlp.fc1.weight", &[0, 192]),
    ] {
        let found = shape.to_vec();
        assert_eq!(change(name, shape), Unfit::Length { name, found });
    }
    let fault = change("pos_embed", &[1, 17, 192]);
    assert_eq!(fault, Unfit::NoSquare(17));
    let fault = change("pos_embed", &[16, 192]);
    assert!(matches!(fault, Unfit::Dimensions { expected: 3, .. }));
    let fault = change("patch_embed.proj.weight", &[190, 3, 8, 8]);
    assert!(matches!(fault, Unfit::Sizes(SizesError::Heads { .. })));

    let mut none = encoder.clone();
    none.retain(|name, _| !name.starts_with("blocks.0.norm1"));
    let fault = sizes(&none, Some(&predictor), Some(3)).unwrap_err();
    assert_eq!(fault, Unfit::Sizes(SizesError::Empty));
    let mut deep = encoder.clone();
    let names = (0..=MAX_DEPTH).map(|i| format!("blocks.{i}.norm1.weight"));
    deep.extend(names.map(|name| (name, shaped(&[192]))));
    let fault = sizes(&deep, Some(&predictor), Some(3)).unwrap_err();
    assert!(matches!(fault, Unfit::TooDeep { network: "encoder" }));
    let fault = sizes(&Tensors::new(), None, None).unwrap_err();
    assert_eq!(fault, Unfit::Foreign("patch_embed.proj.weight"));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let (encoder, _) = networks();
    let forms = parameters::encoder(&model());
    let (network, name) = ("encoder", "blocks.3.attn.qkv.bias".to_owned());
    let mut changed = encoder.clone();
    changed.remove(&name);
    let fault = check(network, &changed, &forms).unwrap_err();
    let missing = Unfit::Missing {
        network,
        name: name.clone(),
    };
    assert_eq!(fault, missing);
    changed.insert(name.clone(), shaped(&[575]));
    let fault = check(network, &changed, &forms).unwrap_err();
    let other = Unfit::Shape {
        network,
        name,
        found: vec![575],
        expected: vec![576],
    };
    assert_eq!(fault, other);
    let mut changed = encoder.clone();
    changed.insert("\x1b[2J".to_owned(), shaped(&[1]));
    let fault = check(network, &changed, &forms).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "encoder: tensor `\\u{1b}[2J` is not known to this model"
    );
}
