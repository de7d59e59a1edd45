//! Pickles that would run code, take memory or time without end, or mean nothing.

use std::time::{Duration, Instant};

use super::super::pickle::{self, Dtype, Key, Node, Tree};
use super::super::{Cause, Fault};
use super::{fault, pack, read};
use crate::Error;

/// Returns what is wrong with a pickle alone, without an archive, that should describe a number.
fn pickle_fault(program: &[u8]) -> String {
    let bytes = [b"\x80\x02", program].concat();
    let fault = match Tree::read(&bytes, 0) {
        Ok(tree) => tree.root().number().map(drop),
        Err(fault) => Err(fault),
    };
    fault.expect_err("a pickle with a fault").to_string()
}

#[test]
fn nothing_in_a_hostile_pickle_is_executed() {
    for (program, cause) in [
        (
            &b"cos\nsystem\n(X\x02\x00\x00\x00lstR."[..],
            "an object of `os.system`, which only code could make (nothing of it was executed), expected a number",
        ),
        (b"cposix\nsystem\n.", "an object of `posix.system`"),
        (b"c__builtin__\neval\n.", "an object of `__builtin__.eval`"),
        (
            b"ctorch._utils\n_rebuild_tensor\n.",
            "an object of `torch._utils._rebuild_tensor`",
        ),
        (
            b"(X\x02\x00\x00\x00lsios\nsystem\n.",
            "byte 10: the pickle instruction 0x69 (INST)",
        ),
        (b"(cos\nsystem\nX\x02\x00\x00\x00lso.", "0x6f (OBJ)"),
        (b"cos\nsystem\n)\x81}(NNub.", "an object of `os.system`"),
        (
            b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.",
            "0x93 (STACK_GLOBAL)",
        ),
        (b"ccollections\nOrderedDict\n)\x81.", "an object of a name"),
        (b"\x82\x01.", "0x82 (EXT)"),
        (b"Pid\n.", "0x50 (PERSID)"),
        (b"\x95\x00\x00\x00\x00\x00\x00\x00\x00.", "0x95 (FRAME)"),
    ] {
        let message = pickle_fault(program);
        assert!(message.contains(cause), "{message}");
    }
    // The name ends a terminal's line, and its escape sequences stay text.
    let message = pickle_fault(b"cos\n\x1b[2Jsystem\n.");
    assert!(message.contains("`os.\\u{1b}[2Jsystem`"), "{message}");
}

