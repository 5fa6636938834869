//! LIMITS.md against the program: each constant and setting that it names exists with the value
//! that it states, and so does each metric and log line.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use support::server::{Server, run};

const COLUMNS: [&str; 5] = ["bound", "setting or constant", "value", "when reached", "seen as"];
const ROW_CHARS_MAX: usize = 200;
/// The page has stated so many bounds before; none may get lost.
const ROWS_MIN: usize = 108;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("LIMITS.md")).unwrap()
}

/// The cells of a line of a table.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// The tables of the page, each with its head.
fn tables(page: &str) -> Vec<Vec<&str>> {
    let mut tables: Vec<Vec<&str>> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        let is_row = line.starts_with('|');
        match (is_row, is_inside) {
            (true, false) => tables.push(vec![line]),
            (true, true) => tables.last_mut().unwrap().push(line),
            (false, _) => {}
        }
        is_inside = is_row;
    }
    tables
}

/// All rows without heads and rules.
fn rows(page: &str) -> Vec<Vec<&str>> {
    tables(page).iter().flat_map(|table| &table[2..]).map(|line| cells(line)).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The text of each Rust file of the server and of the load tester.
fn sources() -> Vec<String> {
    fn walk(folder: PathBuf, texts: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(path, texts);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut texts = Vec::new();
    walk(root().join("src"), &mut texts);
    walk(root().join("loadtest/src"), &mut texts);
    texts
}

/// A value with what tells it from another of the same digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Number(u64),
    Micros(u64),
}

/// The expressions that each constant is defined by: a name may stand in several modules.
fn constants(sources: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut constants: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in sources {
        for rest in text.split("const ").skip(1) {
            let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(0)];
            let definition = rest.split_once(';').map(|(definition, _)| definition);
            let expression = definition.and_then(|it| it.split_once(" ="));
            if let (false, Some((_, expression))) = (name.is_empty(), expression) {
                constants.entry(name).or_default().push(expression.trim());
            }
        }
    }
    constants
}

/// The number of a literal, product, sum, shift, or another constant.
fn number(expression: &str, constants: &BTreeMap<&str, Vec<&str>>) -> Option<u64> {
    let expression = expression.trim();
    if let Some((left, right)) = expression.split_once("<<") {
        return Some(number(left, constants)? << number(right, constants)?);
    }
    if let Some((left, right)) = expression.split_once(" + ") {
        return Some(number(left, constants)? + number(right, constants)?);
    }
    if let Some((left, right)) = expression.rsplit_once(" * ") {
        return Some(number(left, constants)? * number(right, constants)?);
    }
    if expression.starts_with(|c: char| c.is_ascii_digit()) {
        return expression.split(['u', 'i']).next()?.replace('_', "").parse().ok();
    }
    let name = expression.rsplit("::").next()?;
    constants.get(name)?.iter().find_map(|other| number(other, constants))
}

/// The value of a constant's expression; its name may end in a unit.
fn value(name: &str, expression: &str, constants: &BTreeMap<&str, Vec<&str>>) -> Option<Value> {
    let durations = [("from_secs(", 1_000_000), ("from_millis(", 1_000), ("from_micros(", 1)];
    for (call, micros) in durations {
        if let Some((_, rest)) = expression.split_once(&format!("Duration::{call}")) {
            return Some(Value::Micros(number(rest.split(')').next()?, constants)? * micros));
        }
    }
    number(expression, constants).map(|number| with_unit(name, number))
}

/// A number whose unit is in the name of its constant or setting.
fn with_unit(name: &str, number: u64) -> Value {
    let has = |unit| name.split('_').any(|part| part == unit);
    match () {
        () if has("MS") => Value::Micros(number * 1_000),
        () if has("SECONDS") => Value::Micros(number * 1_000_000),
        () => Value::Number(number),
    }
}

/// A value as the page states it: digits with commas, a unit, and what explains it.
fn stated(text: &str) -> Option<Value> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(text.len());
    let number: u64 = text[..end].replace(',', "").parse().ok()?;
    let unit = text[end..].trim_start().split(|c: char| !c.is_alphabetic()).next()?;
    Some(match unit {
        "µs" => Value::Micros(number),
        "ms" => Value::Micros(number * 1_000),
        "s" => Value::Micros(number * 1_000_000),
        "m" | "min" => Value::Micros(number * 60_000_000),
        "h" => Value::Micros(number * 3_600_000_000),
        "KiB" => Value::Number(number << 10),
        "MiB" => Value::Number(number << 20),
        _ => Value::Number(number),
    })
}

/// A value for people.
fn shown(value: Option<Value>) -> String {
    match value {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Micros(micros)) if micros % 1_000_000 == 0 => {
            format!("{} s", micros / 1_000_000)
        }
        Some(Value::Micros(micros)) if micros % 1_000 == 0 => format!("{} ms", micros / 1_000),
        Some(Value::Micros(micros)) => format!("{micros} µs"),
        None => "a value that is no number".to_owned(),
    }
}

