//! Moments that differ from connection to connection without dice: a number of the connection,
//! scattered (the finalizer of SplitMix64, Steele, Lea and Flood 2014), so that what is meant to
//! be spread is, and a run can be repeated.

/// What is spread. The same connection gets unrelated moments for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// Places within a drain.
    Drain,
    /// Lengths of life.
    Age,
    /// The time to reconnect at the end of a life.
    Reconnect,
}

/// A number from 0 to `span`, `span` left out, for the connection `number` of a shard; 0 if
/// `span` is.
pub(super) fn jitter(span: u64, spread: Spread, shard: usize, number: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let seed = scatter((((shard as u64) << 8) | spread as u64).wrapping_mul(GOLDEN));
    let fraction = scatter(seed.wrapping_add(number.wrapping_mul(GOLDEN)));
    ((u128::from(fraction) * u128::from(span)) >> 64) as u64
}

fn scatter(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_numbers_are_spread_evenly_and_differently_for_each_shard_and_purpose() {
        let of = |spread, shard| -> Vec<u64> {
            (1..=10_000).map(|number| jitter(1_000, spread, shard, number)).collect()
        };
        let all = [of(Spread::Age, 0), of(Spread::Age, 1), of(Spread::Reconnect, 0)];
        for moments in &all {
            for tenth in 0..10 {
                let count = moments.iter().filter(|moment| **moment / 100 == tenth).count();
                assert!((900..1_100).contains(&count), "{count} in tenth {tenth}");
            }
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let same = all[one].iter().zip(&all[other]).filter(|(a, b)| a == b).count();
            assert!(same < 30, "{same} of 10,000 are the same");
        }
        assert_eq!(jitter(0, Spread::Drain, 3, 7), 0);
    }
}
