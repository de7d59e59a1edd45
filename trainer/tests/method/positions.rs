//! Position embeddings and features at other sizes than that of training.

use trainer::method::encoder::Keep;

use super::*;

/// Bicubic weights (a = -3/4) of the four neighbours of a place between the second and the third.
fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)]
}

/// Where the places of a line of `to` lie on one of `from`: four neighbours and their weights.
fn resampled(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    (0..to)
        .map(|i| {
            let place = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            let first = place.floor();
            let weights = cubic(place - first);
            std::array::from_fn(|k| {
                let at = first as i64 + k as i64 - 1;
                (at.clamp(0, from as i64 - 1) as usize, weights[k])
            })
        })
        .collect()
}

#[test]
fn positions_of_another_grid_are_the_bicubic_ones_of_the_whole_grid() {
    let mut ijepa = model();
    // Not the sines, which are symmetric: any error of rows, columns or channels must show.
    let mut state: BTreeMap<String, Tensor> = ijepa.state().into_iter().collect();
    let embedding = (Tensor::arange(16 * 24, (Kind::Float, Device::Cpu)) * 1.7).sin();
    state.insert("encoder.pos_embed".to_owned(), embedding.view([1, 16, 24]));
    ijepa.load_state(&state).unwrap();
    let encoder = &ijepa.encoder;
    let source = floats(&embedding);
    for (height, width) in [(32, 32), (8, 20), (16, 24), (4, 4), (12, 16)] {
        let ours = encoder.positions(height, width).unwrap();
        let (rows, columns) = (height as usize / 4, width as usize / 4);
        assert_eq!(ours.size(), [1, (rows * columns) as i64, 24]);
        let ours = floats(&ours);
        for (y, down) in resampled(4, rows).iter().enumerate() {
            for (x, across) in resampled(4, columns).iter().enumerate() {
                for channel in 0..24 {
                    let mut expected = 0.0;
                    for &(row, weight) in down {
                        for &(column, share) in across {
                            let value = source[(row * 4 + column) * 24 + channel];
                            expected += weight * share * f64::from(value);
                        }
                    }
                    let found = f64::from(ours[(y * columns + x) * 24 + channel]);
                    assert!(
                        (found - expected).abs() < 2e-6,
                        "{height}x{width}: row {y}, column {x}, channel {channel}: {found}, not {expected}"
                    );
                }
            }
        }
    }
    // At the size of training nothing is computed.
    let same = encoder.positions(16, 16).unwrap();
    assert_eq!(same.data_ptr(), encoder.parameters()[0].1.data_ptr());
}

#[test]
fn features_are_there_for_other_sizes_and_the_same_at_that_of_training() {
    let ijepa = model();
    let images = batch().0;
    let trained = ijepa
        .encoder
        .forward(&images, Keep::All, &mut NoHooks)
        .unwrap();
    assert!(ijepa.encoder.features(&images).unwrap().equal(&trained));
    let larger = images.repeat([1, 1, 2, 3]);
    let features = ijepa.encoder.features(&larger).unwrap();
    assert_eq!(features.size(), [IMAGES, 8 * 12, 24]);
    assert!(!features.requires_grad());
    // Training itself stays at its size, whose patches the masks number.
    assert!(
        ijepa
            .encoder
            .forward(&larger, Keep::All, &mut NoHooks)
            .is_err()
    );
    for (shape, part) in [
        ([1, 3, 18, 16], "18x16"),
        ([1, 3, 16, 0], "16x0"),
        ([1, 1, 16, 16], "[1, 16, 16]"),
    ] {
        let wrong = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let message = ijepa.encoder.features(&wrong).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}
