//! One setting: a row of the table, and the kind of value that its text becomes.
//!
//! A section declares a `const` [`Setting`] per setting beside the code that reads it. The row
//! says everything that people are told; the kind turns a text into a value, so a setting cannot
//! be read as something that it is not. This file knows no setting by name.

use std::fmt;

/// The commands that take a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `serve` only.
    Serve,
    /// `serve` and `echo`.
    Server,
    /// `serve` and `simulate`.
    Broker,
    /// Every command that takes settings.
    All,
}

impl Scope {
    /// Whether `command` takes settings of this scope.
    pub fn includes(self, command: &str) -> bool {
        match self {
            Self::Serve => command == "serve",
            Self::Server => matches!(command, "serve" | "echo"),
            Self::Broker => matches!(command, "serve" | "simulate"),
            Self::All => true,
        }
    }
}

/// What applies when a setting is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing.
    Nothing,
    /// This text.
    Text(&'static str),
    /// What the reader finds out, in words.
    Computed(&'static str),
}

/// How a value may be shown in printed settings and in errors.
#[derive(Debug, Clone, Copy)]
pub enum Shown {
    /// As it is.
    Plain,
    /// Printed as this function leaves it, and not repeated in errors.
    Redacted(fn(&str) -> String),
    /// Never: a password or a token.
    Never,
}

/// What people are told of a setting.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The environment variable, which also names it in errors.
    pub env: &'static str,
    /// The flag, without dashes.
    pub flag: &'static str,
    /// What applies when it is not set.
    pub default: DefaultValue,
    /// The unit, empty if the value has none or brings its own.
    pub unit: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Who takes it.
    pub scope: Scope,
    /// How its value may be shown.
    pub shown: Shown,
}

/// What a setting's text may be, and what it becomes.
pub trait Kind: Copy {
    /// What the text becomes.
    type Value;

    /// The value of a text.
    ///
    /// # Errors
    /// What the text must be, to follow `must be`.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// What the text must be, to follow `must be`.
    fn expected(&self) -> String;

    /// The accepted values for the settings page; empty if there is nothing to say.
    fn range(&self) -> String {
        self.expected()
    }

    /// What reading goes on with after a mistake, so that all mistakes are found at once. No
    /// server ever runs with it.
    fn fallback(&self) -> Self::Value;
}

/// A setting whose text becomes a [`Kind::Value`].
#[derive(Debug, Clone, Copy)]
pub struct Setting<K> {
    row: Row,
    kind: K,
}

impl<K: Kind> Setting<K> {
    /// A setting without a default; [`Setting::help`] must follow.
    pub const fn new(env: &'static str, flag: &'static str, scope: Scope, kind: K) -> Self {
        let row = Row {
            env,
            flag,
            default: DefaultValue::Nothing,
            unit: "",
            help: "",
            scope,
            shown: Shown::Plain,
        };
        Self { row, kind }
    }

    /// The default, as somebody would write it.
    pub const fn default(mut self, text: &'static str) -> Self {
        self.row.default = DefaultValue::Text(text);
        self
    }

    /// A default that the reader finds out, in words.
    pub const fn computed(mut self, words: &'static str) -> Self {
        self.row.default = DefaultValue::Computed(words);
        self
    }

    /// The unit of the value.
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.row.unit = unit;
        self
    }

    /// What it is, in one sentence for the command line.
    pub const fn help(mut self, help: &'static str) -> Self {
        self.row.help = help;
        self
    }

    /// A value that is never shown.
    pub const fn secret(mut self) -> Self {
        self.row.shown = Shown::Never;
        self
    }

    /// A value that is shown only as `redact` leaves it.
    pub const fn redacted(mut self, redact: fn(&str) -> String) -> Self {
        self.row.shown = Shown::Redacted(redact);
        self
    }

    /// What people are told of it.
    pub const fn row(&self) -> &Row {
        &self.row
    }

    /// Its kind.
    pub const fn kind(&self) -> &K {
        &self.kind
    }
}

/// The environment variable, as errors name a setting.
impl<K> fmt::Display for Setting<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row.env)
    }
}

/// A setting of any kind, as the table of all settings holds it.
pub trait Listed: Sync {
    /// What people are told of it.
    fn row(&self) -> &Row;

    /// The accepted values for the settings page.
    fn range(&self) -> String;

    /// Whether the default, if it is a text, is an accepted value.
    fn has_valid_default(&self) -> bool;
}

impl<K: Kind + Sync> Listed for Setting<K> {
    fn row(&self) -> &Row {
        &self.row
    }

    fn range(&self) -> String {
        self.kind.range()
    }

    fn has_valid_default(&self) -> bool {
        match self.row.default {
            DefaultValue::Text(text) => self.kind.parse(text).is_ok(),
            DefaultValue::Nothing | DefaultValue::Computed(_) => true,
        }
    }
}

/// Settings that belong together, in the order in which they are shown.
#[derive(Clone, Copy)]
pub struct Section {
    /// The name of its table on the settings page.
    pub name: &'static str,
    /// The heading on the settings page.
    pub title: &'static str,
    /// The settings.
    pub settings: &'static [&'static dyn Listed],
}
