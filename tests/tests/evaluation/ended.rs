//! Evaluations that end before they are done.

use super::*;

#[test]
fn a_signal_ends_an_evaluation_at_once() {
    let site = trained();
    let (weights, shards) = (site.path("run"), site.path("shards"));
    let mut arguments = vec![
        "eval", "linear", &weights, "--device", "cpu", "--shards", &shards,
    ];
    // Longer than anybody waits.
    arguments.extend(["--epochs", "1000000000"]);
    let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
    let mut running = Running::start("trainer", &arguments, &site.path("eval.log"));
    wait_until("the features", || {
        running.stderr().contains("\"val\": features of")
    });
    signal(running.id(), Signal::TERM);
    assert_eq!(running.wait().signal(), Some(15));
}

#[test]
fn an_evaluation_whose_loader_is_lost_can_be_started_again() {
    let site = trained();
    let (weights, shards) = (site.path("run"), site.path("shards"));
    for what in ["features", "hidden"] {
        let log = site.path(&format!("{what}.log"));
        let mut arguments = vec![
            "eval", what, &weights, "--device", "cpu", "--shards", &shards,
        ];
        arguments.extend(["--set", "data.batch_size=1", "--set", "loader.slots=2"]);
        let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
        let lost = (0..20).any(|_| {
            let mut running = Running::start("trainer", &arguments, &log);
            wait_until("the loader", || running.stderr().contains("serving rank 0"));
            // It may be at the second split already, or gone.
            for (loader, _) in children(running.id()) {
                let loader = Pid::from_raw(loader.cast_signed()).expect("a process");
                let _ = kill_process(loader, Signal::KILL);
            }
            let code = running.wait().code();
            assert!(
                code == Some(74) || code == Some(0),
                "{what}: {code:?}: {}",
                running.stderr()
            );
            code == Some(74)
        });
        assert!(lost, "20 evaluations were faster than this test");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_ok("trainer", &arguments);
    }
}
