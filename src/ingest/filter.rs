//! Which subjects to ask a server for, so that a message arrives once, and which to keep.
//!
//! Pure set arithmetic over subject patterns. Cost: quadratic in the number of patterns, once
//! per connection.

use crate::channel::Pattern;

/// How the configured subjects are cut out of a stream. The stream is read as a whole in either
/// case: only then does its sequence prove that nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterPlan {
    /// The subjects cover the stream.
    Whole,
    /// It holds others, too: what one of these matches is kept.
    Part(Vec<Pattern>),
}

impl FilterPlan {
    /// The plan for a stream that stores `stored` when `wanted` is configured.
    pub(crate) fn new(wanted: &[Pattern], stored: &[Pattern]) -> Self {
        let covers_stream = !stored.is_empty()
            && stored.iter().all(|subject| wanted.iter().any(|pattern| pattern.covers(subject)));
        if covers_stream { Self::Whole } else { Self::Part(without_covered(wanted)) }
    }

    /// Whether a message on `subject` is wanted.
    pub(crate) fn accepts(&self, subject: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::Part(patterns) => patterns.iter().any(|pattern| pattern.matches(subject)),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text, 256).unwrap()).collect()
    }

    #[test]
    fn plans() {
        let part = |texts: &[&str]| FilterPlan::Part(patterns(texts));
        let ours = ["odin.token.>", "odin.global.>"];
        let cases = [
            (&ours[..], &ours[..], FilterPlan::Whole),
            (&[">"], &ours, FilterPlan::Whole),
            (&ours, &["odin.>"], part(&ours)),
            (&["odin.token.>", "odin.token.*.trade"], &["odin.>"], part(&ours[..1])),
            (&ours[..1], &[], part(&ours[..1])),
        ];
        for (wanted, stored, expected) in cases {
            let plan = FilterPlan::new(&patterns(wanted), &patterns(stored));
            assert_eq!(plan, expected, "{wanted:?} of {stored:?}");
        }
    }

    #[test]
    fn covered_patterns_go_and_of_equal_ones_the_first_stays() {
        let kept = without_covered(&patterns(&["a.b", "a.*", "c", "c", "a.>", "d.*"]));
        assert_eq!(kept, patterns(&["c", "a.>", "d.*"]));
    }

    #[test]
    fn only_a_plan_for_a_part_looks_at_subjects() {
        let part = FilterPlan::Part(patterns(&["a.*"]));
        assert!(part.accepts("a.b") && !part.accepts("b.a"));
        assert!(FilterPlan::Whole.accepts("anything"));
    }
}
