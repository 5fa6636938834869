//! Tokens with prices that walk at random, and the events that they cause. Pure: the seed and
//! the clock come from outside. Bound: one pending event per token, and what one call is due,
//! at most [`DUE_MAX`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

/// Tokens that people know; further ones are made up.
const NAMED: [(&str, &str, f64); 10] = [
    ("BTC", "Bitcoin", 65_000.0),
    ("ETH", "Ethereum", 3_200.0),
    ("ODIN", "Odin", 0.42),
    ("SOL", "Solana", 150.0),
    ("DOGE", "Dogecoin", 0.12),
    ("PEPE", "Pepe", 0.000_011),
    ("WIF", "Dogwifhat", 1.9),
    ("BONK", "Bonk", 0.000_024),
    ("RUNE", "Thorchain", 4.8),
    ("ORDI", "Ordinals", 31.0),
];

/// What happens to a token, and how often out of 100.
const KINDS: [(&str, u32); 10] = [
    ("trade", 45),
    ("update", 25),
    ("liquidity", 8),
    ("comment", 6),
    ("balances", 5),
    ("favorites", 4),
    ("social", 3),
    ("metadata", 2),
    ("analytics", 1),
    ("creation", 1),
];

const TRENDING_EVERY_MS: u64 = 5_000;
const NEW_LISTING_EVERY_MS: u64 = 60_000;
const RHYTHM_MS: std::ops::RangeInclusive<u64> = 1_000..=5_000;

/// Events of one call; what is due beyond it is left out, so that a process that was stopped for
/// a minute does not make up for it in one go.
const DUE_MAX: usize = 10_000;

/// Payloads are filled up to at least so many bytes.
const PAYLOAD_BYTES_MIN: usize = 500;

const FILLER: &str = "Community updates, holder distribution and liquidity depth are refreshed with \
    every block. Past performance says nothing about what comes next; please trade with care and \
    keep your keys to yourself. Data is simulated and stands for no real market. ";

/// How the simulator behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct SimSettings {
    /// Tokens.
    pub tokens: usize,
    /// Events per second in all; 0: each token at its own rhythm.
    pub rate: f64,
    /// The same seed and clock give the same events.
    pub seed: u64,
}

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimEvent {
    /// The NATS subject.
    pub subject: String,
    /// JSON.
    pub payload: String,
}

#[derive(Debug)]
struct Token {
    symbol: String,
    name: String,
    price: f64,
    supply: f64,
    volume: f64,
    holders: u64,
    rhythm_ms: u64,
    last_price: f64,
}

/// The simulated market.
#[derive(Debug)]
pub struct Model {
    rng: SmallRng,
    tokens: Vec<Token>,
    rate: f64,
    start_ms: u64,
    /// With a fixed rate: events made so far.
    made: u64,
    /// With rhythms: when each token is due next.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    trending_at_ms: u64,
    listing_at_ms: u64,
}

impl Model {
    /// A market that opens at `now_ms`.
    pub fn new(settings: &SimSettings, now_ms: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(settings.seed);
        let tokens: Vec<Token> =
            (0..settings.tokens.max(1)).map(|index| Token::new(index, &mut rng)).collect();
        let due = tokens
            .iter()
            .enumerate()
            .map(|(index, token)| Reverse((now_ms + rng.random_range(0..token.rhythm_ms), index)))
            .collect();
        Self {
            rng,
            tokens,
            rate: settings.rate,
            start_ms: now_ms,
            made: 0,
            due,
            trending_at_ms: now_ms + TRENDING_EVERY_MS,
            listing_at_ms: now_ms + NEW_LISTING_EVERY_MS,
        }
    }

    /// Everything that is due at `now_ms`.
    pub fn due(&mut self, now_ms: u64) -> Vec<SimEvent> {
        let mut events = Vec::new();
        if self.rate > 0.0 {
            let elapsed_s = now_ms.saturating_sub(self.start_ms) as f64 / 1_000.0;
            let target = (elapsed_s * self.rate) as u64;
            let count = (target.saturating_sub(self.made) as usize).min(DUE_MAX);
            self.made = target;
            for _ in 0..count {
                let index = self.rng.random_range(0..self.tokens.len());
                events.push(self.token_event(index, now_ms));
            }
        } else {
            while let Some(&Reverse((at_ms, index))) = self.due.peek() {
                if at_ms > now_ms || events.len() >= DUE_MAX {
                    break;
                }
                self.due.pop();
                self.due.push(Reverse((now_ms + self.tokens[index].rhythm_ms, index)));
                events.push(self.token_event(index, now_ms));
            }
        }
        if now_ms >= self.trending_at_ms {
            self.trending_at_ms = now_ms + TRENDING_EVERY_MS;
            events.push(self.trending(now_ms));
        }
        if now_ms >= self.listing_at_ms {
            self.listing_at_ms = now_ms + NEW_LISTING_EVERY_MS;
            events.push(self.new_listing(now_ms));
        }
        events
    }

