//! SLURM's short way to write many node names: `gpu[1-3,7,010-012]-ib,login1`.
//!
//! `scontrol show hostnames` does the same, where there is a scontrol; containers often have none. A range counts in
//! the width of its first number, several brackets stand for all their combinations, and the last counts fastest.
//! Whatever the list says, at most [`MOST`] names come out of it, each made of what host names are made of.

use shardtool::Escaped;

/// The most names that a list may stand for, as in SLURM.
pub const MOST: usize = 1 << 16;

/// Longest name, in bytes: that of host names.
const MAX_NAME: usize = 255;

/// Longest list, in bytes: all names written out.
const MAX_LIST: usize = MOST * (MAX_NAME + 1);

/// The reason why a text is no list of nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no name in it.
    #[error("it names no node")]
    Empty,
    /// It stands for too many names.
    #[error("it stands for more than {MOST} nodes")]
    TooMany,
    /// A name would be longer than host names are.
    #[error("`{}`: a name of more than {MAX_NAME} characters", Escaped::new(part))]
    TooLong {
        /// The beginning of the part of the list that makes it.
        part: String,
    },
    /// A character that no host name has.
    #[error("`{}`: `{}` in a name", Escaped::new(part), character.escape_default())]
    Character {
        /// The part of the list.
        part: String,
        /// The character.
        character: char,
    },
    /// A bracket without its other half, or one inside another.
    #[error(
        "`{}`: a bracket that is not closed, or not opened",
        Escaped::new(part)
    )]
    Bracket {
        /// The part of the list.
        part: String,
    },
    /// What stands in brackets is no number and no range of rising numbers.
    #[error(
        "`{}`: `{}` is no range of numbers",
        Escaped::new(part),
        Escaped::new(range)
    )]
    Range {
        /// The part of the list.
        part: String,
        /// What stands in the brackets, between commas.
        range: String,
    },
}

/// Returns the names that `list` stands for, in its order.
///
/// ```
/// use trainer::distributed::nodelist::expand;
///
/// assert_eq!(expand("gpu[9-10,012],login")?, ["gpu9", "gpu10", "gpu012", "login"]);
/// assert_eq!(expand("rack[0-1]n[1-2]")?, ["rack0n1", "rack0n2", "rack1n1", "rack1n2"]);
/// # Ok::<(), trainer::distributed::nodelist::Error>(())
/// ```
///
/// # Errors
/// What is wrong with the list, and in which part of it.
pub fn expand(list: &str) -> Result<Vec<String>, Error> {
    if list.len() > MAX_LIST {
        return Err(Error::TooMany);
    }
    let mut names = Vec::new();
    // Like scontrol, it passes by what is empty between two commas.
    for part in parts(list).filter(|part| !part.is_empty()) {
        names_of(part, &mut names)?;
    }
    if names.is_empty() {
        return Err(Error::Empty);
    }
    Ok(names)
}

/// Splits a list at the commas outside of brackets.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    list.split(move |character| {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
        character == ',' && !inside
    })
}

/// Adds the names that a part without commas outside of brackets stands for.
fn names_of(part: &str, names: &mut Vec<String>) -> Result<(), Error> {
    let before = names.len();
    // All beginnings so far, each of which gets every choice of the next bracket.
    let mut begun = vec![String::new()];
    let mut rest = part;
    while !rest.is_empty() {
        let (text, behind) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
        check(part, text)?;
        begun.iter_mut().for_each(|name| name.push_str(text));
        rest = behind;
        if let Some(opened) = rest.strip_prefix('[') {
            let (inside, behind) = opened.split_once(']').ok_or_else(|| bracket(part))?;
            begun = combined(part, &begun, inside, MOST - before)?;
            rest = behind;
        }
        if begun.first().is_some_and(|name| name.len() > MAX_NAME) {
            let part = part.chars().take(MAX_NAME).collect();
            return Err(Error::TooLong { part });
        }
    }
    if begun.len() > MOST - before {
        return Err(Error::TooMany);
    }
    names.append(&mut begun);
    Ok(())
}

/// Returns every beginning with every choice inside of a bracket behind it, at most `most`.
fn combined(part: &str, begun: &[String], inside: &str, most: usize) -> Result<Vec<String>, Error> {
    let mut choices = Vec::new();
    for range in inside.split(',') {
        numbers(part, range, most, &mut choices)?;
    }
    if begun.len().saturating_mul(choices.len()) > most {
        return Err(Error::TooMany);
    }
    let pairs = begun
        .iter()
        .flat_map(|name| choices.iter().map(move |choice| format!("{name}{choice}")));
    Ok(pairs.collect())
}

