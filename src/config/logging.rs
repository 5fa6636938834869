//! What is logged, and in which form.

use tracing::Level;

use super::context::Machine;
use super::kinds::Choice;
use super::setting::{Kind, Scope, Section, Setting};
use super::values::Values;

pub(super) const LEVEL: Setting<LevelName> =
    Setting::new("LOG_LEVEL", "log-level", Scope::All, LevelName)
        .default("info")
        .help("error, warn, info, debug or trace");

pub(super) const FORMAT: Setting<Choice<Format>> =
    Setting::new("LOG_FORMAT", "log-format", Scope::All, Choice::new(FORMATS))
        .computed("text on a terminal, else json")
        .help("text or json");

pub(super) const SECTION: Section =
    Section { name: "logging", title: "Logging", settings: &[&LEVEL, &FORMAT] };

const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Text for people.
    Text,
    /// An object per line, for collectors.
    Json,
}

/// The name of a level, in any case.
#[derive(Debug, Clone, Copy)]
pub(super) struct LevelName;

impl Kind for LevelName {
    type Value = Level;

    fn parse(&self, text: &str) -> Result<Level, String> {
        text.parse().map_err(|_| self.expected())
    }

    fn expected(&self) -> String {
        "error, warn, info, debug or trace".to_owned()
    }

    fn range(&self) -> String {
        "`error`, `warn`, `info`, `debug`, `trace`".to_owned()
    }

    fn fallback(&self) -> Level {
        Level::INFO
    }
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: Level,
    /// JSON lines instead of text for people.
    pub is_json: bool,
}

/// Reads the settings of logging.
pub fn log_config(values: &mut Values, machine: &Machine) -> LogConfig {
    let level = values.read(&LEVEL);
    let is_json = match values.optional(&FORMAT) {
        Some(format) => format == Format::Json,
        None => !machine.is_terminal,
    };
    LogConfig { level, is_json }
}
