//! One line for people per message.

use std::collections::BTreeMap;

use serde_json::Value;

/// Characters of a line: what does not fit is cut.
const LINE_CHARS_MAX: usize = 160;

/// `12:34:56.789  odin.token.BTC.trade  token_trade  #812345  {…}`
pub(super) fn event(message: &BTreeMap<String, Value>) -> String {
    let ts = message.get("ts").and_then(Value::as_u64).unwrap_or_default();
    let head = format!(
        "{}  {:<28} {:<16} #{}  ",
        time_of_day(ts),
        plain(message.get("channel")),
        plain(message.get("type")),
        plain(message.get("pos")),
    );
    let data = message.get("data").map(Value::to_string).unwrap_or_default();
    cut(&(head + &data))
}

/// A channel that the server did not take.
pub(super) fn rejection(rejection: &Value) -> String {
    format!(
        "rejected {}: {} ({})",
        plain(rejection.get("channel")),
        plain(rejection.get("message")),
        plain(rejection.get("code"))
    )
}

/// How going on after a lost connection went.
pub(super) fn resume(resume: &Value) -> String {
    match resume.get("messages") {
        Some(count) => format!("went on where it was: {count} missed events follow"),
        None => format!(
            "cannot go on where it was: {} ({})",
            plain(resume.get("message")),
            plain(resume.get("reason"))
        ),
    }
}

/// A string without its quotes; anything else as JSON.
pub(super) fn plain(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.chars().filter(|c| !c.is_control()).collect(),
        Some(other) => other.to_string(),
    }
}

/// The time of day in UTC.
fn time_of_day(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1_000 % 86_400, unix_ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        None => line.to_owned(),
        Some(_) => line.chars().take(LINE_CHARS_MAX - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_fits_one_line() {
        let text = r#"{"seq":1,"type":"token_trade","channel":"odin.token.BTC.trade",
            "ts":1732150000123,"pos":7,"prev":0,"data":{"a":"\u001b[31m"}}"#;
        let message = serde_json::from_str(text).unwrap();
        let line = event(&message);
        assert!(line.starts_with("00:46:40.123  odin.token.BTC.trade"), "{line}");
        assert!(line.ends_with(r#"#7  {"a":"\u001b[31m"}"#), "{line}");
        let long = cut(&"é".repeat(500));
        assert_eq!((long.chars().count(), long.chars().last()), (160, Some('…')));
    }
}
