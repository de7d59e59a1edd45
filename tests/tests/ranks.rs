//! Promise: the number of ranks, however they were started, changes nothing but the order of sums; a rank that is lost
//! costs no step.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::Signal;
use tests::{Running, Site, children, program, run, signal, wait_until};

/// Four groups in a step.
const BATCH: [&str; 2] = ["--set", "optimization.global_batch=16"];

/// Returns the arguments of a launch with so many ranks.
fn launch(site: &Site, run: &str, ranks: u32, more: &[&str]) -> Vec<String> {
    let mut arguments = site.launch_arguments(run);
    arguments.extend(["--ranks".to_owned(), ranks.to_string()]);
    arguments.extend(BATCH.iter().chain(more).map(ToString::to_string));
    arguments
}

/// Makes sure that a run has every step of the whole once, with the losses of one rank to rounding.
fn assert_same(site: &Site, run: &str, expected: &[(u64, f64)]) {
    let found = site.exact_losses(run);
    let steps = |losses: &[(u64, f64)]| losses.iter().map(|(step, _)| *step).collect::<Vec<_>>();
    assert_eq!(steps(&found), steps(expected), "{run}");
    for ((step, found), (_, expected)) in found.iter().zip(expected) {
        // A rounding is about 6e-8; sums in another order drift apart slowly.
        let gap = (found - expected).abs() / expected;
        assert!(
            gap < 1e-5,
            "{run}: step {step}: {found}, on one rank {expected}"
        );
    }
}

fn one_rank(site: &Site) -> Vec<(u64, f64)> {
    let arguments = launch(site, "one", 1, &[]);
    Running::start("trainer", &arguments, &site.path("one.log")).wait_ok();
    let losses = site.exact_losses("one");
    assert_eq!(losses.len(), 9, "48 images / 16 a batch × 3 epochs");
    losses
}

/// Returns the process of a launcher's rank, once it is there.
fn rank(launcher: &Running, rank: u32) -> u32 {
    let mut found = None;
    wait_until(&format!("rank {rank}"), || {
        found = children(launcher.id()).into_iter().find_map(|(id, _)| {
            let variables = fs::read(format!("/proc/{id}/environ")).ok()?;
            let wanted = format!("RANK={rank}");
            let mut variables = variables.split(|byte| *byte == 0);
            variables
                .any(|variable| variable == wanted.as_bytes())
                .then_some(id)
        });
        found.is_some()
    });
    found.expect("waited for")
}

/// Starts a rank of two by hand.
fn by_hand(site: &Site, run: &str, number: u32, port: &str, more: &[&str]) -> Running {
    let mut command = Command::new(program("trainer"));
    command.arg("train").args(site.training_arguments(run));
    command.args(["--device", "cpu"]).args(BATCH).args(more);
    command.envs([("RANK", &*number.to_string()), ("WORLD_SIZE", "2")]);
    command.envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port)]);
    Running::start_command(command, &site.path(&format!("{run}{number}.log")))
}

/// Returns a port that nobody listens at.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is left");
    listener.local_addr().expect("bound").port().to_string()
}

#[test]
fn any_number_of_ranks_trains_the_same_to_rounding() {
    let site = Site::new(48);
    let expected = one_rank(&site);
    // Three ranks share four groups unevenly.
    for ranks in [2, 3, 4] {
        let run = format!("of{ranks}");
        let arguments = launch(&site, &run, ranks, &[]);
        let mut running = Running::start("trainer", &arguments, &site.path(&format!("{run}.log")));
        running.wait_ok();
        assert_same(&site, &run, &expected);
        // The first speaks for all.
        let stderr = running.stderr();
        assert_eq!(stderr.matches("global batch 16").count(), 1, "{stderr}");
        assert!(fs::exists(site.path(&format!("{run}/ranks/rank0001.log"))).unwrap());
    }
    assert_eq!(site.processes(), [], "processes left behind");
}

#[test]
fn options_of_the_method_draw_the_same_on_any_number_of_ranks() {
    let site = Site::new(48);
    let options = ["normality=0.5", "visible_loss=0.5", "position_noise=0.25"];
    let options = options.map(|option| format!("method.{option}"));
    let sets = Vec::from_iter(options.iter().flat_map(|option| ["--set", option]));
    for (run, ranks) in [("one", 1), ("three", 3)] {
        let arguments = launch(&site, run, ranks, &sets);
        Running::start("trainer", &arguments, &site.path(&format!("{run}.log"))).wait_ok();
    }
    assert_same(&site, "three", &site.exact_losses("one"));
}

