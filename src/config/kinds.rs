//! The kinds of values that settings have. A kind that only one setting has stands in that
//! setting's section.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::setting::Kind;
use crate::secret::Secret;

/// A whole number between two bounds, both allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<T> {
    min: T,
    max: T,
}

impl<T> Number<T> {
    /// From `min` to `max`.
    pub(super) const fn new(min: T, max: T) -> Self {
        Self { min, max }
    }
}

impl<T: FromStr + PartialOrd + Display + Copy> Kind for Number<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        let number = text.parse().ok().filter(|number| (self.min..=self.max).contains(number));
        number.ok_or_else(|| self.expected())
    }

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn range(&self) -> String {
        format!("{} to {}", self.min, self.max)
    }

    fn fallback(&self) -> T {
        self.min
    }
}

/// One of several words, each with the value that it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<T: 'static> {
    options: &'static [(&'static str, T)],
}

impl<T: Copy + PartialEq> Choice<T> {
    /// One of `options`, at least two of them.
    pub(super) const fn new(options: &'static [(&'static str, T)]) -> Self {
        assert!(options.len() > 1, "a choice has at least two options");
        Self { options }
    }

    /// The words, in order.
    pub(super) fn words(&self) -> impl Iterator<Item = &'static str> {
        self.options.iter().map(|(word, _)| *word)
    }

    /// The word for a value; empty if there is none.
    pub(super) fn word(&self, value: T) -> &'static str {
        let found = self.options.iter().find(|(_, option)| *option == value);
        found.map_or("", |(word, _)| word)
    }
}

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, String> {
        let found = self.options.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| self.expected())
    }

    fn expected(&self) -> String {
        let words: Vec<&str> = self.words().collect();
        let (last, first) = words.split_last().expect("a choice has at least two options");
        format!("{} or {last}", first.join(", "))
    }

    fn range(&self) -> String {
        let words: Vec<String> = self.words().map(|word| format!("`{word}`")).collect();
        words.join(", ")
    }

    fn fallback(&self) -> T {
        self.options[0].1
    }
}

/// A duration: a whole number with `ms`, `s`, `m` or `h`; seconds without one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    min: Duration,
    max: Duration,
    range: &'static str,
}

impl Span {
    /// Any duration, 0 included; `range` says on the settings page what else must hold.
    pub(super) const fn any(range: &'static str) -> Self {
        Self { min: Duration::ZERO, max: Duration::MAX, range }
    }

    /// 0, or from `min` to `max`; `range` says so in words.
    pub(super) const fn zero_or(min: Duration, max: Duration, range: &'static str) -> Self {
        Self { min, max, range }
    }
}

impl Kind for Span {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let duration = parse_duration(text).ok_or_else(|| self.expected())?;
        if duration.is_zero() || (self.min..=self.max).contains(&duration) {
            Ok(duration)
        } else {
            Err(self.range.to_owned())
        }
    }

    fn expected(&self) -> String {
        "a duration such as 500ms, 30s, 5m or 1h".to_owned()
    }

    fn range(&self) -> String {
        self.range.to_owned()
    }

    fn fallback(&self) -> Duration {
        Duration::ZERO
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().ok()?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        _ => None,
    }
}

/// A yes or no. The flag may stand without a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn parse(&self, text: &str) -> Result<bool, String> {
        match text {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(self.expected()),
        }
    }

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn range(&self) -> String {
        "`true`, `false`".to_owned()
    }

    fn fallback(&self) -> bool {
        false
    }
}

/// An IP address and a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    /// What one looks like.
    pub example: &'static str,
}

impl Kind for Address {
    type Value = SocketAddr;

    fn parse(&self, text: &str) -> Result<SocketAddr, String> {
        text.parse().map_err(|_| self.expected())
    }

    fn expected(&self) -> String {
        format!("an IP address and a port, such as {}", self.example)
    }

    fn range(&self) -> String {
        "IP address and port".to_owned()
    }

    fn fallback(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }
}

/// Another kind, or the word `off`.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrOff<K>(pub K);

impl<K: Kind> Kind for OrOff<K> {
    type Value = Option<K::Value>;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text == "off" {
            return Ok(None);
        }
        self.0.parse(text).map(Some).map_err(|_| self.expected())
    }

    fn expected(&self) -> String {
        format!("{}, or `off`", self.0.expected())
    }

    fn range(&self) -> String {
        format!("{}, or `off`", self.0.range())
    }

    fn fallback(&self) -> Self::Value {
        None
    }
}

/// A text that is taken as it is, and checked by whoever uses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text;

impl Kind for Text {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn expected(&self) -> String {
        String::new()
    }

    fn fallback(&self) -> String {
        String::new()
    }
}

/// Several texts with commas between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct List;

impl Kind for List {
    type Value = Vec<String>;

    fn parse(&self, text: &str) -> Result<Vec<String>, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(parts.map(str::to_owned).collect())
    }

    fn expected(&self) -> String {
        String::new()
    }

    fn fallback(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The path of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Result<PathBuf, String> {
        Ok(text.into())
    }

    fn expected(&self) -> String {
        String::new()
    }

    fn fallback(&self) -> PathBuf {
        PathBuf::new()
    }
}

/// A text that no log may hold: a password, a token, a URL with either.
#[derive(Debug, Clone, Copy)]
pub(super) struct SecretText;

impl Kind for SecretText {
    type Value = Secret;

    fn parse(&self, text: &str) -> Result<Secret, String> {
        Ok(text.to_owned().into())
    }

    fn expected(&self) -> String {
        String::new()
    }

    fn fallback(&self) -> Secret {
        String::new().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("30", Some(Duration::from_secs(30))),
            ("5m", Some(Duration::from_secs(300))),
            ("1h", Some(Duration::from_secs(3_600))),
            ("", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_duration_outside_its_bounds_is_refused_with_the_bounds() {
        let (min, max) = (Duration::from_secs(2), Duration::from_secs(3));
        let span = Span::zero_or(min, max, "0, or from 2s to 3s");
        for (text, is_accepted) in [("0", true), ("1s", false), ("2s", true), ("3001ms", false)] {
            assert_eq!(span.parse(text).is_ok(), is_accepted, "{text}");
        }
        assert_eq!(span.parse("1s"), Err("0, or from 2s to 3s".to_owned()));
        assert!(span.parse("soon").unwrap_err().contains("500ms"));
    }

    #[test]
    fn the_bounds_of_a_number_are_allowed() {
        let number = Number::new(2_usize, 4);
        for (text, is_accepted) in [("1", false), ("2", true), ("4", true), ("5", false)] {
            assert_eq!(number.parse(text).is_ok(), is_accepted, "{text}");
        }
        assert_eq!(number.parse("-3"), Err("a whole number from 2 to 4".to_owned()));
    }

    #[test]
    fn a_choice_names_its_words() {
        let choice = Choice::new(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(choice.parse("b"), Ok(2));
        assert_eq!(choice.parse("B"), Err("a, b or c".to_owned()));
        assert_eq!((choice.word(3), choice.word(4)), ("c", ""));
    }

    #[test]
    fn lists_lose_blanks() {
        assert_eq!(List.parse(" a, ,b,"), Ok(vec!["a".to_owned(), "b".to_owned()]));
    }
}
