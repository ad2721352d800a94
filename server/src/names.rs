//! The names that there are, for whoever gave another one: those that begin alike first, and no more than
//! a line holds.

/// Names that a message lists: as many as fit a line.
const SHOWN: usize = 8;

/// The known names in words, those most like `asked` first.
pub fn instead_of<'a>(asked: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = known.collect();
    // The sort is stable: names that are equally alike stay in their order.
    names.sort_by_key(|name| std::cmp::Reverse(alike(asked, name)));
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match (shown.as_slice(), names.len().saturating_sub(SHOWN)) {
        ([], _) => "there is none yet".to_owned(),
        (shown, 0) => format!("there is {}", shown.join(", ")),
        (shown, more) => format!("there is {} and {more} more", shown.join(", ")),
    }
}

/// How many characters two names have in common at the beginning.
fn alike(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant_comes_first_and_a_long_list_ends() {
        let known = ["acme", "globex", "initech"];
        assert_eq!(instead_of("globx", known.into_iter()), "there is `globex`, `acme`, `initech`");
        assert_eq!(instead_of("x", [].into_iter()), "there is none yet");
        let many: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
        let text = instead_of("t19", many.iter().map(String::as_str));
        assert!(text.starts_with("there is `t19`, ") && text.ends_with(" and 12 more"), "{text}");
    }
}
