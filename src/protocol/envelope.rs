//! The envelope of an event: everything of its JSON text that is the same for all subscribers.
//!
//! Pure bytes to bytes. A JSON payload goes in verbatim; anything else as base64, so that no
//! payload can break the text of the message. Bound: the output is at most 4/3 of the payload
//! plus the subject, the type and 160 bytes.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::channel::event_type_of;
use crate::position::{Incoming, StreamPos};

/// The longest `type` that a payload may give itself; a longer one is treated as data.
const TYPE_BYTES_MAX: usize = 64;

/// A payload that names its own type: an object of exactly these two members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedPayload<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Encodes `"type":…,"channel":…,"ts":…,"pos":…,"prev":…,"data":…}`.
pub fn encode_tail(incoming: &Incoming<'_>, prev: StreamPos) -> Vec<u8> {
    let mut out = Vec::with_capacity(incoming.payload.len() + incoming.subject.len() + 160);
    let typed = typed_payload(incoming.payload);
    match &typed {
        Some(typed) => push_head(&mut out, &typed.kind, incoming, prev),
        None => push_head(&mut out, &event_type_of(incoming.subject), incoming, prev),
    }
    if let Some(typed) = typed {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(typed.data.get().as_bytes());
    } else if let Ok(json) = serde_json::from_slice::<&RawValue>(incoming.payload) {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(json.get().as_bytes());
    } else {
        out.extend_from_slice(b",\"encoding\":\"base64\",\"data\":\"");
        out.extend_from_slice(STANDARD.encode(incoming.payload).as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    out
}

fn typed_payload(payload: &[u8]) -> Option<TypedPayload<'_>> {
    // Structs are read from lists, too: a list of a text and something else is no typed payload.
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(payload).ok().filter(|typed: &TypedPayload<'_>| {
        !typed.kind.is_empty() && typed.kind.len() <= TYPE_BYTES_MAX
    })
}

fn push_head(out: &mut Vec<u8>, kind: &str, incoming: &Incoming<'_>, prev: StreamPos) {
    out.extend_from_slice(b"\"type\":");
    push_json_string(out, kind);
    out.extend_from_slice(b",\"channel\":");
    push_json_string(out, incoming.subject);
    let position = incoming.position;
    write!(out, ",\"ts\":{},\"pos\":{},\"prev\":{prev}", position.ts_ms, position.pos)
        .expect("writing to a Vec cannot fail");
}

fn push_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *out, text).expect("a str is JSON and a Vec takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use serde_json::{Value, json};

    fn envelope(subject: &str, payload: &[u8]) -> Value {
        let position = Position { pos: StreamPos(7), ts_ms: 1_732_150_000_123 };
        let tail = encode_tail(&Incoming { subject, payload, position }, StreamPos(5));
        let mut text = b"{\"seq\":1,".to_vec();
        text.extend_from_slice(&tail);
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_json_payload_goes_in_verbatim() {
        let value = envelope("odin.token.BTC.trade", br#"{"price": 1.50,"note":"\u00e9"}"#);
        assert_eq!(
            value,
            json!({"seq": 1, "type": "token_trade", "channel": "odin.token.BTC.trade",
                   "ts": 1_732_150_000_123_u64, "pos": 7, "prev": 5,
                   "data": {"price": 1.5, "note": "é"}})
        );
    }

    #[test]
    fn a_type_data_object_is_unwrapped() {
        let value = envelope("odin.token.BTC.trade", br#"{"type":"buy","data":[1,2]}"#);
        assert_eq!(value["type"], "buy");
        assert_eq!(value["data"], json!([1, 2]));
    }

    #[test]
    fn an_object_with_more_members_is_data() {
        let value = envelope("odin.token.BTC.trade", br#"{"type":"buy","data":1,"at":2}"#);
        assert_eq!(value["type"], "token_trade");
        assert_eq!(value["data"], json!({"type": "buy", "data": 1, "at": 2}));
    }

    #[test]
    fn a_list_is_data() {
        for list in ["[\"buy\",1]", " [\"resync\",{}]", "[\"buy\"]", "[]", "[[\"buy\",1]]"] {
            let value = envelope("odin.token.BTC.trade", list.as_bytes());
            let data: Value = serde_json::from_str(list).unwrap();
            assert_eq!((&value["type"], &value["data"]), (&json!("token_trade"), &data), "{list}");
        }
    }

    #[test]
    fn what_is_not_json_is_base64() {
        for payload in [&b"hello"[..], b"", b"{\"a\":", b"\xff\xfe", b"\"\xff\"", b"1 2"] {
            let value = envelope("odin.token.BTC.trade", payload);
            assert_eq!(value["encoding"], "base64", "{payload:?}");
            assert_eq!(STANDARD.decode(value["data"].as_str().unwrap()).unwrap(), payload);
        }
    }

    #[test]
    fn a_hostile_type_cannot_break_the_text() {
        let value = envelope("odin.token.BTC.trade", br#"{"type":"a\",\"seq\":9","data":1}"#);
        assert_eq!(value["type"], "a\",\"seq\":9");
        assert_eq!(value["seq"], 1);
        let long = format!(r#"{{"type":"{}","data":1}}"#, "x".repeat(65));
        assert_eq!(envelope("odin.token.BTC.trade", long.as_bytes())["type"], "token_trade");
    }
}