/// Adds the numbers of `7` or `010-012`, in the width of the first.
fn numbers(part: &str, range: &str, most: usize, choices: &mut Vec<String>) -> Result<(), Error> {
    if range.contains('[') {
        return Err(bracket(part));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| -> Option<u64> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let (Some(from), Some(to)) = (number(first), number(last)) else {
        return Err(no_range(part, range));
    };
    if to < from {
        return Err(no_range(part, range));
    }
    if first.len() > MAX_NAME || to - from >= (most - choices.len().min(most)) as u64 {
        return Err(Error::TooMany);
    }
    let width = first.len();
    choices.extend((from..=to).map(|number| format!("{number:0width$}")));
    Ok(())
}

/// Makes sure that what stands outside of brackets can be part of a host name.
fn check(part: &str, text: &str) -> Result<(), Error> {
    let is_known =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    match text.chars().find(|&character| !is_known(character)) {
        None => Ok(()),
        Some(']') => Err(bracket(part)),
        Some(character) => Err(Error::Character {
            part: part.to_owned(),
            character,
        }),
    }
}

fn bracket(part: &str) -> Error {
    Error::Bracket {
        part: part.to_owned(),
    }
}

fn no_range(part: &str, range: &str) -> Error {
    Error::Range {
        part: part.to_owned(),
        range: range.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of `scontrol show hostnames` of SLURM 22.05.
    #[test]
    fn lists_are_read_as_scontrol_reads_them() {
        for (list, names) in [
            ("node1", "node1"),
            ("node[1-3,7]", "node1 node2 node3 node7"),
            ("n[010-012]", "n010 n011 n012"),
            ("n[8-012]", "n8 n9 n10 n11 n12"),
            ("n[09-11]", "n09 n10 n11"),
            ("n[0009-10]", "n0009 n0010"),
            ("n[99-101]", "n99 n100 n101"),
            ("rack[0-1]n[1-2]", "rack0n1 rack0n2 rack1n1 rack1n2"),
            ("a[1-2][3-4]", "a13 a14 a23 a24"),
            ("n[0-1]-[7]", "n0-7 n1-7"),
            ("tux[0-1,0-1]", "tux0 tux1 tux0 tux1"),
            ("a,,b,", "a b"),
            ("a,a", "a a"),
            ("[1-3]", "1 2 3"),
            ("a[1-2],b-c.d_e,f[3]", "a1 a2 b-c.d_e f3"),
            // It knows no names that go on behind the last bracket; there are clusters with such.
            ("a[1-2]-ib,b", "a1-ib a2-ib b"),
            ("n[1-2]x[3,4]y", "n1x3y n1x4y n2x3y n2x4y"),
        ] {
            let expected: Vec<&str> = names.split(' ').collect();
            assert_eq!(expand(list).unwrap(), expected, "{list}");
        }
    }

    #[test]
    fn what_is_no_list_is_an_error_that_names_the_part() {
        for list in [
            "n[1-", "n[1-2", "n1]", "n[[1]]", "n[1-2]]", "n[1,[2]]", "][",
        ] {
            let error = expand(list).unwrap_err();
            assert!(matches!(error, Error::Bracket { .. }), "{list}: {error:?}");
        }
        for range in [
            "", "3-1", "a", "-3", "3-", "+1-2", "1x", "1--2", "1-2-3", "١",
        ] {
            let error = expand(&format!("good,n[5,{range}]")).unwrap_err();
            let part = format!("n[5,{range}]");
            let range = range.to_owned();
            assert_eq!(error, Error::Range { part, range });
        }
        for (list, character) in [
            ("a b", ' '),
            ("a;b", ';'),
            ("ä", 'ä'),
            ("a\n", '\n'),
            ("$(x)", '$'),
        ] {
            let error = expand(&format!("good,{list}")).unwrap_err();
            let part = list.to_owned();
            assert_eq!(error, Error::Character { part, character });
        }
        for list in ["", ",", ",,,"] {
            assert_eq!(expand(list), Err(Error::Empty));
        }
        let said = expand("n\u{1b}[2]").unwrap_err().to_string();
        assert_eq!(said, r"`n\u{1b}[2]`: `\u{1b}` in a name");
    }

    /// Short texts that stand for more than there is room for, in numbers, in digits and in combinations.
    #[test]
    fn a_hostile_list_takes_no_memory() {
        assert_eq!(expand("n[1-65536]").unwrap().len(), MOST);
        for list in [
            "n[0-65536]".to_owned(),
            "n[0-18446744073709551615]".to_owned(),
            "n[0-65535],x".to_owned(),
            "x,n[0-65535]".to_owned(),
            "n[0-40000,0-40000]".to_owned(),
            "n[0-999][0-999]".to_owned(),
            "n[0-9]".to_owned() + &"[0-9]".repeat(1000),
            "a,".repeat(MOST + 1),
            "x".repeat(MAX_LIST + 1),
        ] {
            let shown = &list[..list.len().min(40)];
            assert_eq!(expand(&list), Err(Error::TooMany), "{shown}");
        }
        let wide = format!("n[{}1]", "0".repeat(MAX_NAME));
        assert_eq!(expand(&wide), Err(Error::TooMany));
        for list in ["x".repeat(MAX_NAME + 1), "[1]".repeat(MAX_NAME + 1)] {
            assert!(matches!(expand(&list), Err(Error::TooLong { .. })));
        }
        let beyond = expand("n[1-18446744073709551616]");
        assert!(matches!(beyond, Err(Error::Range { .. })), "{beyond:?}");
    }
}
