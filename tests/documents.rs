//! The documents against each other and against the program: links lead somewhere, and the page of
//! metrics has the metrics of `/metrics`, no more and no less.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::server::Server;

const README_LINES_MAX: usize = 150;

/// A longer cell is a paragraph and belongs below its table.
const CELL_CHARS_MAX: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents with their text.
fn documents() -> BTreeMap<PathBuf, String> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let paths = ["", "docs", "ulimits", "scripts"].into_iter().flat_map(in_folder);
    let is_document = |path: &PathBuf| path.extension().is_some_and(|it| it == "md");
    paths
        .filter(is_document)
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The lines of a document that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where the links of a document lead.
fn links(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next())
}

/// The names by which a page's headings are linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// What is wrong with a link of the document at `path`; `None` if it leads somewhere.
fn fault(path: &Path, text: &str, link: &str) -> Option<String> {
    if link.starts_with("http://") || link.starts_with("https://") {
        return None;
    }
    let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = path.parent().unwrap().join(file);
    if !file.is_empty() && !target.exists() {
        return Some(format!("no file {file}"));
    }
    if fragment.is_empty() {
        return None;
    }
    let linked =
        if file.is_empty() { text.to_owned() } else { fs::read_to_string(target).unwrap() };
    (!anchors(&linked).contains(fragment)).then(|| format!("no heading #{fragment} in {file}"))
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// A name of a metric with those of its labels.
fn family(sample: &str) -> (String, BTreeSet<String>) {
    let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
    let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
    let names = labels.map(|label| label.split('=').next().unwrap().to_owned());
    (name.to_owned(), names.collect())
}

fn is_metric(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let name = text.split('{').next().unwrap();
    (name.starts_with("ws_") || name.starts_with("process_")) && name.chars().all(is_name)
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = documents();
    assert!(documents.len() > 10, "{} documents", documents.len());
    let mut faults = Vec::new();
    for (path, text) in &documents {
        for link in links(text) {
            if let Some(fault) = fault(path, text, link) {
                faults.push(format!("{}: ({link}): {fault}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "links that lead nowhere:\n{}", faults.join("\n"));
}

#[test]
fn the_page_of_metrics_has_those_of_the_server() {
    let scraped: BTreeMap<_, _> =
        Server::serve(&["--source", "sim"]).metrics().keys().map(|it| family(it)).collect();
    let page = fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let rows = prose(&page).filter(|line| line.starts_with("| `"));
    let rows = rows.filter_map(|row| row.split('`').nth(1)).filter(|name| is_metric(name));
    let described: BTreeMap<_, _> = rows.map(family).collect();
    let mut faults = Vec::new();
    for (name, labels) in &scraped {
        match described.get(name) {
            None => faults.push(format!("{name} has no row")),
            Some(other) if other != labels => {
                faults.push(format!("{name} has the labels {labels:?}, the page {other:?}"));
            }
            Some(_) => {}
        }
    }
    let unknown = described.keys().filter(|name| !scraped.contains_key(*name));
    faults.extend(unknown.map(|name| format!("{name} is not in /metrics")));
    assert!(faults.is_empty(), "docs/monitoring.md and /metrics:\n{}", faults.join("\n"));
}

#[test]
fn metrics_that_any_document_names_exist() {
    let scraped: BTreeSet<_> =
        Server::serve(&["--source", "sim"]).metrics().keys().map(|it| family(it).0).collect();
    let mut faults = Vec::new();
    for (path, text) in &documents() {
        for name in quoted(text).filter(|text| is_metric(text)) {
            if !scraped.contains(&family(name).0) {
                faults.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "no such metric:\n{}", faults.join("\n"));
}

#[test]
fn headings_are_linked_to_as_they_are_shown() {
    let cases = [
        ("`welcome`, the first message", "welcome-the-first-message"),
        ("Why was a client closed?", "why-was-a-client-closed"),
        ("1. Descriptors", "1-descriptors"),
        ("`/ready` answers 503", "ready-answers-503"),
    ];
    for (heading, expected) in cases {
        assert_eq!(anchor(heading), expected);
    }
}

#[test]
fn no_cell_of_a_table_is_a_paragraph() {
    for (path, text) in documents() {
        for row in prose(&text).filter(|line| line.starts_with('|')) {
            for cell in row.split('|') {
                let chars = cell.trim().chars().count();
                assert!(chars <= CELL_CHARS_MAX, "{}: {chars} characters: {cell}", path.display());
            }
        }
    }
}
