//! The effective settings, as `serve --print-config` shows them.

use super::setting::{Row, Shown};
use super::settings;
use super::values::{Origin, Values};

/// The effective settings of `command` as `NAME=value` lines with their origin, secrets hidden.
pub fn print(values: &Values, command: &str) -> String {
    let taken = settings::rows().filter(|row| row.scope.includes(command));
    taken.map(|row| line(values, row) + "\n").collect()
}

fn line(values: &Values, row: &Row) -> String {
    let Some((text, origin)) = values.text(row) else {
        return format!("# {}= (computed, or not set)", row.env);
    };
    let shown = match row.shown {
        Shown::Plain => text.to_owned(),
        Shown::Redacted(redact) => redact(text),
        Shown::Never => "***".to_owned(),
    };
    let origin = match origin {
        Origin::Flag => "flag",
        Origin::Environment => "environment",
        Origin::Default => "default",
    };
    format!("{}={shown} # {origin}", row.env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let mut values = Values::default();
        for (env, text) in [
            ("NATS_PASSWORD", "hunter2"),
            ("NATS_TOKEN", "hunter2"),
            ("NATS_URL", "nats://bob:hunter2@a:4222,b:4222,tls://hunter2@c"),
            ("HTTP_SOURCE_URL", "http://bob:hunter2@a/b?key=hunter2"),
            ("HTTP_SOURCE_TOKEN", "hunter2"),
        ] {
            values.set(settings::find(env).unwrap(), text.to_owned(), Origin::Environment);
        }
        let text = print(&values, "serve");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("NATS_URL=nats://***@a:4222,b:4222,tls://***@c # environment"));
        assert!(text.contains("HTTP_SOURCE_URL=http://***@a/b?*** # environment"));
        assert!(text.contains("WS_ADDR=0.0.0.0:3002 # default"));
    }
}
