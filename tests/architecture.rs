//! The import arrows of src/lib.rs and the habits that a compiler does not hold.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod modules;

use std::fs;
use std::path::{Path, PathBuf};

/// All files below `src`, by their path from there, with what is not test code.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 30, "the sources were not found");
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn without_tests(text: &str) -> &str {
    let ends = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub(super) mod tests"];
    let end = ends.iter().filter_map(|end| text.find(end)).min();
    &text[..end.unwrap_or(text.len())]
}

/// The code without its comments.
fn code(text: &str) -> String {
    without_tests(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn assert_never_names(part: &str, banned: &[&str], instead: &str) {
    let mut seen = 0;
    for (name, text) in sources() {
        if !name.starts_with(part) {
            continue;
        }
        seen += 1;
        let code = code(&text);
        for word in banned {
            assert!(!code.contains(word), "src/{name} names {word}: {instead}");
        }
    }
    assert!(seen > 0, "no file of {part} was found");
}

#[test]
fn protocol_and_shard_are_pure() {
    let outside = [
        "glommio",
        "tokio",
        "async_nats",
        "std::fs",
        "std::env",
        "std::net",
        "std::thread",
        "Instant",
        "SystemTime",
        "socket2",
        "rand::",
        "println!",
        "crate::net",
        "crate::ingest",
        "crate::config",
        "crate::admin",
        "crate::control",
        "crate::runtime",
    ];
    let instead = "pass values and `Now` in, and send through `Wire`";
    for part in ["protocol/", "channel.rs", "event.rs", "heap.rs"] {
        assert_never_names(part, &outside, instead);
    }
    for (name, text) in sources() {
        if name.starts_with("shard/") && !name.contains("simulation/") {
            let code = code(&text);
            for word in outside {
                assert!(!code.contains(word), "src/{name} names {word}: {instead}");
            }
        }
    }
    assert_never_names("protocol/", &["crate::shard", "crate::feed"], "protocol knows no state");
}

#[test]
fn sources_and_shards_meet_at_the_queue_only() {
    let instead = "the feed queue is where they meet";
    assert_never_names("ingest/", &["crate::shard", "crate::net", "glommio"], instead);
    assert_never_names("net/", &["async_nats", "crate::ingest"], instead);
    assert_never_names("load/", &["crate::ingest", "crate::net"], "it knows nobody who reads it");
    assert_never_names("feed.rs", &["crate::shard", "crate::ingest", "async_nats"], instead);
    let only = "only net, control and runtime may name glommio";
    for part in ["tail/", "config/"] {
        assert_never_names(part, &["glommio", "async_nats"], only);
    }
}

#[test]
fn every_file_says_what_it_owns_and_stays_short() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "src/{name}: begin with a //! line");
        let lines = without_tests(&text).lines().count();
        assert!(lines <= 500, "src/{name} has {lines} lines: split it by concept");
    }
}

#[test]
fn no_shortcuts_outside_tests() {
    let banned = [
        (".unwrap()", "handle it, or `expect` with the proof"),
        ("todo!(", "build it"),
        ("unimplemented!(", "build it"),
        ("dbg!(", "log it with tracing"),
        ("let _ =", "name the reason, or handle it"),
    ];
    for (name, text) in sources() {
        if ["simulation/", "claims/", "/tests.rs"].iter().any(|part| name.contains(part)) {
            continue;
        }
        let code = code(&text);
        for (word, instead) in banned {
            assert!(!code.contains(word), "src/{name} has {word}: {instead}");
        }
    }
}

#[test]
fn rooms_use_only_the_rooms_that_the_table_names() {
    let table = modules::arrows();
    let modules = modules::read();
    for (module, used) in &modules {
        let room = &module[0];
        let allowed = table.get(room).unwrap_or_else(|| panic!("src/lib.rs names no room {room}"));
        for target in used {
            let other = &target[0];
            let is_allowed =
                other == room || allowed.iter().any(|it| it == other || it == "everything");
            let module = module.join("::");
            assert!(
                is_allowed,
                "{module} uses {other}: move the type down, or name the arrow in src/lib.rs"
            );
        }
    }
    for room in table.keys() {
        assert!(
            modules.keys().any(|module| module[0] == *room),
            "there is no room {room} any more"
        );
    }
}

#[test]
fn no_module_needs_itself() {
    let circles = modules::circles(&modules::read());
    assert!(circles.is_empty(), "move what ties them down: {circles:?}");
}

#[test]
fn a_type_has_one_owner() {
    for (name, files) in modules::impl_files() {
        assert!(
            files.len() <= 2,
            "impl {name} stands in {files:?}: give its parts types of their own"
        );
    }
}

#[test]
fn the_readers_of_the_sources_see_what_is_there() {
    let text =
        "use super::{a::{B, c::D as E}, f};\nfn g() { crate::h::I::j(); }\n// use crate::no;";
    let mut paths = modules::paths(text);
    paths.sort_unstable();
    assert_eq!(paths, ["crate::h::I::j", "super::a::B", "super::a::c::D", "super::f"]);
    let graph = [("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["a"]), ("d", vec!["a"])];
    let module = |name: &str| vec![name.to_owned()];
    let graph = graph.map(|(from, to)| (module(from), to.into_iter().map(module).collect()));
    assert_eq!(modules::circles(&graph.into()).len(), 1);
}
