//! The table of all settings: the sum of the sections' rows. The command line, the printed
//! configuration, the settings page and the warning about unknown variables are made from it.

use super::setting::{Listed, Row, Section};
use super::{
    client, compression, connections, drain, http, jetstream, load, logging, nats, recent_log,
    server, sim, source, timeouts,
};

/// All sections, in the order in which they are shown.
pub const SECTIONS: &[Section] = &[
    server::SECTION,
    source::SECTION,
    connections::SECTION,
    timeouts::SECTION,
    drain::SECTION,
    client::SECTION,
    compression::SECTION,
    recent_log::SECTION,
    nats::SECTION,
    load::SECTION,
    jetstream::SECTION,
    http::SECTION,
    sim::SECTION,
    logging::SECTION,
];

/// The predecessor's variables that have no meaning here: accepted, and said to be unused.
pub const UNUSED: &[&str] = &["WS_WORKER_POOL_SIZE", "WS_WORKER_QUEUE_SIZE", "WS_MAX_GOROUTINES"];

/// All settings, in the order in which they are shown.
pub fn all() -> impl Iterator<Item = &'static dyn Listed> {
    SECTIONS.iter().flat_map(|section| section.settings.iter().copied())
}

/// The rows of all settings.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    all().map(Listed::row)
}

/// The row of an environment variable.
pub fn find(env: &str) -> Option<&'static Row> {
    rows().find(|row| row.env == env)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names = BTreeSet::new();
        for row in rows() {
            assert!(names.insert(row.env), "{} twice", row.env);
            assert!(names.insert(row.flag), "--{} twice", row.flag);
        }
    }

    #[test]
    fn defaults_are_valid_and_everything_has_a_help_text() {
        for setting in all() {
            let row = setting.row();
            assert!(setting.has_valid_default(), "{} has a wrong default", row.env);
            assert!(!row.help.is_empty(), "{} has no help text", row.env);
        }
    }

    /// A setting that no section lists would have no flag, and its variable would be unknown.
    #[test]
    fn every_setting_that_is_declared_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
        let mut declared = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let is_declaration =
                |line: &&str| line.starts_with("pub(super) const ") && line.contains(": Setting<");
            declared += text.lines().filter(is_declaration).count();
        }
        assert_eq!(rows().count(), declared);
    }
}
