//! What may be said of two resourceVersions. Pure.

/// Whether `now` is older than `then`. They are numbers that grow with every write, for Kubernetes promises as much of its
/// own types and of custom resources; of what is none, nothing is said.
pub(super) fn is_before(now: &str, then: &str) -> bool {
    match (now.parse::<u128>(), then.parse::<u128>()) {
        (Ok(now), Ok(then)) => now < then,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers_or_not_at_all() {
        assert!(is_before("99", "100"));
        assert!(!is_before("100", "100"));
        assert!(!is_before("101", "100"));
        assert!(!is_before("a1", "a2"));
        assert!(!is_before("", "7"));
    }
}
