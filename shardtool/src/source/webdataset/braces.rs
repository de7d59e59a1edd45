//! Patterns with braces that stand for many names, as a shell has them.

/// Largest number of names that a pattern may stand for.
const MOST: usize = 1 << 20;

/// Returns the names that a pattern stands for: `a-{00..12}.tar` for 13, `{a,b}.tar` for two.
///
/// A pattern whose braces are no range and no list, are not closed, or stand for more than a million names, is a
/// name itself.
pub fn expand(pattern: &str) -> Vec<String> {
    names(pattern, 0).unwrap_or_else(|| vec![pattern.to_owned()])
}

/// Largest number of braces in and behind each other.
const DEPTH: usize = 32;

/// Returns the names; none if there are too many.
fn names(pattern: &str, depth: usize) -> Option<Vec<String>> {
    if depth > DEPTH {
        return None;
    }
    let Some(open) = pattern.find('{') else {
        return Some(vec![pattern.to_owned()]);
    };
    let close = closing(&pattern[open..]).map(|at| open + at)?;
    let (before, inside, behind) = (
        &pattern[..open],
        &pattern[open + 1..close],
        &pattern[close + 1..],
    );
    let mut choices = Vec::new();
    let parts = parts(inside);
    if let Some(range) = range(inside)? {
        choices = range;
    } else if parts.len() > 1 {
        for part in parts {
            choices.extend(names(part, depth + 1)?);
        }
    } else {
        choices.extend(
            names(inside, depth + 1)?
                .iter()
                .map(|name| format!("{{{name}}}")),
        );
    }
    let rests = names(behind, depth + 1)?;
    if choices.len().checked_mul(rests.len())? > MOST {
        return None;
    }
    let all = choices.iter().flat_map(|choice| {
        rests
            .iter()
            .map(move |rest| format!("{before}{choice}{rest}"))
    });
    Some(all.collect())
}

/// Returns where the brace closes that a text begins with.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.bytes().position(|byte| {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        depth == 0
    })
}

/// Splits at the commas that are in no braces.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|character| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        character == ',' && depth == 0
    })
    .collect()
}

/// Returns the numbers of a range such as `007..012`, up or down; the outer none stands for too many.
#[expect(
    clippy::option_option,
    reason = "no range, and too long a range, differ"
)]
fn range(text: &str) -> Option<Option<Vec<String>>> {
    let Some((first, last)) = text.split_once("..") else {
        return Some(None);
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) {
        return Some(None);
    }
    let (from, to): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    if from.abs_diff(to) >= MOST as u64 {
        return None;
    }
    let is_padded = [first, last]
        .iter()
        .any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if is_padded {
        first.len().max(last.len())
    } else {
        0
    };
    let shown = |number: u64| format!("{number:0width$}");
    Some(Some(if from <= to {
        (from..=to).map(shown).collect()
    } else {
        (to..=from).rev().map(shown).collect()
    }))
}
