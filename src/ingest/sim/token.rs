//! One made-up token: its name, its price, and what happens to it.
//!
//! Pure: the dice are passed in.

use rand::Rng;
use rand::rngs::SmallRng;

/// A token speaks every so many milliseconds if no total rate is set.
pub(super) const PERIOD_MS: std::ops::RangeInclusive<u64> = 1_000..=5_000;

/// The tokens that have a name; further ones are T0011, T0012 and so on.
const NAMED: [(&str, &str, f64); 10] = [
    ("BTC", "Bitcoin", 97_000.0),
    ("ETH", "Ethereum", 3_400.0),
    ("ODIN", "Odin", 0.42),
    ("SOL", "Solana", 210.0),
    ("DOGE", "Dogecoin", 0.38),
    ("PEPE", "Pepe", 0.000_02),
    ("SHIB", "Shiba Inu", 0.000_025),
    ("AVAX", "Avalanche", 41.0),
    ("LINK", "Chainlink", 17.5),
    ("ORDI", "Ordi", 38.0),
];

/// What happens to a token, and how often out of 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Trade,
    Update,
    Liquidity,
    Analytics,
    Balances,
    Social,
    Comment,
    Favorites,
    Metadata,
    Creation,
}

/// Every kind with its weight; the weights add up to 100.
const KINDS: [(Kind, &str, u32); 10] = [
    (Kind::Trade, "trade", 40),
    (Kind::Update, "update", 35),
    (Kind::Liquidity, "liquidity", 6),
    (Kind::Analytics, "analytics", 5),
    (Kind::Balances, "balances", 4),
    (Kind::Social, "social", 3),
    (Kind::Comment, "comment", 3),
    (Kind::Favorites, "favorites", 2),
    (Kind::Metadata, "metadata", 1),
    (Kind::Creation, "creation", 1),
];

/// A made-up token.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) id: String,
    pub(super) ticker: String,
    pub(super) name: String,
    pub(super) price: f64,
    pub(super) price_open: f64,
    pub(super) volume: u64,
    pub(super) supply: u64,
    pub(super) holders: u64,
    pub(super) transactions: u64,
    pub(super) created_ms: u64,
    pub(super) period_ms: u64,
}

impl Token {
    pub(super) fn new(index: usize, now_ms: u64, rng: &mut SmallRng) -> Self {
        let (ticker, name, price) = match NAMED.get(index) {
            Some((ticker, name, price)) => ((*ticker).to_owned(), (*name).to_owned(), *price),
            None => {
                let number = index + 1;
                (
                    format!("T{number:04}"),
                    format!("Token {number:04}"),
                    rng.random_range(0.01..10.0),
                )
            }
        };
        Self {
            id: format!("{:04x}", index + 0x2000),
            ticker,
            name,
            price,
            price_open: price,
            volume: rng.random_range(10_000..5_000_000),
            supply: 21_000_000,
            holders: rng.random_range(100..90_000),
            transactions: rng.random_range(1_000..500_000),
            created_ms: now_ms.saturating_sub(rng.random_range(86_400_000..31_536_000_000)),
            period_ms: rng.random_range(PERIOD_MS),
        }
    }

    /// What all of it is worth.
    pub(super) fn market_cap(&self) -> f64 {
        self.price * self.supply as f64
    }

    /// One step of the random walk. The price stays between a hundredth and the hundredfold of
    /// where it began, so it is always positive.
    pub(super) fn live_on(&mut self, kind: Kind, rng: &mut SmallRng) {
        self.price *= rng.random_range(0.99..1.010_1);
        self.price = self.price.clamp(self.price_open / 100.0, self.price_open * 100.0);
        if kind == Kind::Trade {
            self.transactions += 1;
            self.volume += rng.random_range(1..2_000);
        }
        if kind == Kind::Balances && rng.random_bool(0.5) {
            self.holders += 1;
        }
    }
}

/// Draws what happens next, and the word that names it in subjects.
pub(super) fn draw_kind(rng: &mut SmallRng) -> (Kind, &'static str) {
    let mut roll = rng.random_range(0..100);
    for (kind, word, weight) in KINDS {
        if roll < weight {
            return (kind, word);
        }
        roll -= weight;
    }
    (Kind::Trade, "trade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_are_percentages() {
        assert_eq!(KINDS.iter().map(|(_, _, weight)| weight).sum::<u32>(), 100);
    }
}
