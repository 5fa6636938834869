//! The JSON of each kind of event, between 500 and 800 bytes like the platform's own.
//!
//! Pure. Every payload ends with a description that brings it to a size drawn at random. Texts
//! need no escaping: they are all made here.

use std::fmt::{Arguments, Write};

use rand::Rng;
use rand::rngs::SmallRng;

use super::token::{Kind, Token};

/// The size that a payload is filled up to, before the closing brace.
const FILLED_BYTES: std::ops::RangeInclusive<usize> = 520..=760;

/// Tokens in a list of trending ones.
const TRENDING_TOKENS: usize = 5;

/// What descriptions are cut from; long enough for the emptiest payload.
const DESCRIPTION: &str = "A community token with a fair launch and no team allocation, traded \
    against bitcoin with liquidity that is locked for good. Holders vote on listings, burns and \
    grants. Nothing in this text is advice, and nothing in this market is real: it was made up \
    by a simulator that rolls dice, so that charts have something to show and load has something \
    to carry. The rest of this text only fills the room that real descriptions take. It says \
    nothing, and says it at length, because a payload of the right size is what matters here. \
    Whoever reads this far may as well go on to the price, which was made up just as well.";

/// Which event of the simulator it is, and when it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) number: u64,
    pub(super) sent_at_ms: u64,
}

/// An event of one token: what is always told, then what belongs to the kind.
pub(super) fn token(
    out: &mut String,
    stamp: Stamp,
    (kind, word): (Kind, &str),
    token: &Token,
    rng: &mut SmallRng,
) {
    begin(out, word, stamp);
    body(out, token, stamp);
    details(out, kind, token, rng);
    fill(out, rng);
}

/// A token that was listed just now.
pub(super) fn new_listing(out: &mut String, stamp: Stamp, token: &Token, rng: &mut SmallRng) {
    begin(out, "new_listing", stamp);
    body(out, token, stamp);
    put(out, format_args!(",\"listed_at\":{}", stamp.sent_at_ms));
    fill(out, rng);
}

/// The tokens that people look at: neighbours, beginning anywhere.
pub(super) fn trending(out: &mut String, stamp: Stamp, tokens: &[Token], rng: &mut SmallRng) {
    begin(out, "trending", stamp);
    let first = rng.random_range(0..tokens.len());
    for rank in 0..TRENDING_TOKENS {
        let token = &tokens[(first + rank) % tokens.len()];
        out.push_str(if rank == 0 { ",\"tokens\":[" } else { "," });
        put(
            out,
            format_args!(
                "{{\"rank\":{},\"id\":\"{}\",\"name\":\"{}\",\"ticker\":\"{}\",\"price\":{:.8}}}",
                rank + 1,
                token.id,
                token.name,
                token.ticker,
                token.price,
            ),
        );
    }
    out.push(']');
    fill(out, rng);
}

fn begin(out: &mut String, event: &str, stamp: Stamp) {
    let Stamp { number, sent_at_ms } = stamp;
    put(out, format_args!("{{\"event\":\"{event}\",\"n\":{number},\"sent_at\":{sent_at_ms}"));
}

fn body(out: &mut String, token: &Token, stamp: Stamp) {
    let change = (token.price / token.price_open - 1.0) * 100.0;
    put(
        out,
        format_args!(
            ",\"id\":\"{}\",\"name\":\"{}\",\"ticker\":\"{}\",\"price\":{:.8},\
             \"price_change_24h\":{change:.2},\"marketcap\":{:.2},\"volume\":{},\
             \"holder_count\":{},\"btc_liquidity\":{:.8},\"token_liquidity\":{:.2}",
            token.id,
            token.name,
            token.ticker,
            token.price,
            token.market_cap(),
            token.volume,
            token.holders,
            token.market_cap() / 1_000_000.0,
            token.supply as f64 / 10.0,
        ),
    );
    put(
        out,
        format_args!(
            ",\"total_supply\":{},\"txn_count\":{},\"created_time\":{},\"last_action_time\":{}",
            token.supply, token.transactions, token.created_ms, stamp.sent_at_ms,
        ),
    );
}

fn details(out: &mut String, kind: Kind, token: &Token, rng: &mut SmallRng) {
    let who: u64 = rng.random();
    let amount = rng.random_range(1.0..50_000.0);
    let part = rng.random_range(0.97..1.03);
    let count: u32 = rng.random_range(1..5_000);
    let is_up = rng.random_bool(0.5);
    let price = token.price;
    match kind {
        Kind::Trade => put(
            out,
            format_args!(
                ",\"side\":\"{}\",\"amount_token\":{amount:.4},\"amount_btc\":{:.8},\
                 \"trader\":\"{who:016x}\"",
                if is_up { "buy" } else { "sell" },
                amount * price / 97_000.0,
            ),
        ),
        Kind::Update | Kind::Analytics => put(
            out,
            format_args!(
                ",\"price_5m\":{:.8},\"price_1h\":{:.8},\"price_1d\":{:.8},\"traders_1h\":{count}",
                price * part,
                price / part,
                token.price_open,
            ),
        ),
        Kind::Liquidity => put(
            out,
            format_args!(
                ",\"action\":\"{}\",\"amount_token\":{amount:.4},\"provider\":\"{who:016x}\"",
                if is_up { "add" } else { "remove" },
            ),
        ),
        Kind::Balances => {
            put(out, format_args!(",\"holder\":\"{who:016x}\",\"balance\":{amount:.4}"))
        }
        Kind::Social => put(
            out,
            format_args!(",\"platform\":\"x\",\"mentions\":{count},\"sentiment\":{part:.3}"),
        ),
        Kind::Comment => put(
            out,
            format_args!(
                ",\"comment_id\":{count},\"author\":\"{who:016x}\",\"text\":\"{} the moon\"",
                if is_up { "to" } else { "not to" },
            ),
        ),
        Kind::Favorites => put(out, format_args!(",\"favorites\":{count}")),
        Kind::Metadata => {
            put(out, format_args!(",\"website\":\"https://{}.example\",\"decimals\":8", token.id))
        }
        Kind::Creation => put(out, format_args!(",\"creator\":\"{who:016x}\",\"bonded\":{is_up}")),
    }
}

/// Ends the object with a description that fills it up to the size drawn.
fn fill(out: &mut String, rng: &mut SmallRng) {
    let target = rng.random_range(FILLED_BYTES);
    out.push_str(",\"description\":\"");
    let room = target.saturating_sub(out.len());
    out.push_str(&DESCRIPTION[..room.min(DESCRIPTION.len())]);
    out.push_str("\"}");
}

fn put(out: &mut String, text: Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(text).ok();
}
