//! Which token speaks when, and what is said between the tokens: new listings and trends.
//!
//! Pure: the dice are seeded and `now` is passed in, so one seed gives one sequence of events.
//! Bounds: [`TOKENS_MAX`] tokens; a model that was not asked for a while makes up at most one
//! second of events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::payload::{self, Stamp};
use super::token::{Token, draw_kind};

/// Tokens that one model holds: 200 bytes each.
const TOKENS_MAX: usize = 100_000;

/// The list of trending tokens comes this often.
const TRENDING_EVERY_MS: u64 = 5_000;

/// A new listing comes after a time in this range.
const LISTING_AFTER_MS: std::ops::RangeInclusive<u64> = 20_000..=60_000;

/// What the simulator plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimSettings {
    /// Tokens, 1 to 100,000; the first ten have names.
    pub tokens: usize,
    /// Events per second in all; `None` gives each token a rhythm of its own, 1 to 5 s.
    pub events_per_second: Option<u32>,
    /// The same seed plays the same game.
    pub seed: u64,
}

impl Default for SimSettings {
    fn default() -> Self {
        Self { tokens: 10, events_per_second: None, seed: 1 }
    }
}

/// One event, valid until the next is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SimEvent<'a> {
    pub(crate) subject: &'a str,
    pub(crate) payload: &'a str,
}

/// When the next token speaks.
#[derive(Debug)]
enum Pace {
    /// Each token by itself: (due, index), the earliest on top.
    Rhythm(BinaryHeap<Reverse<(u64, usize)>>),
    /// All together.
    Total { events_per_second: u64, start_ms: u64, given: u64 },
}

/// The tokens and what they say next.
#[derive(Debug)]
pub(crate) struct Model {
    rng: SmallRng,
    tokens: Vec<Token>,
    pace: Pace,
    trending_due_ms: u64,
    listing_due_ms: u64,
    number: u64,
    subject: String,
    payload: String,
}

impl Model {
    /// The tokens at their starting prices.
    pub(crate) fn new(settings: &SimSettings, now_ms: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(settings.seed);
        let count = settings.tokens.clamp(1, TOKENS_MAX);
        let tokens: Vec<Token> =
            (0..count).map(|index| Token::new(index, now_ms, &mut rng)).collect();
        let pace = match settings.events_per_second {
            Some(rate) => {
                Pace::Total { events_per_second: rate.into(), start_ms: now_ms, given: 0 }
            }
            None => Pace::Rhythm(
                tokens
                    .iter()
                    .enumerate()
                    .map(|(index, token)| {
                        Reverse((now_ms + rng.random_range(0..token.period_ms), index))
                    })
                    .collect(),
            ),
        };
        Self {
            tokens,
            pace,
            trending_due_ms: now_ms + TRENDING_EVERY_MS,
            listing_due_ms: now_ms + rng.random_range(LISTING_AFTER_MS),
            number: 0,
            subject: String::new(),
            payload: String::new(),
            rng,
        }
    }

    /// When the next event is due, in milliseconds since the Unix epoch.
    pub(crate) fn next_due_ms(&self) -> u64 {
        let token_due = match &self.pace {
            Pace::Rhythm(heap) => heap.peek().map_or(u64::MAX, |Reverse((due, _))| *due),
            // The globals take a slot of the total: they are never due by themselves.
            Pace::Total { events_per_second: 0, .. } => return u64::MAX,
            Pace::Total { events_per_second, start_ms, given } => {
                return start_ms + ((given + 1) * 1_000).div_ceil(*events_per_second);
            }
        };
        token_due.min(self.trending_due_ms).min(self.listing_due_ms)
    }

