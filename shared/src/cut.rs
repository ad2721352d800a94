//! A text that has to be shorter: whole words and a sign that more was said, never a sentence that
//! ends as if it were over.

/// What stands for the rest.
const REST: &str = "…";

/// The text, whole where it has at most `most` bytes; else as many whole words as fit, and `…`. One
/// long word is cut within.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub(REST.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (head, rest) = text.split_at(end);
    let words = if rest.starts_with(char::is_whitespace) {
        head
    } else {
        // A hash or an address at the end must not take most of the text with it.
        let word = head.rfind(char::is_whitespace).filter(|at| *at >= end / 2);
        word.and_then(|at| head.get(..at)).unwrap_or(head)
    };
    format!("{}{REST}", words.trim_end_matches(|c: char| c.is_whitespace() || c == ','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_whole_and_what_does_not_ends_at_a_word_with_a_sign() {
        let text = "the server refused, and said why";
        assert_eq!(cut(text, text.len()), text);
        assert_eq!(cut(text, 30), "the server refused, and…");
        assert_eq!(cut(text, 22), "the server refused…");
        assert_eq!(cut("b89f962da0472ef63ea655", 10), "b89f962…");
        assert_eq!(cut("a b89f962da0472ef63ea655", 12), "a b89f962…");
    }

    #[test]
    fn no_cut_is_longer_than_asked_or_breaks_a_character() {
        let text = "größer als erlaubt, wie überall sonst auch";
        for most in 3..text.len() {
            let short = cut(text, most);
            assert!(short.len() <= most && short.ends_with(REST), "{most}: {short}");
        }
    }
}
