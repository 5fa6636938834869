//! Settings as texts with their origin, and their way into types: every error is collected, so
//! that all of them are told at once.

use std::collections::HashMap;
use std::fmt;

use super::setting::{DefaultValue, Kind, Row, Setting, Shown};

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

/// Something wrong in the settings: the operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One setting is wrong.
    #[error("{env} (--{flag}){}: {problem}", Value(.value.as_deref()))]
    Setting {
        /// Its environment variable.
        env: &'static str,
        /// Its flag, without dashes.
        flag: &'static str,
        /// Its text, if there is one and it may be shown.
        value: Option<String>,
        /// What is wrong with it, and what it must be instead.
        problem: String,
    },
    /// A source refuses its settings.
    #[error("{problem}")]
    Source {
        /// What is wrong, with the names of the settings.
        problem: String,
    },
}

/// The words that show a value in an error, if it may be shown.
struct Value<'a>(Option<&'a str>);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, " is {text:?}"),
            None => Ok(()),
        }
    }
}

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
    pub fn set(&mut self, row: &'static Row, text: String, origin: Origin) {
        if !text.is_empty() {
            self.texts.insert(row.env, (text, origin));
        }
    }

    /// The text of a setting and its origin, the default if nothing else was set.
    pub fn text(&self, row: &Row) -> Option<(&str, Origin)> {
        if let Some((text, origin)) = self.texts.get(row.env) {
            return Some((text, *origin));
        }
        match row.default {
            DefaultValue::Text(text) => Some((text, Origin::Default)),
            DefaultValue::Nothing | DefaultValue::Computed(_) => None,
        }
    }

    /// The value of a setting that has a default, or must be set.
    pub fn read<K: Kind>(&mut self, setting: &Setting<K>) -> K::Value {
        self.optional(setting).unwrap_or_else(|| {
            let expected = setting.kind().expected();
            self.refuse(setting, format!("is missing: it must be {expected}"));
            setting.kind().fallback()
        })
    }

    /// The value of a setting, if it is set or has a default.
    pub fn optional<K: Kind>(&mut self, setting: &Setting<K>) -> Option<K::Value> {
        let (text, _) = self.text(setting.row())?;
        match setting.kind().parse(text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.refuse(setting, format!("must be {expected}"));
                Some(setting.kind().fallback())
            }
        }
    }

    /// Whether a setting has a text.
    pub fn has<K: Kind>(&self, setting: &Setting<K>) -> bool {
        self.text(setting.row()).is_some()
    }

    /// Whether somebody set it, to whatever value.
    pub fn is_set<K: Kind>(&self, setting: &Setting<K>) -> bool {
        self.texts.contains_key(setting.row().env)
    }

    /// Notes that a setting is wrong; `problem` says what it must be.
    pub fn refuse<K: Kind>(&mut self, setting: &Setting<K>, problem: String) {
        let row = setting.row();
        let value = match row.shown {
            Shown::Plain => self.text(row).map(|(text, _)| text.to_owned()),
            Shown::Redacted(_) | Shown::Never => None,
        };
        self.note(ConfigError::Setting { env: row.env, flag: row.flag, value, problem });
    }

    /// Notes that a source refuses its settings; `problem` names them.
    pub fn refuse_source(&mut self, problem: &impl fmt::Display) {
        self.note(ConfigError::Source { problem: problem.to_string() });
    }

    fn note(&mut self, error: ConfigError) {
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
