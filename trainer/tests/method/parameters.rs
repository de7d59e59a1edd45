//! The list of parameters and the networks made from it.

use tch::{Device, Tensor};
use trainer::method::ijepa::IJepa;
use trainer::method::model::ModelConfig;
use trainer::method::optimizer::Optimizer;
use trainer::method::parameters::{self, Parameter};

#[test]
fn names_shapes_and_groups_are_those_of_the_networks() {
    let model = ModelConfig {
        image_size: 24,
        patch_size: 6,
        embed_dim: 16,
        depth: 2,
        heads: 2,
        mlp_dim: 40,
        predictor_dim: 8,
        predictor_depth: 1,
    };
    let ijepa = IJepa::zeroed(&model, Device::Cpu).unwrap();
    let listed = |parameters: &[(String, Tensor)]| -> Vec<Parameter> {
        let listed = parameters.iter().map(|(name, tensor)| Parameter {
            name: name.clone(),
            shape: tensor
                .size()
                .iter()
                .map(|&length| length as usize)
                .collect(),
        });
        listed.collect()
    };
    let (encoder, predictor) = (parameters::encoder(&model), parameters::predictor(&model));
    assert_eq!(encoder, listed(ijepa.encoder.parameters()));
    assert_eq!(encoder, listed(ijepa.target_encoder.parameters()));
    assert_eq!(predictor, listed(ijepa.predictor.parameters()));
    let networks = [ijepa.encoder.parameters(), ijepa.predictor.parameters()];
    let tensors = networks.into_iter().flatten();
    for (parameter, (_, tensor)) in encoder.iter().chain(&predictor).zip(tensors) {
        assert_eq!(
            parameter.is_trained(),
            tensor.requires_grad(),
            "{parameter:?}"
        );
    }
    let optimizer = Optimizer::new(ijepa.parameter_groups()).unwrap();
    let groups = parameters::optimizer_groups(&model);
    assert_eq!(optimizer.groups().len(), groups.len());
    for ((decayed, theirs), ours) in optimizer.groups().into_iter().zip(&groups) {
        let names: Vec<&str> = ours
            .members
            .iter()
            .map(|parameter| parameter.name.as_str())
            .collect();
        assert_eq!((decayed, theirs), (ours.decayed, names));
    }
}
