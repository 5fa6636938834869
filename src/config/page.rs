//! The tables of `docs/settings.md`, made from the rows of the settings.

use super::client::{CONN_BUDGET_BYTES, budget_parts};
use super::setting::{DefaultValue, Listed, Scope, Section};
use super::settings::SECTIONS;
use super::values::Values;

/// Every table of the page, with the name that its markers have.
pub fn tables() -> impl Iterator<Item = (&'static str, String)> {
    let sections = SECTIONS.iter().map(|section| (section.name, table(section)));
    sections.chain(std::iter::once(("budget", budget())))
}

/// `page` with the text between each pair of markers replaced by its table.
///
/// # Errors
/// The name of the first table whose markers are missing.
pub fn with_tables(page: &str) -> Result<String, &'static str> {
    let mut page = page.to_owned();
    for (name, table) in tables() {
        let (begin, end) = markers(name);
        let from = page.find(&begin).ok_or(name)? + begin.len();
        let to = from + page[from..].find(&end).ok_or(name)?;
        page.replace_range(from..to, &format!("\n{table}"));
    }
    Ok(page)
}

fn markers(name: &str) -> (String, String) {
    (format!("<!-- settings: {name} -->"), format!("<!-- end of {name} -->"))
}

fn table(section: &Section) -> String {
    let head =
        "| variable, flag | default | range | unit | what | for |\n|---|---|---|---|---|---|\n";
    section.settings.iter().fold(head.to_owned(), |table, setting| table + &line(*setting))
}

fn line(setting: &dyn Listed) -> String {
    let row = setting.row();
    let default = match row.default {
        DefaultValue::Nothing => String::new(),
        DefaultValue::Text(text) => format!("`{text}`"),
        DefaultValue::Computed(words) => words.to_owned(),
    };
    let commands = match row.scope {
        Scope::Serve => "`serve`",
        Scope::Server => "`serve`, `echo`",
        Scope::Broker => "`serve`, `simulate`",
        Scope::All => "all",
    };
    let (range, unit, help) = (setting.range(), row.unit, row.help);
    let names = format!("`{}`<br>`--{}`", row.env, row.flag);
    format!("| {names} | {default} | {range} | {unit} | {help} | {commands} |\n")
}

/// The sum that `WS_CONN_BUDGET_BYTES` must hold, with the defaults.
fn budget() -> String {
    let (parts, fixed) = budget_parts();
    let mut table =
        "| part | bytes of each | bytes with the defaults |\n|---|---|---|\n".to_owned();
    for part in &parts {
        let (env, each, bytes) = (part.row.env, part.bytes_each, part.bytes_at_default);
        table += &format!("| `{env}` | {each} | {bytes} |\n");
    }
    let sum = fixed + parts.iter().map(|part| part.bytes_at_default).sum::<usize>();
    let budget = Values::default().read(&CONN_BUDGET_BYTES);
    table += &format!("| what no setting moves | | {fixed} |\n| **sum** | | **{sum}** |\n");
    table + &format!("| `{CONN_BUDGET_BYTES}` | | {budget} |\n")
}