#[test]
fn a_pickle_that_is_no_checkpoint_is_refused() {
    for (program, cause) in [
        (&b"N"[..], "breaks off"),
        (b".", "unfinished"),
        (b"(.", "unfinished"),
        (b"NN.", "unfinished"),
        (b"N.N", "ends before its record"),
        (b"(N0.", "0x30 (POP)"),
        (b"(\x85.", "empty stack"),
        (b"t.", "a mark that was never set"),
        (b"h\x00.", "recalls value 0"),
        (b"Na.", "empty stack"),
        (b"NNa.", "appends to None"),
        (b"NNNs.", "sets items of None"),
        (b"}(Nu.", "a key without a value"),
        (b"}N}b.", "attributes of None"),
        (b"NNQ.", "no storage's"),
        (b"N)R.", "a call of None"),
        (
            b"ccollections\nOrderedDict\nN\x85R.",
            "a call of a name with 1 arguments",
        ),
        (b"ccollections\nOrderedDict\nNR.", "without a tuple"),
        (b"X\xff\xff\xff\xffa.", "breaks off"),
        (b"X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"\x8a\x09123456789.", "an object of `builtins.int`"),
        (b"cos", "a name that does not end"),
    ] {
        let message = pickle_fault(program);
        assert!(message.contains(cause), "{program:?}: {message}");
    }
    assert!(
        Tree::read(b"\x80\x04N.", 7)
            .unwrap_err()
            .to_string()
            .contains("byte 7: not a pickle of protocol 2")
    );
}

#[test]
fn bombs_go_out() {
    // A list that contains itself.
    let message = pickle_fault(b"]q\x00h\x00a.");
    assert!(message.contains("a list that contains itself"), "{message}");
    // Lists in lists in lists.
    let message = pickle_fault(&[&[b']'; 100_000][..], &[b'a'; 99_999], b"."].concat());
    assert!(
        message.contains("more than 32 containers inside each other"),
        "{message}"
    );
    // Each list holds the one before ten times: 10^30 elements, were they visited one by one.
    let mut doubling = b"]q\x00".to_vec();
    for level in 0..30u8 {
        doubling.extend([b']', b'q', level + 1, b'(']);
        doubling.extend([b'h', level].repeat(10));
        doubling.push(b'e');
    }
    doubling.push(b'.');
    // Thirty times `list in list` ends as an unfinished stack, not as a hang.
    assert!(pickle_fault(&doubling).contains("unfinished"));
    // More values than any checkpoint has.
    let message = pickle_fault(&[b'N'; 2_000_000]);
    assert!(message.contains("more than 1048576 values"), "{message}");
    let message = pickle_fault(&[&b"Nq\x00"[..], &b"h\x00".repeat(2_000_000)].concat());
    assert!(message.contains("more than 1048576 values"), "{message}");
    let message = pickle_fault(&vec![b'N'; 17 << 20]);
    assert!(message.contains("no checkpoint needs more"), "{message}");
}

/// Reads a checkpoint, which must be refused within a minute: not at once, as the machine may be busy.
fn refused_soon(file: &[u8]) -> Fault {
    let start = Instant::now();
    let fault = match read(file, true).unwrap_err() {
        Error::Official { fault, .. } => fault,
        other => panic!("{other}"),
    };
    assert!(start.elapsed() < Duration::from_secs(60));
    fault
}

/// Begins the pickle of a checkpoint whose networks have one tensor each, up to its optimiser's state.
fn networks() -> Vec<u8> {
    let tensor = Node::Tensor {
        storage: 0,
        dtype: Dtype::F32,
        shape: vec![1],
    };
    let networks = ["encoder", "predictor", "target_encoder"].map(|network| {
        let tensors = vec![(Key::from("pos_embed"), tensor.clone())];
        (Key::from(network), Node::Ordered(tensors))
    });
    let mut program = pickle::write(&Node::Dict(networks.into()));
    program.pop(); // the end
    program.extend(b"X\x03\x00\x00\x00opt");
    program
}

/// A key and value that no reader asks for.
const ENTRY: &[u8] = b"NN";

#[test]
fn one_large_container_in_many_places_is_not_read_at_each() {
    // `param_groups`: one dictionary of a hundred thousand keys, a hundred thousand times.
    let mut program = networks();
    program.extend(b"}(X\x0c\x00\x00\x00param_groups](}(X\x06\x00\x00\x00params]");
    program.extend(b"X\x05\x00\x00\x00betas(G");
    program.extend(0.9f64.to_be_bytes());
    program.extend(b"G");
    program.extend(0.999f64.to_be_bytes());
    program.extend(b"tX\x03\x00\x00\x00epsG");
    program.extend(1e-8f64.to_be_bytes());
    program.extend(ENTRY.repeat(100_000));
    program.extend(b"uq\x00");
    program.extend(b"h\x00".repeat(100_000));
    program.extend(b"eX\x05\x00\x00\x00state}us.");
    let fault = refused_soon(&pack(&program, &[&[0; 4]]));
    assert!(matches!(fault.cause, Cause::TooMuch(_)), "{fault}");

    // Where tensors are looked for: a dictionary of a thousand tensors in a thousand others.
    let mut program = networks();
    program.extend(b"NsX\x04\x00\x00\x00many}(X\x03\x00\x00\x00one}q\x07(");
    for number in 0..1000 {
        program.extend(format!("X\x03\0\0\0{number:03}").bytes());
        program.extend(b"carray\narray\n");
    }
    program.extend(b"u");
    for number in 0..1000 {
        program.extend(format!("X\x03\0\0\0{number:03}").bytes());
        program.extend(b"h\x07");
    }
    program.extend(b"us.");
    let fault = refused_soon(&pack(&program, &[&[0; 4]]));
    assert!(
        fault.to_string().contains("more than 65536 tensors"),
        "{fault}"
    );
}

#[test]
fn attributes_are_passed_over_without_a_look() {
    // One large dictionary as the attributes of a hundred thousand others.
    let mut program = b"\x80\x02}q\x00}(".to_vec();
    program.extend(b"X\x09\x00\x00\x00_metadataN".repeat(100_000));
    program.extend(b"uq\x01b");
    program.extend(b"h\x01b".repeat(100_000));
    program.extend(b".");
    let start = Instant::now();
    let message = fault(&pack(&program, &[]));
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(
        message.contains("no weights of an I-JEPA network"),
        "{message}"
    );
}

#[test]
fn kinds_of_faults_can_be_told_apart() {
    let cause = |program: &[u8]| {
        let bytes = [b"\x80\x02", program].concat();
        Tree::read(&bytes, 0).unwrap_err().cause
    };
    assert_eq!(cause(b"\x82\x01."), Cause::UnsafeInstruction(0x82));
    let called = Tree::read(b"\x80\x02cos\nsystem\n.", 0).unwrap();
    let (name, expected) = ("os.system".to_owned(), "a string");
    let fault = called.root().text().unwrap_err();
    assert_eq!(fault.cause, Cause::Code { name, expected });
    assert_eq!(cause(b"\x93"), Cause::UnsafeInstruction(0x93));
    assert!(matches!(cause(b"."), Cause::Malformed(_)));
    assert!(matches!(cause(&[b'N'; 2_000_000]), Cause::TooMuch(_)));
    let tree = Tree::read(b"\x80\x02}.", 0).unwrap();
    let missing = tree.root().get("epoch").unwrap_err();
    assert_eq!(missing.cause, Cause::MissingKey("epoch".to_owned()));
    let found = tree.root().number().unwrap_err();
    assert_eq!(found.to_string(), "byte 2: a dict, expected a number");
    let cause = refused_soon(b"not a checkpoint at all").cause;
    assert!(matches!(cause, Cause::Foreign(_)));
}
