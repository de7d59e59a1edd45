//! What people keep in checkpoints beside the official code's numbers: `foreign.pth.tar`, which PyTorch wrote.

use super::super::pickle::{self, Dtype, Key, Node};
use super::{Path, fixture, pack};
use crate::official::{Archive, Checkpoint};

#[test]
fn only_what_is_needed_must_be_understood() {
    let file = fixture("foreign.pth.tar");
    let archive = Archive::read(&file, true).unwrap();
    let read = Checkpoint::read(Path::new("foreign.pth.tar"), &archive).unwrap();
    // NumPy's numbers, and a number in a tensor.
    assert_eq!((read.epoch, read.loss), (Ok(Some(3)), Some(0.25)));
    assert_eq!((read.batch_size, read.world_size), (Some(4), Some(2)));
    // The networks, out of their wrappers.
    let networks = read.networks;
    for (tensors, name) in [
        (&networks.encoder, "norm.weight"),
        (&networks.target_encoder, "norm.weight"),
        (&networks.predictor, "mask_token"),
    ] {
        assert_eq!(tensors.keys().collect::<Vec<_>>(), [name]);
        let numbers: Vec<u8> = [0.0f32, 1.0, 2.0, 3.0].map(f32::to_le_bytes).concat();
        assert_eq!(tensors[name].to_bytes()[..], numbers);
    }
    let left = networks.left.to_string();
    assert!(left.contains("encoder.head.weight"), "{left}");
    // What code would make is named, and has run nowhere.
    let foreign: Vec<String> = archive.foreign().collect();
    for name in ["argparse.Namespace", "posix.system", "torch.BoolStorage"] {
        assert!(foreign.iter().any(|found| found == name), "{foreign:?}");
    }
    assert!(Checkpoint::optimizer(&archive).unwrap().is_none());
}

#[test]
fn a_fact_that_code_would_make_is_refused_where_it_is_needed() {
    let tensor = Node::Tensor {
        storage: 0,
        dtype: Dtype::F32,
        shape: vec![1],
    };
    let networks = Node::Ordered(vec![(Key::from("pos_embed"), tensor)]);
    let root = Node::Dict(vec![(Key::from("encoder"), networks)]);
    let mut program = pickle::write(&root);
    program.pop(); // the end
    for key in ["epoch", "loss"] {
        program.extend([b'X', key.len() as u8, 0, 0, 0]);
        program.extend(key.bytes());
        program.extend(b"cos\nsystem\n)Rs");
    }
    program.extend(b".");
    let file = pack(&program, &[&[0; 4]]);
    let archive = Archive::read(&file, true).unwrap();
    let read = Checkpoint::read(Path::new("x"), &archive).unwrap();
    assert_eq!(read.loss, None);
    let fault = read.epoch.unwrap_err().to_string();
    assert!(fault.contains("an object of `os.system`"), "{fault}");
}