#[test]
fn a_rank_that_dies_or_hangs_is_named_and_all_go_on_from_the_last_step() {
    let site = Site::new(48);
    let expected = one_rank(&site);
    let more = [
        "--max-restarts",
        "9",
        "--set",
        "trainer.peer_patience=30",
        "--set",
        "checkpoint.every_steps=4",
    ];
    let mut running = Running::start(
        "trainer",
        &launch(&site, "lost", 3, &more),
        &site.path("lost.log"),
    );
    site.wait_for_steps("lost", 2);
    signal(rank(&running, 1), Signal::KILL);
    wait_until("the restart", || {
        running.stderr().contains("restart 1 of 9")
    });
    site.wait_for_steps("lost", 5);
    signal(rank(&running, 2), Signal::STOP);
    running.wait_ok();
    assert_same(&site, "lost", &expected);
    let stderr = running.stderr();
    for text in [
        "rank 1 ended (signal 9, SIGKILL)",
        "rank 1 (process",
        "died, or does not answer",
        "rank 2 does not end; killing it",
    ] {
        assert!(stderr.contains(text), "no {text:?} in:\n{stderr}");
    }
    assert_eq!(site.processes(), [], "processes left behind");
}

#[test]
fn one_that_is_asked_stops_all_and_another_number_of_ranks_goes_on() {
    let site = Site::new(48);
    let expected = one_rank(&site);
    let start = |ranks| {
        let arguments = launch(&site, "parts", ranks, &[]);
        Running::start("trainer", &arguments, &site.path("parts.log"))
    };
    for (ranks, rows) in [(4, 2), (3, 5)] {
        let mut running = start(ranks);
        site.wait_for_steps("parts", rows);
        // A scheduler may reach one of them first.
        signal(rank(&running, ranks - 1), Signal::USR1);
        let status = running.wait();
        assert_eq!(status.code(), Some(75), "{}", running.stderr());
    }
    start(2).wait_ok();
    assert_same(&site, "parts", &expected);
}

#[test]
fn all_ranks_judge_a_step_that_is_not_finite_alike() {
    let site = Site::new(48);
    let mut huge = vec!["--set", "optimization.lr=1e12"];
    huge.extend(["--set", "optimization.start_lr=1e12"]);
    let start = |run: &str, more: &[&str]| {
        let arguments = launch(&site, run, 3, &[&huge[..], more].concat());
        Running::start("trainer", &arguments, &site.path(&format!("{run}.log")))
    };
    let mut stopped = start("stopped", &[]);
    assert_eq!(stopped.wait().code(), Some(1), "{}", stopped.stderr());
    // Every rank knows of the samples of all groups.
    let stderr = stopped.stderr();
    let lines = stderr
        .lines()
        .filter_map(|line| line.split_once("step 1 is not finite"));
    let said: Vec<&str> = lines
        .filter_map(|(_, rest)| rest.split(';').nth(1))
        .collect();
    assert_eq!(said.len(), 3, "{stderr}");
    assert!(said.iter().all(|samples| *samples == said[0]), "{stderr}");
    assert_eq!(said[0].split(',').count(), 16, "{stderr}");
    start("skipped", &["--set", "trainer.on_nonfinite=skip"]).wait_ok();
    assert_eq!(site.losses("skipped").len(), 9);
}

#[test]
fn without_a_global_batch_a_run_keeps_the_one_it_began_with() {
    let site = Site::new(48);
    let start = |ranks: &str, stop: &str| {
        let mut arguments = site.launch_arguments("kept");
        let stop = format!("trainer.stop_at_step={stop}");
        arguments.extend(["--ranks", ranks, "--set", &stop].map(String::from));
        Running::start("trainer", &arguments, &site.path("kept.log"))
    };
    start("2", "3").wait_ok(); // two groups of four images
    start("1", "5").wait_ok();
    let log = fs::read_to_string(site.path("kept/test_r0.jsonl")).unwrap();
    assert_eq!(log.matches("\"images\":8").count(), 5, "{log}");
}

#[test]
fn ranks_started_by_hand_meet_and_a_second_of_a_number_is_refused() {
    let site = Site::new(48);
    let expected = one_rank(&site);
    let socket = site.path("loader.sock");
    let more = ["--stay", BATCH[0], BATCH[1]];
    let _loader = site.start_loader(&socket, &more);
    let port = free_port();
    let start = |number: u32| by_hand(&site, "hand", number, &port, &["--socket", &socket]);
    let mut second = start(1);
    let mut first = start(0);
    wait_until("the ranks to meet", || {
        first.stderr().contains("global batch 16")
    });
    let mut twice = start(1);
    assert_eq!(twice.wait().code(), Some(2), "{}", twice.stderr());
    let stderr = twice.stderr();
    assert!(
        stderr.contains("rank 1 is there already: rank 1 (process"),
        "{stderr}"
    );
    second.wait_ok();
    first.wait_ok();
    assert_same(&site, "hand", &expected);
}

