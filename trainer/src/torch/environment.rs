//! What the libraries below libtorch read from the environment, where the user has not set it.
//!
//! * libgomp's threads wait for each other by spinning, up to 300,000 rounds, before they sleep. Where anything else
//!   keeps a core busy, each of the many waits in a step then costs a time slice. A short spin keeps nearly all of the
//!   speed alone and most of it in company; `trainer/SPEED.md` has the figures.
//! * oneDNN keeps the last 1,024 products that it has made code for, by their sizes. Those follow the masks and are
//!   others in each step, while the blocks of one network share them: a few are enough, and take less memory.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A variable that a library reads once, when it is loaded or used first.
struct Setting {
    name: &'static str,
    value: &'static str,
    /// Another variable by which users choose the same.
    alias: &'static str,
}

const SETTINGS: [Setting; 2] = [
    Setting {
        name: "GOMP_SPINCOUNT",
        value: "1000",
        alias: "OMP_WAIT_POLICY",
    },
    Setting {
        name: "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
        value: "128",
        alias: "DNNL_PRIMITIVE_CACHE_CAPACITY",
    },
];

/// Starts this program anew, under the same process number, with all settings, unless it has them or the user chose
/// others. Programs that it starts inherit them.
///
/// # Errors
/// Why it could not be started anew; it is as it was.
pub fn complete() -> io::Result<()> {
    let missing: Vec<&Setting> = missing(|name| env::var_os(name)).collect();
    if missing.is_empty() {
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
    again.envs(missing.iter().map(|setting| (setting.name, setting.value)));
    Err(again.args(arguments).exec())
}

/// Has another program run without these settings, unless the user chose them: a comparison takes it as people run it.
pub fn as_by_itself(command: &mut Command) {
    for Setting { name, value, .. } in SETTINGS {
        if env::var_os(name).is_some_and(|set| set == value) {
            command.env_remove(name);
        }
    }
}

fn missing(variable: impl Fn(&str) -> Option<OsString>) -> impl Iterator<Item = &'static Setting> {
    let is_missing = move |setting: &&Setting| {
        variable(setting.name)
            .or_else(|| variable(setting.alias))
            .is_none()
    };
    SETTINGS.iter().filter(is_missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_choice_is_kept() {
        assert_eq!(missing(|_| None).count(), SETTINGS.len());
        for Setting { name, alias, .. } in SETTINGS {
            for choice in [name, alias] {
                let left = missing(|asked| (asked == choice).then(|| "x".into()));
                assert!(
                    left.map(|setting| setting.name).all(|left| left != name),
                    "{choice}"
                );
            }
        }
    }
}
