//! How arguments are read: paths with what a shell may have left in them, and text.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PathBufValueParser, TypedValueParser};

use crate::{Escaped, paths};

/// Returns the parser of an argument that is a path: `~` and variables are [expanded](paths::expand_argument).
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|written| paths::expand_argument(written.as_os_str()))
}

/// Returns the parser of an argument that is text. It names the argument that is none, which clap's own does not.
pub fn text() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|written| {
        let outcome = OsString::into_string(written);
        outcome.map_err(|written| format!("{}: not UTF-8", Escaped::new(&written)))
    })
}

/// Returns the first argument of `command` and its subcommands that is a path and is read neither by [`path`] nor by a
/// kin of it, with what came of a path to be refused. For a program's test of itself.
#[doc(hidden)]
pub fn unexpanded_path(command: &clap::Command) -> Option<String> {
    let name = command.get_name();
    let is_path = |argument: &&clap::Arg| argument.get_value_hint() == clap::ValueHint::AnyPath;
    let of_this = command
        .get_arguments()
        .filter(is_path)
        .find_map(|argument| {
            let refused = ["~somebody/x", "a/$NO_VARIABLE_OF_THIS_NAME"].map(|value| {
                let mut line = vec![name.to_owned()];
                match argument.get_long() {
                    Some(long) => line.push(format!("--{long}={value}")),
                    None => {
                        line.extend(before(command, argument));
                        line.push(value.to_owned());
                    }
                }
                let refused = command.clone().try_get_matches_from(line).err();
                refused.map_or_else(String::new, |error| error.to_string())
            });
            let is_read = refused[0].contains("./~somebody") && refused[1].contains("is not set");
            (!is_read).then(|| format!("{name} {}: {refused:?}", argument.get_id()))
        });
    of_this.or_else(|| command.get_subcommands().find_map(unexpanded_path))
}

/// Returns a value for each of the positional arguments before this one.
fn before(command: &clap::Command, argument: &clap::Arg) -> Vec<String> {
    let others = command.get_positionals();
    let others = others.take_while(|other| other.get_id() != argument.get_id());
    let value = |other: &clap::Arg| match other.get_possible_values().first() {
        Some(choice) => choice.get_name().to_owned(),
        None => "1".to_owned(),
    };
    others.map(value).collect()
}