/// The settings of `serve` with their defaults, as the program prints them.
fn settings() -> BTreeMap<String, Option<Value>> {
    let (code, printed, stderr) = run(&["serve", "--print-config"], &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let line = |line: &str| {
        let (name, rest) = line.trim_start_matches("# ").split_once('=')?;
        let text = rest.split(" #").next()?.trim();
        // A duration such as 30s is written as one word.
        let default = stated(text).map(|value| match value {
            Value::Number(number) => with_unit(name, number),
            value => value,
        });
        Some((name.to_owned(), default))
    };
    printed.lines().filter_map(line).collect()
}

fn is_setting(name: &str) -> bool {
    ["WS_", "JS_", "NATS_", "HTTP_", "SIM_", "LOG_"].iter().any(|it| name.starts_with(it))
}

#[test]
fn there_are_three_tables_of_short_rows() {
    let page = page();
    let tables = tables(&page);
    assert_eq!(tables.len(), 3);
    for table in &tables {
        assert_eq!(cells(table[0]), COLUMNS);
        for line in table {
            assert_eq!(cells(line).len(), COLUMNS.len(), "{line}");
            assert!(line.chars().count() <= ROW_CHARS_MAX, "over {ROW_CHARS_MAX}: {line}");
        }
    }
    let rows = rows(&page).len();
    assert!(rows >= ROWS_MIN, "{rows} rows");
}

#[test]
fn constants_and_settings_have_the_values_that_the_page_states() {
    let page = page();
    let sources = sources();
    let constants = constants(&sources);
    let settings = settings();
    let mut wrong = Vec::new();
    for row in rows(&page) {
        let values: Vec<&str> = row[2].split("; ").collect();
        for (index, name) in quoted(row[1]).enumerate() {
            let text = values.get(index).copied().unwrap_or_default();
            let known: Vec<Option<Value>> = if is_setting(name) {
                settings.get(name).copied().into_iter().collect()
            } else {
                let expressions = constants.get(name).into_iter().flatten();
                expressions.map(|expression| value(name, expression, &constants)).collect()
            };
            // A default that the program computes is not a number on the page either.
            if known.is_empty() {
                let kind = if is_setting(name) { "setting" } else { "constant" };
                wrong.push(format!("{name}: the page says {text:?}, there is no such {kind}"));
            } else if !known.contains(&stated(text)) {
                let found: Vec<String> = known.iter().map(|value| shown(*value)).collect();
                let found = found.join(" or ");
                wrong.push(format!("{name}: the page says {text:?}, the program has {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "LIMITS.md:\n{}", wrong.join("\n"));
}

#[test]
fn metrics_and_log_lines_of_the_page_exist() {
    let mut server = Server::serve(&["--source", "sim"]);
    let metrics = server.metrics();
    let sources: Vec<String> = sources().iter().map(|text| joined(text)).collect();
    let page = page();
    let mut wrong = Vec::new();
    for row in rows(&page) {
        for part in row[4].split(", ") {
            for name in quoted(part) {
                let exists = if name.starts_with("ws_") {
                    metrics.keys().any(|sample| is_sample_of(sample, name))
                } else if part.starts_with("log ") {
                    sources.iter().any(|text| text.contains(name))
                } else {
                    true
                };
                if !exists {
                    wrong.push(format!("{name} of {:?}", row[0]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "LIMITS.md names what does not exist: {}", wrong.join(", "));
}

/// Whether a sample of the exposition is one of a metric, which may name some of its labels.
fn is_sample_of(sample: &str, metric: &str) -> bool {
    let (family, labels) = metric.split_once('{').unwrap_or((metric, ""));
    let (name, sample_labels) = sample.split_once('{').unwrap_or((sample, ""));
    let mut labels = labels.trim_end_matches('}').split(',');
    name == family && labels.all(|label| sample_labels.contains(label))
}

/// Texts that go on in the next line, in one line.
fn joined(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

#[test]
fn values_are_read_as_they_are_written() {
    let source = "const A: usize = 16 << 20;\npub const B_MS: u64 = 2_000;\nconst C: Duration = \
                  Duration::from_millis(250);\nconst D: usize = 2 * E;\nconst E: u8 = 3;\n"
        .to_owned();
    let sources = [source];
    let constants = constants(&sources);
    let of = |name: &str| value(name, constants[name][0], &constants);
    assert_eq!(of("A"), stated("16 MiB"));
    assert_eq!(of("B_MS"), stated("2 s, then more"));
    assert_eq!(of("C"), stated("250 ms"));
    assert_eq!(of("D"), stated("6"));
    assert_ne!(of("C"), stated("250"));
    assert_ne!(stated("65,536 bytes"), stated("65,535"));
    assert_eq!(stated("computed"), None);
}
