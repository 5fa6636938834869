//! docs/settings.md has the settings that the program has.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::path::Path;
use std::{env, fs};

use odin_ws::config::{page, settings};

/// Set to anything, the page is written instead of compared.
const WRITE: &str = "WRITE_SETTINGS_PAGE";

#[test]
fn the_settings_page_has_the_settings_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let written = fs::read_to_string(&path).unwrap();
    let expected = page::with_tables(&written).unwrap_or_else(|name| {
        panic!("docs/settings.md has no `<!-- settings: {name} -->` and `<!-- end of {name} -->`")
    });
    if env::var_os(WRITE).is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    let fix = format!("write its tables anew: {WRITE}=1 cargo test --test settings_page");
    for (line, (written, expected)) in written.lines().zip(expected.lines()).enumerate() {
        assert_eq!(written, expected, "docs/settings.md:{}: {fix}", line + 1);
    }
    assert!(written == expected, "docs/settings.md differs from the program: {fix}");
}

#[test]
fn every_variable_that_the_page_names_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = fs::read_to_string(path).unwrap();
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let prefixes = ["WS_", "JS_", "NATS_", "HTTP_SOURCE_", "SIM_", "LOG_"];
    // A prefix by itself is no name.
    let is_ours = |name: &&str| {
        !name.ends_with('_') && prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    for name in page.split(|c| !is_part(c)).filter(is_ours) {
        let is_known = settings::find(name).is_some() || settings::UNUSED.contains(&name);
        assert!(is_known, "docs/settings.md names {name}, which is no setting");
    }
}

#[test]
fn no_cell_of_the_page_is_a_paragraph() {
    for (name, table) in page::tables() {
        for cell in table.lines().flat_map(|line| line.split('|')) {
            assert!(cell.chars().count() <= 200, "the table {name} has a long cell: {cell}");
        }
    }
}
