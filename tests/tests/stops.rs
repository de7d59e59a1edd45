//! Promise: a stop is a stop. However it is asked for, once or by several ways at once, from the first moment of a
//! process: the step is finished, a checkpoint is written, and the code is 75. Only a second Ctrl-C ends at once.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tests::{Running, Site, child_of, program, signal, wait_until};

/// What schedulers, people and limits send.
const ASKING: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::USR1,
    Signal::USR2,
    Signal::HUP,
    Signal::XCPU,
    Signal::XFSZ,
];

/// Returns the set of signals after `field` in the status of a process or a thread; none once it is gone.
fn mask(status: impl AsRef<Path>, field: &str) -> u64 {
    let text = fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    u64::from_str_radix(line.unwrap_or("0").trim(), 16).unwrap()
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// Tells if spawned programs ignore SIGHUP, as they do when the tests run under `nohup`.
fn under_nohup() -> bool {
    mask("/proc/self/status", "SigIgn:") & bit(Signal::HUP) != 0
}

/// Checks that `launch` ends with 75, and that the last step in the log has its checkpoint. Returns how many there are.
fn assert_stopped(site: &Site, launch: &mut Running) -> usize {
    assert_eq!(launch.wait().code(), Some(75), "{}", launch.stderr());
    let done = site.exact_losses("run").len();
    let checkpoint = format!("run/checkpoints/test-step{done:08}/checkpoint.json");
    assert!(
        Path::new(&site.path(&checkpoint)).exists(),
        "{}",
        launch.stderr()
    );
    done
}

#[test]
fn every_signal_that_asks_for_a_stop_leaves_a_checkpoint_and_code_75() {
    let site = Site::new(32);
    let arguments = site.launch_arguments("run");
    let mut done = 0;
    for asked in ASKING {
        if asked == Signal::HUP && under_nohup() {
            continue;
        }
        let mut launch = Running::start("trainer", &arguments, &site.path("log"));
        site.wait_for_steps("run", done + 2);
        signal(launch.id(), asked);
        done = assert_stopped(&site, &mut launch);
    }
}

/// Two requests that are both there when the processes look, which a busy machine makes likely.
#[test]
fn two_signals_at_once_are_one_stop() {
    let site = Site::new(32);
    let arguments = site.launch_arguments("run");
    let mut done = 0;
    for pair in [
        [Signal::INT, Signal::TERM],
        [Signal::INT, Signal::USR1],
        [Signal::TERM, Signal::USR1],
        [Signal::INT, Signal::HUP],
    ] {
        let mut launch = Running::start("trainer", &arguments, &site.path("log"));
        site.wait_for_steps("run", done + 2);
        let both = [launch.id(), child_of(launch.id(), "trainer")];
        for asked in [[Signal::STOP; 2], pair, [Signal::CONT; 2]].concat() {
            both.iter().for_each(|&process| signal(process, asked));
        }
        done = assert_stopped(&site, &mut launch);
    }
}

/// A program in the foreground of a terminal of its own.
struct Terminal {
    keys: File,
    run: Running,
}

impl Terminal {
    fn start(arguments: &[String], log: &str) -> Terminal {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let open = || -> File {
            let flags = OFlags::RDWR | OFlags::NOCTTY;
            rustix::fs::open(&name, flags, rustix::fs::Mode::empty())
                .unwrap()
                .into()
        };
        let run = Running::start_in_terminal("trainer", arguments, open(), log);
        let keys = File::from(keys);
        let mut screen = keys.try_clone().unwrap();
        // Somebody has to read what is shown, or it stops at a full buffer. Ends with the terminal.
        std::thread::spawn(move || while screen.read(&mut [0; 4096]).is_ok() {});
        Terminal { keys, run }
    }

    fn press_ctrl_c(&mut self) {
        self.keys.write_all(b"\x03").unwrap();
    }
}

#[test]
fn one_ctrl_c_in_a_terminal_is_a_stop_and_two_are_an_end() {
    let site = Site::new(32);
    let arguments = site.launch_arguments("run");
    let mut terminal = Terminal::start(&arguments, &site.path("log"));
    site.wait_for_steps("run", 2);
    terminal.press_ctrl_c();
    let done = assert_stopped(&site, &mut terminal.run);

    // The trainer stands still, so that the second one comes while the first is still being obeyed.
    let mut terminal = Terminal::start(&arguments, &site.path("log"));
    site.wait_for_steps("run", done + 2);
    let trainer = child_of(terminal.run.id(), "trainer");
    signal(trainer, Signal::STOP);
    terminal.press_ctrl_c();
    std::thread::sleep(Duration::from_secs(2));
    terminal.press_ctrl_c();
    let code = terminal.run.wait().code();
    assert_eq!(code, Some(130), "{}", terminal.run.stderr());
    wait_until("the end of all processes", || site.processes().is_empty());
}

/// `timeout -s INT` signals its child and then the whole group.
#[test]
fn an_interrupt_to_a_process_and_to_its_group_is_one_stop() {
    let site = Site::new(32);
    let mut terminal = Terminal::start(&site.launch_arguments("run"), &site.path("log"));
    site.wait_for_steps("run", 2);
    let launcher = terminal.run.id();
    signal(launcher, Signal::INT);
    let group = Pid::from_raw(launcher.cast_signed()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    assert_stopped(&site, &mut terminal.run);
}

/// Returns when the process can be asked: it has begun to run `trainer`, in which libtorch is not even loaded yet.
fn wait_for_first_moment(process: u32) {
    let status = format!("/proc/{process}/status");
    wait_until("signals that are held", || {
        mask(&status, "SigBlk:") & bit(Signal::TERM) != 0
    });
}

#[test]
fn a_stop_in_the_first_moment_is_a_stop() {
    let site = Site::new(32);
    let mut by_hand = site.training_arguments("run");
    by_hand.insert(0, "train".to_owned());
    by_hand.extend(["--device", "cpu"].map(String::from));
    for arguments in [by_hand, site.launch_arguments("run")] {
        for asked in [Signal::TERM, Signal::USR1, Signal::INT] {
            let mut early = Running::start("trainer", &arguments, &site.path("log"));
            wait_for_first_moment(early.id());
            signal(early.id(), asked);
            assert_eq!(early.wait().code(), Some(75), "{}", early.stderr());
        }
    }
}

#[test]
fn a_stop_while_shards_are_copied_is_a_stop() {
    let site = Site::new(32);
    let mut arguments = site.launch_arguments("run");
    let local = format!("loader.local_dir={}", site.path("local"));
    fs::create_dir(site.path("local")).unwrap();
    arguments.extend(["--set", "meta.copy_data=true", "--set", &local].map(String::from));
    let launch = || Running::start("trainer", &arguments, &site.path("log"));
    let mut first = launch();
    site.wait_for_steps("run", 1);
    signal(first.id(), Signal::TERM);
    first.wait();

    // A copy that is not complete and on which another process works is waited for.
    let copy = fs::read_dir(site.path("local")).unwrap().next().unwrap();
    let copy = copy.unwrap().path();
    fs::remove_file(copy.join("dataset.json")).unwrap();
    let lock = File::create(copy.join("staging.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut waiting = launch();
    wait_until("the other copy to be waited for", || {
        waiting.stderr().contains("wait")
    });
    signal(waiting.id(), Signal::USR1);
    assert_eq!(waiting.wait().code(), Some(75), "{}", waiting.stderr());
}

/// Libraries may use the stack pointer for other things while they compute: a handler on such a thread corrupts memory.
/// oneDNN does.
#[test]
fn no_signal_is_handled_on_a_thread_that_computes() {
    let site = Site::new(32);
    let launch = |run: &str| {
        let mut command = Command::new(program("trainer"));
        command.args(site.launch_arguments(run));
        command.env("TRAINER_LINEAR", "onednn");
        Running::start_command(command, &site.path("log"))
    };
    launch("undisturbed").wait_ok();
    let mut running = launch("run");
    site.wait_for_steps("run", 2);
    let trainer = child_of(running.id(), "trainer");
    let asking = ASKING.map(bit).iter().sum::<u64>() & !bit(Signal::HUP);
    let tasks = fs::read_dir(format!("/proc/{trainer}/task")).unwrap();
    for task in tasks.flatten() {
        let status = task.path().join("status");
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if mask(&status, "SigCgt:") & asking != 0 {
            panic!("{name}: a handler is installed");
        }
        if name.trim() != "signals" && status.exists() {
            assert_eq!(mask(&status, "SigBlk:") & asking, asking, "{name}");
        }
    }

    // And a rain of them changes nothing that is computed.
    let mut sent = 0;
    while sent < 300 {
        let id = Pid::from_raw(child_of(running.id(), "trainer").cast_signed()).unwrap();
        for _ in 0..100 {
            // It may end in the midst of them.
            let _ = rustix::process::kill_process(id, Signal::USR1);
            sent += 1;
            std::thread::sleep(Duration::from_millis(4));
        }
        let done = assert_stopped(&site, &mut running);
        running = launch("run");
        site.wait_for_steps("run", done + 2);
    }
    running.wait_ok();
    assert_eq!(site.exact_losses("run"), site.exact_losses("undisturbed"));
}
