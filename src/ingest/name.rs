//! PURE: the names of streams and consumers, by the rule of nats-server.
//!
//! The server takes a name of at most 255 bytes (its JSMaxNameLen) that holds no white space and
//! none of `.`, `*`, `>`, `/` and `\`: the name is a token of subjects and a folder of the store.
//! Letters of any alphabet are allowed. Control characters, which the server would take, are
//! refused here: nobody could see them in a log.

/// Bytes that the server takes.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Whether the server takes `name`, and it has at most `bytes_max` bytes.
pub(super) fn is_name(name: &str, bytes_max: usize) -> bool {
    !name.is_empty() && name.len() <= bytes_max && name.chars().all(is_allowed)
}

fn is_allowed(c: char) -> bool {
    !(c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_server_takes() {
        for name in ["ODIN_TOKENS", "a", "a-b_c", "prices:eu", "Kurse-ä", "価格", "$a#1"] {
            assert!(is_name(name, NAME_BYTES_MAX), "{name}");
        }
        for name in ["", "a.b", "a b", "a\tb", "a\n", "a*", ">", "a/b", "a\\b", "a\0", "a\u{a0}b"] {
            assert!(!is_name(name, NAME_BYTES_MAX), "{name:?}");
        }
        assert!(is_name(&"é".repeat(32), 64) && !is_name(&"é".repeat(33), 64), "bytes count");
    }
}
