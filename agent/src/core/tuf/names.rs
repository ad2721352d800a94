//! Names that come from metadata, made safe for URLs and file names, and patterns for target paths.
//!
//! It refuses names that could leave a folder, overwrite another file, or not fit a file name.

use sha2::{Digest, Sha256};

use super::error::{TufError, quote};

/// Longest role name, escaped: with prefix and ending it must fit a file name of 255 bytes.
pub(super) const ROLE_NAME_LIMIT: usize = 200;
/// Longest target path: four times what any path of ours needs.
pub(super) const TARGET_PATH_LIMIT: usize = 1024;

/// Escapes all but letters, digits, `-`, `.`, `_` and `~`, so that the result is one URL segment.
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex::encode_upper([byte]));
        }
    }
    out
}

/// Escapes each segment of a target path and keeps the separators.
pub fn escape_path(path: &str) -> String {
    path.split('/').map(escape).collect::<Vec<_>>().join("/")
}

/// The escaped name of a delegated role; refuses the names of the top-level roles and what is
/// empty or too long for a file.
pub(super) fn delegated(role: &str) -> Result<String, TufError> {
    let escaped = escape(role);
    let reserved = ["root", "timestamp", "snapshot", "targets"].contains(&role);
    if role.is_empty() || reserved || escaped.len() > ROLE_NAME_LIMIT {
        return Err(TufError::RoleName { role: quote(role) });
    }
    Ok(escaped)
}

/// Succeeds if `path` stays below the targets base wherever it is appended.
pub(super) fn check_target_path(path: &str) -> Result<(), TufError> {
    let sound = path.len() <= TARGET_PATH_LIMIT
        && !path.chars().any(char::is_control)
        && !path.contains('\\')
        && path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if sound {
        return Ok(());
    }
    Err(TufError::TargetPath { path: quote(path) })
}

/// Whether `path` lies in `pattern`: `*` stands for any run of characters within one segment, `?`
/// for one character; nothing else is special and case counts.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let mut patterns = pattern.split('/');
    let mut segments = path.split('/');
    loop {
        match (patterns.next(), segments.next()) {
            (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
            (None, None) => return true,
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}

/// Returns to the last star only, so that the time is at most the product of the two lengths.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let (mut rest, mut text) = (pattern.chars(), segment.chars());
    let mut retry = None;
    loop {
        let (mut after, mut left) = (rest.clone(), text.clone());
        match (after.next(), left.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((after.clone(), text.clone()));
                rest = after;
                continue;
            }
            (Some(p), Some(t)) if p == '?' || p == t => {
                (rest, text) = (after, left);
                continue;
            }
            (Some(_) | None, _) => {}
        }
        let Some((star, mut from)) = retry.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        (rest, text) = (star.clone(), from.clone());
        retry = Some((star, from));
    }
}

/// Whether the hexadecimal SHA-256 of `path` begins with `prefix`.
pub(super) fn hash_begins(path: &str, prefix: &str) -> bool {
    let hash = hex::encode(Sha256::digest(path.as_bytes()));
    !prefix.is_empty() && hash.starts_with(&prefix.to_ascii_lowercase())
}

/// The name of the bin that `path` falls into, where `2^bits` bins share a prefix. `bits` is 1 to 32.
pub(super) fn bin(path: &str, prefix: &str, bits: u32) -> String {
    let hash = Sha256::digest(path.as_bytes());
    let top = hash.iter().take(4).fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
    let index = top >> 32_u32.saturating_sub(bits);
    let width = bits.div_ceil(4) as usize;
    format!("{prefix}-{index:0width$x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_one_url_segment_and_one_file_name() {
        assert_eq!(escape("../x"), "..%2Fx");
        assert_eq!(escape("?#%\0é"), "%3F%23%25%00%C3%A9");
        assert_eq!(escape("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(escape_path("a b/c"), "a%20b/c");
    }

    #[test]
    fn role_names_of_the_top_level_and_names_too_long_for_a_file_are_refused() {
        for name in ["root", "timestamp", "snapshot", "targets", "", &"x".repeat(4096)] {
            assert!(delegated(name).is_err(), "{name}");
        }
        assert!(delegated(&"/".repeat(ROLE_NAME_LIMIT / 3 + 1)).is_err());
        assert_eq!(delegated("1.root").expect("a plain name"), "1.root");
    }

    #[test]
    fn target_paths_that_leave_their_folder_are_refused() {
        let long = "x".repeat(TARGET_PATH_LIMIT + 1);
        for path in
            ["", "/x", "x/", "a//b", "..", "a/../b", "./a", "a\0b", "a\nb", "a\\..\\b", &long]
        {
            assert!(check_target_path(path).is_err(), "{path:?}");
        }
        assert!(check_target_path("releases/app/..1.2.json").is_ok());
    }

    #[test]
    fn a_star_stays_within_its_segment() {
        assert!(matches("*", "a"));
        assert!(!matches("*", "a/b"));
        assert!(matches("a/*/c", "a/b/c"));
        assert!(!matches("a/*", "a"));
        assert!(matches("foo-?.tgz", "foo-é.tgz"));
        assert!(!matches("foo-?.tgz", "foo-.tgz"));
        assert!(matches("*a*b", "xaab"));
        assert!(!matches("*a*b", "xaabc"));
        assert!(matches("**", ""));
        assert!(!matches("README.md", "README.MD"));
        assert!(matches("[a]", "[a]"));
        assert!(!matches("[a]", "a"));
    }

    #[test]
    fn a_hostile_pattern_takes_bounded_time() {
        let pattern = "*a".repeat(20_000);
        let path = "a".repeat(1_000) + "b";
        assert!(!matches(&pattern, &path));
    }

    #[test]
    fn bins_are_named_as_tap_15_names_them() {
        // SHA-256 of `a` begins with ca978112.
        assert_eq!(bin("a", "bins", 4), "bins-c");
        assert_eq!(bin("a", "bins", 1), "bins-1");
        assert_eq!(bin("a", "bins", 5), "bins-19");
        assert_eq!(bin("a", "bins", 10), "bins-32a");
        assert_eq!(bin("a", "bins", 32), "bins-ca978112");
        assert!(hash_begins("a", "CA9"));
        assert!(!hash_begins("a", ""));
    }
}
