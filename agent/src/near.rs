//! The nearest known word to a misspelt one, to be offered in a hint.

/// How many letters a misspelt word may be away from the one that is offered instead.
const NEAR: usize = 3;

/// The known word that was most likely meant; none when all of them are far away.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (distance(word, known), known))
        .filter(|(distance, known)| *distance <= NEAR && *distance < known.len())
        .min()
        .map(|(_, known)| known)
}

/// How many letters must be put in, taken out or changed to make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, pair) in b.iter().zip(row.windows(2)) {
            let [diagonal, above] = pair else { continue };
            left = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_the_letters_that_differ() {
        for (a, b, expected) in [
            ("poll_s", "poll_s", 0),
            ("pol_s", "poll_s", 1),
            ("sevrer", "server", 2),
            ("", "ca", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_word_far_from_all_others_has_no_nearest() {
        let known = || ["status", "run"].into_iter();
        assert_eq!(nearest("stauts", known()), Some("status"));
        assert_eq!(nearest("install", known()), None);
        assert_eq!(nearest("", known()), None);
    }
}
