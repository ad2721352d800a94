//! A number and what it counts, for people: `1 entry`, `2 entries`.

use std::fmt::Display;

/// `number` with the right one of two words.
pub fn count(number: impl Display + TryInto<u64>, one: &str, many: &str) -> String {
    let text = number.to_string();
    let word = if number.try_into().is_ok_and(|number| number == 1) { one } else { many };
    format!("{text} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        assert_eq!(count(1_u8, "entry", "entries"), "1 entry");
        assert_eq!(count(0_u64, "entry", "entries"), "0 entries");
        assert_eq!(count(11_usize, "entry", "entries"), "11 entries");
    }
}
