//! One self-contained page: nothing is loaded from anywhere.

use super::figures::{Figures, figures};
use super::markup::escaped;
use super::{chart, page, series, table, unit};
use crate::data::RunData;

/// The page.
pub fn html(data: &RunData) -> String {
    let computed = figures(data);
    let title = table::headline(data);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{}</style></head>\n<body><main>\n",
        escaped(&title),
        page::STYLE
    );
    header(&mut out, data, &title);
    tiles(&mut out, data, &computed);
    out.push_str("<h2>Over time</h2>\n<div class=\"charts\">\n");
    for chart in series::charts(data) {
        out.push_str(&chart::figure(&chart));
    }
    out.push_str("</div>\n");
    failures(&mut out, data);
    steps(&mut out, data);
    table::grids(data).iter().for_each(|grid| out.push_str(&grid.html()));
    out.push_str("<div class=\"two\">\n");
    let storm = data.storm.as_ref().map(table::storm_rows);
    for (title, rows) in [
        ("Connections", Some(table::connections(data, &computed))),
        ("Deliveries", Some(table::deliveries(data, &computed))),
        ("Cost", Some(table::cost(data, &computed))),
        ("Reconnect storm", storm),
    ] {
        if let Some(rows) = rows {
            pairs(&mut out, title, rows.iter().map(|(name, value)| (*name, value.as_str())));
        }
    }
    preflight(&mut out, data);
    pairs(&mut out, "Settings", data.settings.iter().map(|(name, value)| (&**name, &**value)));
    out.push_str(&format!("</div>\n</main><script>{}</script></body></html>\n", page::SCRIPT));
    out
}

fn header(out: &mut String, data: &RunData, title: &str) {
    let machine = &data.machine;
    out.push_str(&format!(
        "<header><h1>Load test: {}</h1><p class=\"soft\">{}. Load generator: Linux {}, {} cores, \
         {} descriptors.</p></header>\n",
        escaped(data.scenario),
        unit::moment(data.started_unix_ms),
        escaped(&machine.kernel),
        machine.cores,
        unit::count(machine.descriptors)
    ));
    let class = match (data.verdict.is_empty(), data.is_interrupted) {
        (false, _) => " failed",
        (true, true) => " interrupted",
        (true, false) => "",
    };
    out.push_str(&format!("<div class=\"verdict{class}\"><strong>{}</strong>", escaped(title)));
    if data.is_interrupted {
        out.push_str("<p>Ended before its time; the figures are those so far.</p>");
    }
    if !data.verdict.is_empty() {
        let reasons = data.verdict.iter().map(|reason| format!("<li>{}</li>", escaped(reason)));
        out.push_str(&format!("<ul>{}</ul>", reasons.collect::<String>()));
    }
    out.push_str("</div>\n");
}

fn tiles(out: &mut String, data: &RunData, computed: &Figures) {
    let totals = &data.totals;
    let wrong = totals.gaps + totals.duplicates + totals.disordered;
    let rate = computed.success_rate.map_or("-".into(), table::percent);
    let p99 = match data.delivery_us.is_empty() {
        true => "-".into(),
        false => unit::time_us(data.delivery_us.value_at_quantile(0.99) as f64),
    };
    let server = computed.server_us_per_delivery.map_or("-".into(), unit::time_us);
    let memory = computed.server_rss_bytes_per_connection;
    out.push_str("<div class=\"tiles\">\n");
    for (value, name) in [
        (rate, format!("connected, of {}", unit::count(totals.target))),
        (unit::count(totals.connected_max), "open at most".into()),
        (unit::quantity(computed.deliveries_per_s), "deliveries per second".into()),
        (p99, "delivery latency, p99".into()),
        (unit::count(wrong), "missing, twice or out of order".into()),
        (server, "server CPU per delivery".into()),
        (memory.map_or("-".into(), table::signed_memory), "server memory per connection".into()),
    ] {
        out.push_str(&format!(
            "<div class=\"tile\"><b>{}</b><span>{}</span></div>\n",
            escaped(&value),
            escaped(&name)
        ));
    }
    out.push_str("</div>\n");
}

fn pairs<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    let rows: Vec<String> = rows
        .map(|(name, value)| {
            format!("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(value))
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    out.push_str(&format!(
        "<section><h2>{title}</h2><div class=\"scroll\"><table><tbody>\n{}</tbody></table></div>\
         </section>\n",
        rows.concat()
    ));
}

fn failures(out: &mut String, data: &RunData) {
    if data.failures.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Failures</h2><div class=\"scroll\"><table><thead><tr><th>Cause</th>\
         <th class=\"n\">Count</th><th class=\"n\">First</th><th class=\"n\">Open then</th>\
         <th>Meaning</th><th>Fix</th></tr></thead><tbody>\n",
    );
    for failure in &data.failures {
        out.push_str(&format!(
            "<tr><th>{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td>{}</td><td><code>{}</code></td></tr>\n",
            escaped(&failure.cause),
            unit::count(failure.count),
            unit::clock(failure.first_ms as f64 / 1e3),
            unit::count(failure.connected_then),
            escaped(&failure.meaning),
            escaped(&failure.fix)
        ));
    }
    out.push_str("</tbody></table></div>\n");
}

fn steps(out: &mut String, data: &RunData) {
    if data.steps.is_empty() {
        return;
    }
    out.push_str("<h2>Steps</h2><div class=\"scroll\"><table><thead><tr>");
    for name in [
        "Published/s",
        "Wanted/s",
        "Received/s",
        "p50",
        "p99",
        "Max",
        "Missing",
        "Server CPU each",
        "Client CPU each",
        "Held",
    ] {
        out.push_str(&format!("<th class=\"n\">{name}</th>"));
    }
    out.push_str("</tr></thead><tbody>\n");
    for step in &data.steps {
        let [p50, p99, max] = unit::short_percentiles(&step.latency);
        let held = if step.held { "<b class=\"good\">yes</b>" } else { "<b class=\"bad\">no</b>" };
        let cells = [
            unit::quantity(step.rate),
            unit::quantity(step.deliveries_wanted_per_s),
            unit::quantity(step.deliveries_per_s),
            p50,
            p99,
            max,
            unit::count(step.gaps),
            step.server_us_per_delivery.map_or("-".into(), unit::time_us),
            unit::time_us(step.client_us_per_delivery),
            held.into(),
        ];
        let cells = cells.map(|cell| format!("<td class=\"n\">{cell}</td>"));
        out.push_str(&format!("<tr>{}</tr>\n", cells.concat()));
    }
    out.push_str("</tbody></table></div>\n");
}

fn preflight(out: &mut String, data: &RunData) {
    if data.preflight.is_empty() {
        return;
    }
    out.push_str("<section><h2>This machine</h2><div class=\"scroll\"><table><tbody>\n");
    for finding in &data.preflight {
        let class = match finding.severity {
            "error" => "bad",
            "warning" => "warn",
            _ => "good",
        };
        let fix = match finding.fix.is_empty() {
            true => String::new(),
            false => format!("<br><code>{}</code>", escaped(&finding.fix)),
        };
        out.push_str(&format!(
            "<tr><th>{}</th><td class=\"{class}\">{}</td><td>{}{fix}</td></tr>\n",
            escaped(&finding.name),
            escaped(finding.severity),
            escaped(&finding.finding)
        ));
    }
    out.push_str("</tbody></table></div></section>\n");
}
