//! Text from others, made safe to show: what a person reads before signing must not move the cursor,
//! change colours or turn the direction of writing.

/// The text with everything escaped that a terminal would act on or a reader could not see.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Characters without width, and those that turn the direction of writing.
const fn invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_or_hides_gets_through() {
        assert_eq!(plain("Grüße, 日本"), "Grüße, 日本");
        for bad in ["a\u{1b}[2Jb", "a\rb", "a\u{202e}b", "a\u{200b}b", "a\u{9b}b", "a\nb"] {
            let shown = plain(bad);
            assert!(shown.contains("\\u{"), "{shown}");
            assert!(!shown.chars().any(|c| c.is_control() || invisible(c)));
        }
    }
}
