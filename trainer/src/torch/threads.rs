//! How libtorch's threads on a CPU wait for each other.
//!
//! They spin, for up to 300,000 rounds of libgomp's, before they sleep. Where anything else keeps a core busy, each of
//! the many waits in a step then costs a time slice. A short spin keeps nearly all of the speed alone and most of it in
//! company; `trainer/SPEED.md` has the figures.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that says how often to look before sleeping. libgomp reads it when it is loaded, and never again.
const VARIABLE: &str = "GOMP_SPINCOUNT";
/// Its value, unless the user has chosen.
const ROUNDS: &str = "1000";
/// Variables by which users choose.
const CHOICES: [&str; 2] = [VARIABLE, "OMP_WAIT_POLICY"];

/// Starts this program anew, under the same process number, with a short spin, unless it has been or the user chose
/// another one. Programs that it starts inherit the choice.
///
/// # Errors
/// Why it could not be started anew; it is as it was.
pub fn spin_shortly() -> io::Result<()> {
    if is_chosen(|name| env::var_os(name)) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    if let Some(variable) = shardtool::program::faulty_variable() {
        again.env_remove(variable); // it was said already
    }
    Err(again.args(arguments).env(VARIABLE, ROUNDS).exec())
}

/// Has another program spin as it does by itself, unless the user chose: a comparison takes it as people run it.
pub fn as_by_itself(command: &mut Command) {
    if env::var_os(VARIABLE).is_some_and(|rounds| rounds == ROUNDS) {
        command.env_remove(VARIABLE);
    }
}

fn is_chosen(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    CHOICES.into_iter().any(|name| variable(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_choice_is_kept() {
        assert!(!is_chosen(|_| None));
        for choice in CHOICES {
            assert!(is_chosen(|name| (name == choice).then(|| "x".into())));
        }
    }
}