    /// The next event that is due at `now_ms`, if one is.
    pub(crate) fn next(&mut self, now_ms: u64) -> Option<SimEvent<'_>> {
        if self.next_due_ms() > now_ms {
            return None;
        }
        let mut take_slot = true;
        self.number += 1;
        let stamp = Stamp { number: self.number, sent_at_ms: now_ms };
        self.subject.clear();
        self.payload.clear();
        if self.trending_due_ms <= now_ms {
            self.trending_due_ms = now_ms + TRENDING_EVERY_MS;
            self.subject.push_str("odin.global.trending");
            payload::trending(&mut self.payload, stamp, &self.tokens, &mut self.rng);
            take_slot = matches!(self.pace, Pace::Total { .. });
        } else if self.listing_due_ms <= now_ms {
            self.listing_due_ms = now_ms + self.rng.random_range(LISTING_AFTER_MS);
            self.subject.push_str("odin.global.new_listing");
            let token = &self.tokens[self.rng.random_range(0..self.tokens.len())];
            payload::new_listing(&mut self.payload, stamp, token, &mut self.rng);
            take_slot = matches!(self.pace, Pace::Total { .. });
        }
        if take_slot {
            let index = self.take_slot(now_ms);
            if self.subject.is_empty() {
                self.speak(index, stamp);
            }
        }
        Some(SimEvent { subject: &self.subject, payload: &self.payload })
    }

    /// Uses up the slot that is due; says whose it is.
    fn take_slot(&mut self, now_ms: u64) -> usize {
        match &mut self.pace {
            Pace::Rhythm(heap) => {
                let Some(Reverse((due, index))) = heap.pop() else { return 0 };
                // One that is late by more than its period does not catch up.
                let next = (due + self.tokens[index].period_ms).max(now_ms + 1);
                heap.push(Reverse((next, index)));
                index
            }
            Pace::Total { events_per_second, start_ms, given } => {
                let due = (now_ms - *start_ms) * *events_per_second / 1_000;
                *given = (*given + 1).max(due.saturating_sub(*events_per_second));
                self.rng.random_range(0..self.tokens.len())
            }
        }
    }

    fn speak(&mut self, index: usize, stamp: Stamp) {
        let token = &mut self.tokens[index];
        let (kind, word) = draw_kind(&mut self.rng);
        token.live_on(kind, &mut self.rng);
        // Writing to a String cannot fail.
        write!(self.subject, "odin.token.{}.{word}", token.ticker).ok();
        payload::token(&mut self.payload, stamp, (kind, word), token, &mut self.rng);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::super::token::PERIOD_MS;
    use super::*;
    use crate::channel::Pattern;

    const START_MS: u64 = 1_732_150_000_000;

    /// Plays the model for some seconds, one millisecond after the other.
    fn play(settings: &SimSettings, seconds: u64) -> Vec<(u64, String, String)> {
        let mut model = Model::new(settings, START_MS);
        let mut events = Vec::new();
        for now_ms in START_MS..START_MS + seconds * 1_000 {
            while let Some(event) = model.next(now_ms) {
                events.push((now_ms, event.subject.to_owned(), event.payload.to_owned()));
            }
        }
        events
    }

    fn total(tokens: usize, rate: u32) -> SimSettings {
        SimSettings { tokens, events_per_second: Some(rate), seed: 7 }
    }

    #[test]
    fn payloads_are_json_objects_of_500_to_800_bytes_with_the_real_fields() {
        for (_, subject, payload) in play(&total(3_000, 1_000), 61) {
            assert!((500..=800).contains(&payload.len()), "{} bytes: {payload}", payload.len());
            let value: serde_json::Value = serde_json::from_str(&payload).unwrap();
            assert!(value["sent_at"].as_u64().unwrap() >= START_MS);
            if subject == "odin.global.trending" {
                assert_eq!(value["tokens"].as_array().unwrap().len(), 5);
                continue;
            }
            for field in ["price", "marketcap", "volume", "btc_liquidity", "token_liquidity"] {
                assert!(value[field].as_f64().unwrap() > 0.0, "{field} in {payload}");
            }
            for field in ["id", "name", "ticker", "holder_count", "last_action_time"] {
                assert!(!value[field].is_null(), "{field} in {payload}");
            }
        }
    }

    #[test]
    fn every_kind_of_event_comes_and_trades_and_updates_most() {
        let mut counts: HashMap<String, u32> = HashMap::new();
        for (_, subject, _) in play(&total(20, 500), 120) {
            assert!(!Pattern::parse(&subject, 256).unwrap().is_wildcard());
            *counts.entry(subject.rsplit('.').next().unwrap().to_owned()).or_default() += 1;
        }
        assert_eq!(counts.len(), 12, "{counts:?}");
        assert!(counts["trade"] > counts["update"] && counts["update"] > counts["liquidity"] * 3);
        assert_eq!(counts["trending"], 23, "every 5 s of 120");
    }

    #[test]
    fn one_seed_gives_one_game() {
        let settings = SimSettings { tokens: 50, events_per_second: None, seed: 3 };
        assert_eq!(play(&settings, 10), play(&settings, 10));
        assert_ne!(play(&settings, 10), play(&SimSettings { seed: 4, ..settings.clone() }, 10));
    }

    #[test]
    fn a_total_rate_is_kept_to_the_event() {
        for rate in [1, 7, 1_000, 20_000] {
            assert_eq!(play(&total(10, rate), 5).len() as u32, 5 * rate - rate.div_ceil(1_000));
        }
    }

    #[test]
    fn tokens_speak_in_a_rhythm_of_their_own() {
        let events = play(&SimSettings { tokens: 12, events_per_second: None, seed: 1 }, 20);
        let tickers: HashSet<&str> =
            events.iter().filter_map(|(_, subject, _)| subject.split('.').nth(2)).collect();
        assert!(tickers.contains("BTC") && tickers.contains("T0011") && tickers.contains("T0012"));
        let btc: Vec<u64> = events
            .iter()
            .filter(|(_, subject, _)| subject.starts_with("odin.token.BTC."))
            .map(|(at, _, _)| *at)
            .collect();
        let gaps: HashSet<u64> = btc.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert!(PERIOD_MS.contains(gaps.iter().next().unwrap()));
    }

    #[test]
    fn a_model_that_slept_makes_up_one_second_at_most() {
        let mut model = Model::new(&total(10, 100), START_MS);
        let mut events = 0;
        while model.next(START_MS + 60_000).is_some() {
            events += 1;
        }
        assert!((100..=101).contains(&events), "{events}");
    }
}
