//! Promise: a link between two nodes that is cut in mid-run costs no step, if it is mended while restarts are left.
//!
//! The nodes are two network namespaces of this machine. Where they cannot be made, which takes root and `ip`, the test
//! says so and ends.

use std::process::Command;
use std::time::Duration;

use tests::{Running, Site, program, wait_until};

/// Two nodes with a wire between them, removed when dropped.
struct Nodes {
    names: [String; 2],
}

impl Nodes {
    /// Makes them, with addresses 10.99.0.1 and 10.99.0.2; `None` where that is not possible.
    fn new() -> Option<Nodes> {
        let id = std::process::id();
        let nodes = Nodes {
            names: ["a", "b"].map(|side| format!("ijepa{id}{side}")),
        };
        let [first, second] = &nodes.names;
        ip(&["netns", "add", first])?;
        ip(&["netns", "add", second])?;
        let [one, other] = ["a", "b"].map(|side| format!("ij{id}{side}"));
        ip(&["link", "add", &one, "type", "veth", "peer", "name", &other])?;
        for (node, wire, address) in [
            (first, one, "10.99.0.1/24"),
            (second, other, "10.99.0.2/24"),
        ] {
            ip(&["link", "set", &wire, "netns", node, "name", "wire"])?;
            ip(&["-n", node, "addr", "add", address, "dev", "wire"])?;
            ip(&["-n", node, "link", "set", "lo", "up"])?;
            ip(&["-n", node, "link", "set", "wire", "up"])?;
        }
        Some(nodes)
    }

    /// Cuts the wire, or mends it.
    fn set(&self, state: &str) {
        let set = ip(&["-n", &self.names[1], "link", "set", "wire", state]);
        set.expect("it was made the same way");
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Option<()> {
    let output = Command::new("ip").args(arguments).output().ok()?;
    output.status.success().then_some(())
}

#[test]
fn a_cut_between_two_nodes_costs_no_step() {
    let Some(nodes) = Nodes::new() else {
        println!("SKIPPED: network namespaces cannot be made here (root and `ip` are needed)");
        return;
    };
    let site = Site::new(48);
    let arguments = |run: &str| {
        let mut arguments = site.launch_arguments(run);
        arguments.extend(["--set", "optimization.global_batch=16"].map(String::from));
        arguments
    };
    Running::start("trainer", &arguments("one"), &site.path("one.log")).wait_ok();
    let expected = site.exact_losses("one");
    let start = |rank: usize| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &nodes.names[rank]]);
        command.arg(program("trainer")).args(arguments("cut"));
        command.args(["--max-restarts", "20", "--set", "trainer.peer_patience=20"]);
        command.envs([("RANK", &*rank.to_string()), ("WORLD_SIZE", "2")]);
        command.envs([("MASTER_ADDR", "10.99.0.1"), ("MASTER_PORT", "29555")]);
        Running::start_command(command, &site.path(&format!("cut{rank}.log")))
    };
    let (mut first, mut second) = (start(0), start(1));
    site.wait_for_steps("cut", 3);
    nodes.set("down");
    wait_until("the cut to be noticed", || {
        first
            .stderr()
            .contains("starting again from the last checkpoint")
    });
    std::thread::sleep(Duration::from_secs(1));
    nodes.set("up");
    first.wait_ok();
    second.wait_ok();
    let stderr = first.stderr();
    assert!(stderr.contains("rank 1 (process"), "{stderr}");
    let found = site.exact_losses("cut");
    assert_eq!(found.len(), expected.len(), "{stderr}");
    for ((step, found), (_, expected)) in found.iter().zip(&expected) {
        let gap = (found - expected).abs() / expected;
        assert!(gap < 1e-5, "step {step}: {found}, on one rank {expected}");
    }
}