/// As under `torchrun`, or in a SLURM step with a task for each GPU.
#[test]
fn launchers_of_one_node_share_a_loader_whose_death_costs_nothing() {
    let site = Site::new(48);
    let expected = one_rank(&site);
    let port = free_port();
    let start = |number: u32| {
        let mut command = Command::new(program("trainer"));
        command.args(launch(&site, "tasks", 1, &[]));
        command.envs([("RANK", &*number.to_string()), ("WORLD_SIZE", "2")]);
        command.envs([
            ("LOCAL_RANK", &*number.to_string()),
            ("LOCAL_WORLD_SIZE", "2"),
        ]);
        command.envs([("MASTER_ADDR", "localhost"), ("MASTER_PORT", &port)]);
        Running::start_command(command, &site.path(&format!("task{number}.log")))
    };
    let (mut first, mut second) = (start(0), start(1));
    site.wait_for_steps("tasks", 3);
    let loaders = || {
        let all = children(first.id())
            .into_iter()
            .chain(children(second.id()));
        all.filter(|(_, name)| name == "loader").collect::<Vec<_>>()
    };
    let found = loaders();
    assert_eq!(found.len(), 1, "{found:?}");
    signal(found[0].0, Signal::KILL);
    first.wait_ok();
    second.wait_ok();
    assert_same(&site, "tasks", &expected);
    assert_eq!(site.processes(), [], "processes left behind");
}

#[test]
fn ranks_that_differ_or_do_not_come_are_named() {
    let site = Site::new(48);
    let port = free_port();
    let start = |number, set: &str| by_hand(&site, "named", number, &port, &["--set", set]);
    let ended = |mut rank: Running, code| {
        let status = rank.wait();
        let stderr = rank.stderr();
        assert_eq!(status.code(), Some(code), "{stderr}");
        stderr
    };
    let (first, second) = (start(0, "trainer.seed=1"), start(1, "trainer.seed=2"));
    for rank in [first, second] {
        let stderr = ended(rank, 2);
        assert!(stderr.contains("rank 1 (process"), "{stderr}");
        assert!(stderr.contains("trainer.seed=2, rank 0 has 1"), "{stderr}");
    }
    // Whoever comes alone may be luckier the next time.
    let alone = |number| ended(start(number, "trainer.peer_patience=2"), 74);
    let stderr = alone(0);
    assert!(stderr.contains("1 of 2 ranks did not come"), "{stderr}");
    assert!(stderr.contains(": rank 1\n"), "{stderr}");
    let stderr = alone(1);
    assert!(stderr.contains("rank 0 did not come"), "{stderr}");
}

#[test]
fn a_rank_that_is_lost_before_the_first_step_is_named_and_may_come_again() {
    let site = Site::new(48);
    let (port, socket) = (free_port(), site.path("loader.sock"));
    let start = |number| by_hand(&site, "early", number, &port, &["--socket", &socket]);
    let (mut first, second) = (start(0), start(1));
    // Both have met, and wait for a loader.
    wait_until("the ranks to meet", || {
        first.stderr().contains("global batch 16")
    });
    drop(second);
    let _loader = site.start_loader(&socket, &["--stay", BATCH[0], BATCH[1]]);
    let status = first.wait();
    let stderr = first.stderr();
    assert_eq!(status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("rank 1 (process"), "{stderr}");
    assert!(stderr.contains("died, or does not answer"), "{stderr}");
}

#[test]
fn a_log_is_written_to_a_file_alone() {
    let site = Site::new(48);
    let (precious, log) = (site.path("precious"), site.path("log/ranks/rank0001.log"));
    fs::write(&precious, "precious").unwrap();
    let start = |stop: &str| {
        let stop = format!("trainer.stop_at_step={stop}");
        let arguments = launch(&site, "log", 2, &["--set", &stop]);
        let mut running = Running::start("trainer", &arguments, &site.path("log.log"));
        running.wait_ok();
        running.stderr()
    };
    start("1");
    fs::remove_file(&log).unwrap();
    symlink(&precious, &log).unwrap();
    let stderr = start("2");
    assert!(
        stderr.contains("rank0001.log: a link, not a regular file"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn ranks_that_cannot_be_are_refused() {
    let site = Site::new(48);
    let refused = |more: &[&str]| {
        let mut arguments = site.launch_arguments("refused");
        arguments.extend(BATCH.iter().chain(more).map(ToString::to_string));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run("trainer", &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {stderr}");
        stderr
    };
    assert!(refused(&["--ranks", "5"]).contains("5 ranks for 4 group(s)"));
    assert!(refused(&["--devices", "cpu", "cpu"]).contains("--ranks N"));
    assert!(refused(&["--devices", "cuda:0", "--ranks", "2"]).contains("--devices"));
    assert!(refused(&["--ranks", "2", "--interface", "nosuch0"]).contains("nosuch0"));
}
