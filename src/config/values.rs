//! Settings as texts with their origin, and their way into types: every error is collected, so
//! that all of them are told at once.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::settings::{self, Setting};

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag on the command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The built-in default.
    Default,
}

/// One wrong value. The configuration's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "setting is" } else { "settings are" };
        write!(f, "{count} {noun} wrong:")?;
        for error in &self.0 {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The texts of all settings of one command, and the errors found so far.
#[derive(Debug, Default)]
pub struct Values {
    texts: HashMap<&'static str, (String, Origin)>,
    errors: Vec<ConfigError>,
}

impl Values {
    /// Sets the text of a setting. An empty text is no text.
    pub fn set(&mut self, setting: &'static Setting, text: String, origin: Origin) {
        if !text.is_empty() {
            self.texts.insert(setting.env, (text, origin));
        }
    }

    /// The text of a setting and its origin, the default if nothing else was set.
    pub fn text(&self, env: &str) -> Option<(&str, Origin)> {
        if let Some((text, origin)) = self.texts.get(env) {
            return Some((text, *origin));
        }
        let default = settings::find(env).and_then(|setting| setting.default)?;
        Some((default, Origin::Default))
    }

    /// The text of a setting.
    pub fn optional(&self, env: &str) -> Option<String> {
        self.text(env).map(|(text, _)| text.to_owned())
    }

    /// A value in its type, `T::default()` after an error.
    pub fn parsed<T: FromStr + Default>(&mut self, env: &'static str, expected: &str) -> T {
        let parsed = self.text(env).map(|(text, _)| text.parse());
        match parsed {
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.refuse(env, format!("must be {expected}"));
                T::default()
            }
            None => {
                self.refuse(env, format!("is missing: it must be {expected}"));
                T::default()
            }
        }
    }

    /// A whole number between two bounds, both allowed.
    pub fn number(&mut self, env: &'static str, min: u64, max: u64) -> u64 {
        let expected = format!("a whole number from {min} to {max}");
        let errors = self.errors.len();
        let value: u64 = self.parsed(env, &expected);
        if self.errors.len() > errors {
            return min;
        }
        if value < min || value > max {
            self.refuse(env, format!("must be {expected}"));
            return min;
        }
        value
    }

    /// A duration: a whole number with `ms`, `s`, `m` or `h`; seconds without one.
    pub fn duration(&mut self, env: &'static str) -> Duration {
        let text = self.optional(env).unwrap_or_default();
        parse_duration(&text).unwrap_or_else(|| {
            self.refuse(env, "must be a duration such as 500ms, 30s, 5m or 1h".into());
            Duration::ZERO
        })
    }

    /// A yes or no.
    pub fn flag(&mut self, env: &'static str) -> bool {
        match self.optional(env).as_deref() {
            Some("true" | "1" | "yes") => true,
            Some("false" | "0" | "no") | None => false,
            Some(_) => {
                self.refuse(env, "must be true or false".into());
                false
            }
        }
    }

    /// A comma-separated list.
    pub fn list(&self, env: &str) -> Vec<String> {
        let text = self.optional(env).unwrap_or_default();
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// Notes that a setting is wrong; `problem` says what it must be.
    pub fn refuse(&mut self, env: &'static str, problem: String) {
        let setting = settings::find(env);
        let flag = setting.map_or_else(String::new, |setting| format!("--{}", setting.flag));
        let shown = match (setting, self.text(env)) {
            (Some(setting), Some((text, _))) if !setting.is_secret && env != "NATS_URL" => {
                format!(" is {text:?}")
            }
            _ => String::new(),
        };
        self.refuse_all(&format!("{env} ({flag}){shown}: {problem}"));
    }

    /// Notes that settings are wrong together; `problem` names them.
    pub fn refuse_all(&mut self, problem: &impl fmt::Display) {
        let error = ConfigError(problem.to_string());
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Everything that was wrong.
    ///
    /// # Errors
    /// [`ConfigErrors`] if anything was.
    pub fn finish(self) -> Result<(), ConfigErrors> {
        if self.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(self.errors)) }
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
}
