//! Which subjects to ask a server for, so that a message arrives once.
//!
//! Pure set arithmetic over subject patterns. Cost: quadratic in the number of patterns, once
//! per connection.

use crate::channel::Pattern;

/// How the configured subjects are cut out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterPlan {
    /// The subjects cover the stream: take everything.
    Whole,
    /// The server filters by these, none of which overlaps another.
    Server(Vec<Pattern>),
    /// The server cannot (several filters before version 2.10, or filters that overlap): take
    /// everything and keep what one of these matches.
    Local(Vec<Pattern>),
}

impl FilterPlan {
    /// The plan for a stream that stores `stored` when `wanted` is configured. `several` says
    /// whether the server takes more than one filter.
    pub(crate) fn new(wanted: &[Pattern], stored: &[Pattern], several: Several) -> Self {
        let covers_stream = !stored.is_empty()
            && stored.iter().all(|subject| wanted.iter().any(|pattern| pattern.covers(subject)));
        if covers_stream {
            return Self::Whole;
        }
        let filters = without_covered(wanted);
        match filters.len() {
            1 => Self::Server(filters),
            _ if several == Several::Accepted && !any_overlap(&filters) => Self::Server(filters),
            _ => Self::Local(filters),
        }
    }

    /// Whether a message on `subject` that the server sent is wanted.
    pub(crate) fn accepts(&self, subject: &str) -> bool {
        match self {
            Self::Whole | Self::Server(_) => true,
            Self::Local(patterns) => patterns.iter().any(|pattern| pattern.matches(subject)),
        }
    }

    /// The filters for the server; none for everything.
    pub(crate) fn server_filters(&self) -> &[Pattern] {
        match self {
            Self::Whole | Self::Local(_) => &[],
            Self::Server(patterns) => patterns,
        }
    }
}

/// Whether a server takes more than one filter per consumer (from 2.10 on it does).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Several {
    Accepted,
    Refused,
}

/// The patterns without those that another one covers; of two equal ones the first stays.
pub(crate) fn without_covered(patterns: &[Pattern]) -> Vec<Pattern> {
    let is_covered = |index: usize, pattern: &Pattern| {
        patterns.iter().enumerate().any(|(other_index, other)| {
            other_index != index
                && other.covers(pattern)
                && (!pattern.covers(other) || other_index < index)
        })
    };
    let kept = patterns.iter().enumerate().filter(|(index, pattern)| !is_covered(*index, pattern));
    kept.map(|(_, pattern)| pattern.clone()).collect()
}

fn any_overlap(patterns: &[Pattern]) -> bool {
    patterns
        .iter()
        .enumerate()
        .any(|(index, pattern)| patterns[index + 1..].iter().any(|other| overlaps(pattern, other)))
}

/// Whether some subject matches both.
fn overlaps(one: &Pattern, other: &Pattern) -> bool {
    let mut theirs = other.as_str().split('.');
    for mine in one.as_str().split('.') {
        match (mine, theirs.next()) {
            (_, None) => return false,
            (">", Some(_)) | (_, Some(">")) => return true,
            ("*", Some(_)) | (_, Some("*")) => {}
            (mine, Some(their)) if mine == their => {}
            _ => return false,
        }
    }
    theirs.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text, 256).unwrap()).collect()
    }

    #[test]
    fn plans() {
        use Several::{Accepted, Refused};
        let server = |texts: &[&str]| FilterPlan::Server(patterns(texts));
        let local = |texts: &[&str]| FilterPlan::Local(patterns(texts));
        let ours = ["odin.token.>", "odin.global.>"];
        let cases = [
            (&ours[..], &ours[..], Refused, FilterPlan::Whole),
            (&[">"], &ours, Accepted, FilterPlan::Whole),
            (&ours, &["odin.>"], Accepted, server(&ours)),
            (&ours, &["odin.>"], Refused, local(&ours)),
            (&ours[..1], &["odin.>"], Refused, server(&ours[..1])),
            (&["odin.token.>", "odin.token.*.trade"], &["odin.>"], Refused, server(&ours[..1])),
            (&["a.*.x", "a.b.*"], &["a.>"], Accepted, local(&["a.*.x", "a.b.*"])),
            (&ours[..1], &[], Accepted, server(&ours[..1])),
        ];
        for (wanted, stored, several, expected) in cases {
            let plan = FilterPlan::new(&patterns(wanted), &patterns(stored), several);
            assert_eq!(plan, expected, "{wanted:?} of {stored:?}");
        }
    }

    #[test]
    fn covered_patterns_go_and_of_equal_ones_the_first_stays() {
        let kept = without_covered(&patterns(&["a.b", "a.*", "c", "c", "a.>", "d.*"]));
        assert_eq!(kept, patterns(&["c", "a.>", "d.*"]));
    }

    #[test]
    fn overlap_is_having_a_common_subject() {
        let cases = [
            ("a.*", "*.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a.b", "a.c", false),
            ("*.b.>", "a.*.c", true),
        ];
        for (one, other, expected) in cases {
            let both = patterns(&[one, other]);
            assert_eq!(overlaps(&both[0], &both[1]), expected, "{one} and {other}");
            assert_eq!(overlaps(&both[1], &both[0]), expected, "{other} and {one}");
        }
    }

    #[test]
    fn only_a_local_plan_looks_at_subjects() {
        let local = FilterPlan::Local(patterns(&["a.*"]));
        assert!(local.accepts("a.b") && !local.accepts("b.a"));
        assert!(FilterPlan::Whole.accepts("anything"));
    }
}