    /// When something is due next: with a fixed rate at once, for its events are made as often as
    /// the caller asks.
    pub fn next_ms(&self) -> u64 {
        if self.rate > 0.0 {
            return 0;
        }
        let token_ms = self.due.peek().map_or(u64::MAX, |Reverse((at_ms, _))| *at_ms);
        token_ms.min(self.trending_at_ms).min(self.listing_at_ms)
    }

    fn token_event(&mut self, index: usize, now_ms: u64) -> SimEvent {
        let mut draw = self.rng.random_range(0..100);
        let kind = KINDS
            .iter()
            .find(|(_, weight)| {
                let is_here = draw < *weight;
                draw = draw.saturating_sub(*weight);
                is_here
            })
            .map_or("trade", |(kind, _)| kind);
        let token = &mut self.tokens[index];
        token.step(&mut self.rng);
        let mut payload = token.fields(now_ms);
        for (name, value) in extra_fields(kind, token, &mut self.rng) {
            payload.insert(name.to_owned(), value);
        }
        let subject = format!("odin.token.{}.{kind}", token.symbol);
        SimEvent { subject, payload: filled(payload) }
    }

    fn trending(&mut self, now_ms: u64) -> SimEvent {
        let mut order: Vec<&Token> = self.tokens.iter().collect();
        order.sort_by(|a, b| b.volume.total_cmp(&a.volume));
        let list: Vec<Value> = order
            .iter()
            .take(5)
            .enumerate()
            .map(|(rank, token)| {
                json!({"rank": rank + 1, "id": token.id(), "ticker": token.symbol,
                       "price": round(token.price), "volume": round(token.volume)})
            })
            .collect();
        let payload = json!({"tokens": list, "sent_at": now_ms});
        SimEvent {
            subject: "odin.global.trending".into(),
            payload: filled(payload.as_object().cloned().unwrap_or_default()),
        }
    }

    fn new_listing(&mut self, now_ms: u64) -> SimEvent {
        let index = self.rng.random_range(0..self.tokens.len());
        let payload = filled(self.tokens[index].fields(now_ms));
        SimEvent { subject: "odin.global.new_listing".into(), payload }
    }
}

impl Token {
    fn new(index: usize, rng: &mut SmallRng) -> Self {
        let (symbol, name, price) = match NAMED.get(index) {
            Some((symbol, name, price)) => ((*symbol).to_owned(), (*name).to_owned(), *price),
            None => {
                let number = index + 1;
                let price = 10_f64.powf(rng.random_range(-5.0..2.0));
                (format!("T{number:04}"), format!("Token {number}"), price)
            }
        };
        Self {
            symbol,
            name,
            price,
            supply: 10_f64.powf(rng.random_range(6.0..9.0)),
            volume: price * rng.random_range(1_000.0..100_000.0),
            holders: rng.random_range(50..50_000),
            rhythm_ms: rng.random_range(RHYTHM_MS),
            last_price: price,
        }
    }

    fn id(&self) -> String {
        format!("id-{}", self.symbol.to_ascii_lowercase())
    }

    /// One step of a geometric random walk, at most 2 % either way: it cannot reach zero.
    fn step(&mut self, rng: &mut SmallRng) {
        self.last_price = self.price;
        self.price = (self.price * (1.0 + rng.random_range(-0.02..0.02))).max(1e-9);
        self.volume = (self.volume * 0.999 + self.price * rng.random_range(0.0..500.0)).max(0.0);
        self.holders = self.holders.saturating_add_signed(rng.random_range(-2..=3)).max(1);
    }

    fn fields(&self, now_ms: u64) -> Map<String, Value> {
        let value = json!({
            "id": self.id(),
            "name": self.name,
            "ticker": self.symbol,
            "price": round(self.price),
            "price_before": round(self.last_price),
            "marketcap": round(self.price * self.supply),
            "volume": round(self.volume),
            "holder_count": self.holders,
            "btc_liquidity": round(self.volume * 0.11),
            "token_liquidity": round(self.supply * 0.04),
            "total_supply": round(self.supply),
            "last_action_time": now_ms,
            "sent_at": now_ms,
        });
        value.as_object().cloned().unwrap_or_default()
    }
}

