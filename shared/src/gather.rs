//! Puts items into a set or a map one by one. The standard library's `collect` sorts them first, with
//! a sorting routine for each type of item: four kilobytes each in an agent that must be small, for a
//! handful of items.

/// Everything that comes, in a set or a map. Of equal keys the last stays.
pub fn gather<C: Default + Extend<T>, T>(items: impl IntoIterator<Item = T>) -> C {
    let mut all = C::default();
    all.extend(items);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_gathered_is_what_would_be_collected() {
        let items = [(3, 'c'), (1, 'a'), (3, 'd'), (2, 'b')];
        let gathered: BTreeMap<u8, char> = gather(items);
        assert_eq!(gathered, items.into_iter().collect::<BTreeMap<u8, char>>());
    }
}
