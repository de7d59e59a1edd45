//! Promise: whatever happens to the programs, at whatever moment: they end with a documented code and leave no process
//! behind, and started again they go on to the same losses.
//!
//! `make torture SEED=1 ROUNDS=200` goes on for long; without those a few rounds are part of the tests. A round starts
//! a job, hurts it once, waits for its end, and the next one goes on with the same run. A run that has come to its end
//! is compared with an undisturbed one.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::{Running, Site, wait_until};

/// Signals that ask, kill, or mean nothing to us.
const SIGNALS: [Signal; 12] = [
    Signal::KILL,
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::XCPU,
    Signal::PIPE,
    Signal::QUIT,
    Signal::SEGV,
    Signal::BUS,
    Signal::ABORT,
];

/// What is said of a round in which files could not grow.
const LIMITED: &str = "files limited to ";

/// Numbers that a seed decides: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Sends a signal to a process that may be gone.
fn hurt(process: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(process.cast_signed()).unwrap(), signal);
}

/// Hurts a job once; returns what was done to it.
fn torment(dice: &mut Dice, launcher: u32) -> String {
    std::thread::sleep(Duration::from_millis(dice.below(4000)));
    let name = dice.one_of(&["launch", "trainer", "loader", "all"]);
    // Those that have not been started yet, or are gone, cannot be hurt.
    let children = tests::children(launcher);
    let of = |name: &str| {
        let found = children.iter().filter(|(_, found)| found == name);
        found.map(|&(id, _)| id).collect::<Vec<_>>()
    };
    let targets = match name {
        "launch" => vec![launcher],
        "all" => [vec![launcher], of("trainer"), of("loader")].concat(),
        child => of(child),
    };
    let each = |signal| targets.iter().for_each(|&target| hurt(target, signal));
    match dice.below(4) {
        0 => {
            let signal = dice.one_of(&SIGNALS);
            each(signal);
            format!("{signal:?} to {name}")
        }
        1 => {
            let pair = [dice.one_of(&SIGNALS[1..7]), dice.one_of(&SIGNALS[1..7])];
            [[Signal::STOP].as_slice(), &pair, &[Signal::CONT]]
                .concat()
                .into_iter()
                .for_each(each);
            format!("{pair:?} at once to {name}")
        }
        2 => {
            each(Signal::STOP);
            let pause = dice.below(6000);
            std::thread::sleep(Duration::from_millis(pause));
            each(Signal::CONT);
            each(Signal::TERM);
            format!("a stop of {pause} ms and SIGTERM to {name}")
        }
        _ => {
            // Neither rows nor checkpoints can be written any more beyond so many bytes.
            let limit = dice.one_of(&[0, 100, 4096, 1 << 20]);
            for target in of("trainer") {
                // One that ends meanwhile cannot be limited.
                let _ = Command::new("prlimit")
                    .args([format!("--pid={target}"), format!("--fsize={limit}")])
                    .stderr(std::process::Stdio::null())
                    .status()
                    .expect("prlimit, of util-linux, is installed");
            }
            format!("{LIMITED}{limit} bytes")
        }
    }
}

/// Returns a number from the environment, for `make torture`.
fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect(name))
}

#[test]
fn random_faults_change_no_loss() {
    let (seed, rounds) = (number("SEED", 1), number("ROUNDS", 6));
    let site = Site::new(32);
    let undisturbed = site.undisturbed_losses();

    let mut runs = 0;
    let mut dice = Dice(seed);
    for round in 0..rounds {
        let run = format!("run{runs}");
        let mut arguments = site.launch_arguments(&run);
        arguments.extend(["--set", "checkpoint.every_steps=2"].map(String::from));
        let log = site.path("log");
        let mut launch = Running::start("trainer", &arguments, &log);
        let done = torment(&mut dice, launch.id());
        let status = launch.wait();
        let said = launch.stderr();
        wait_until("the end of all processes", || site.processes().is_empty());
        println!("round {round} of seed {seed}: {done}: {status}");
        let is_documented = match status.code() {
            // A disk that is full before the first step: it could not begin.
            Some(2) => done.starts_with(LIMITED),
            Some(code) => matches!(code, 0 | 74 | 75) || code > 128,
            None => true,
        };
        assert!(is_documented && !said.contains("panicked"), "{said}");
        if status.success() {
            assert_eq!(site.exact_losses(&run), undisturbed, "{run}");
            runs += 1;
        }
    }
    let run = format!("run{runs}");
    Running::start("trainer", &site.launch_arguments(&run), &site.path("log")).wait_ok();
    assert_eq!(site.exact_losses(&run), undisturbed, "{run}");
    let left = std::fs::read_dir(site.path(&format!("{run}/checkpoints"))).unwrap();
    let left = left.flatten().map(|entry| entry.file_name());
    assert!(
        !left
            .into_iter()
            .any(|name| name.to_string_lossy().starts_with(".tmp-"))
    );
}

/// Strangers at the socket of a loader, while it serves.
#[test]
fn hostile_peers_disturb_nobody() {
    let (seed, peers) = (number("SEED", 1), number("ROUNDS", 6) * 8);
    let site = Site::new(32);
    let socket = site.path("socket");
    let mut serve = site.training_arguments("run");
    serve.insert(0, "run".to_owned());
    serve.extend(["--socket".to_owned(), socket.clone()]);
    let mut loader = Running::start("loader", &serve, &site.path("loader.log"));
    wait_until("the loader's socket", || {
        std::path::Path::new(&socket).exists()
    });
    let mut train = site.training_arguments("run");
    train.insert(0, "train".to_owned());
    train.extend(["--device", "cpu", "--socket", &socket].map(String::from));
    let mut trainer = Running::start("trainer", &train, &site.path("trainer.log"));

    let mut dice = Dice(seed);
    let mut silent = Vec::new();
    for _ in 0..peers {
        let Ok(mut stream) = UnixStream::connect(&socket) else {
            break; // the run is over
        };
        let bytes: Vec<u8> = (0..dice.below(300))
            .map(|_| dice.below(256) as u8)
            .collect();
        // It may have been refused already.
        let _ = match dice.below(3) {
            0 => stream.write_all(&bytes),
            1 => stream
                .write_all(&[&[bytes.len() as u8, 0, 0, 0], &bytes[..bytes.len() / 2]].concat()),
            _ => Ok(()),
        };
        if dice.below(2) == 0 {
            silent.push(stream);
        }
        std::thread::sleep(Duration::from_millis(dice.below(100)));
    }
    trainer.wait_ok();
    drop(silent);
    loader.wait_ok();

    assert_eq!(site.exact_losses("run"), site.undisturbed_losses());
}