fn extra_fields(kind: &str, token: &Token, rng: &mut SmallRng) -> Vec<(&'static str, Value)> {
    let user = format!("user-{:05}", rng.random_range(0..100_000));
    let amount = round(rng.random_range(0.1..5_000.0));
    match kind {
        "trade" => vec![
            ("side", json!(if rng.random_bool(0.5) { "buy" } else { "sell" })),
            ("amount", json!(amount)),
            ("total", json!(round(amount * token.price))),
            ("user", json!(user)),
            ("trade_id", json!(format!("{:016x}", rng.random::<u64>()))),
        ],
        "liquidity" => vec![("change", json!(amount)), ("user", json!(user))],
        "comment" | "social" => vec![
            ("user", json!(user)),
            ("text", json!(format!("{} to the moon \u{1F680}", token.name))),
        ],
        "favorites" => vec![("favorites", json!(rng.random_range(0..9_999)))],
        "balances" => vec![("user", json!(user)), ("balance", json!(amount))],
        "analytics" => vec![("buys_1h", json!(rng.random_range(0..500)))],
        "creation" => vec![("creator", json!(user))],
        _ => Vec::new(),
    }
}

/// Eight significant digits, as the backend sends them.
fn round(value: f64) -> f64 {
    if value <= 0.0 {
        return 0.0;
    }
    let scale = 10_f64.powi(7 - value.log10().floor() as i32);
    (value * scale).round() / scale
}

/// The payload's text, with a description that fills it up.
fn filled(mut payload: Map<String, Value>) -> String {
    let bytes = Value::Object(payload.clone()).to_string().len();
    let missing = PAYLOAD_BYTES_MIN.saturating_sub(bytes + r#","description":"""#.len());
    let text: String = FILLER.chars().cycle().take(missing).collect();
    payload.insert("description".into(), text.into());
    Value::Object(payload).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn events(settings: &SimSettings, seconds: u64) -> Vec<SimEvent> {
        let mut model = Model::new(settings, 1_000);
        (0..seconds * 20).flat_map(|tick| model.due(1_000 + tick * 50)).collect()
    }

    #[test]
    fn payloads_are_realistic_and_prices_positive() {
        let settings = SimSettings { tokens: 200, rate: 500.0, seed: 3 };
        let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
        for event in events(&settings, 130) {
            let value: Value = serde_json::from_str(&event.payload).unwrap();
            let length = event.payload.len();
            assert!((500..=800).contains(&length), "{length}: {}", event.payload);
            let tokens: Vec<&str> = event.subject.split('.').collect();
            *kinds.entry(tokens[tokens.len() - 1].to_owned()).or_default() += 1;
            if event.subject.ends_with("trending") {
                assert_eq!(value["tokens"].as_array().unwrap().len(), 5);
                continue;
            }
            assert!(value["price"].as_f64().unwrap() > 0.0, "{}", event.payload);
            for field in [
                "id",
                "name",
                "ticker",
                "marketcap",
                "volume",
                "holder_count",
                "btc_liquidity",
                "token_liquidity",
                "last_action_time",
            ] {
                assert!(!value[field].is_null(), "{field}");
            }
        }
        assert_eq!(kinds.len(), KINDS.len() + 2, "{kinds:?}");
        assert_eq!(kinds["trending"], 25);
        assert!(kinds["trade"] > kinds["update"] && kinds["update"] > kinds["liquidity"]);
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let settings = SimSettings { tokens: 20, rate: 0.0, seed: 5 };
        assert_eq!(events(&settings, 20), events(&settings, 20));
        let other = SimSettings { seed: 6, ..settings.clone() };
        assert_ne!(events(&settings, 20), events(&other, 20));
    }

    #[test]
    fn each_token_has_its_own_rhythm_of_one_to_five_seconds() {
        let settings = SimSettings { tokens: 10, rate: 0.0, seed: 5 };
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for event in events(&settings, 60) {
            if let Some(rest) = event.subject.strip_prefix("odin.token.") {
                *counts.entry(rest.split('.').next().unwrap().to_owned()).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 10);
        assert!(counts.values().all(|count| (11..=61).contains(count)), "{counts:?}");
        assert!(counts.contains_key("BTC") && counts.contains_key("ODIN"));
    }

    #[test]
    fn sleeping_until_the_next_event_misses_none() {
        let settings = SimSettings { tokens: 10, rate: 0.0, seed: 5 };
        let mut model = Model::new(&settings, 1_000);
        let mut now_ms = 1_000;
        for _ in 0..1_000 {
            assert!(model.due(now_ms).iter().all(|event| !event.subject.is_empty()));
            assert!(model.next_ms() > now_ms);
            now_ms = model.next_ms();
        }
        assert!((150_000..400_000).contains(&now_ms), "{now_ms}");
    }

    #[test]
    fn a_fixed_rate_is_kept_and_a_pause_is_not_made_up_for_without_bound() {
        let settings = SimSettings { tokens: 10, rate: 2_000.0, seed: 5 };
        let count = events(&settings, 10).len();
        assert!((19_800..=20_010).contains(&count), "{count}");
        let mut model = Model::new(&settings, 0);
        assert!(model.due(3_600_000).len() <= DUE_MAX + 2);
        assert!(model.due(3_600_100).len() <= 202);
    }
}
