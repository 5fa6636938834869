//! The modules of `src` and what each uses, read from the text of the sources: `use` trees and paths
//! that begin with `crate` or `super`. Test code does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module by its path from the crate's root: `["shard", "delivery"]`.
pub type Module = Vec<String>;

/// Every module with those that it uses.
pub type Graph = BTreeMap<Module, BTreeSet<Module>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of all modules, but for those of tests.
fn files() -> BTreeMap<Module, PathBuf> {
    fn walk(directory: &Path, module: &Module, files: &mut BTreeMap<Module, PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inner: Module = module.iter().cloned().chain([name.clone()]).collect();
            if path.is_dir() {
                walk(&path, &inner, files);
            } else if name == "mod" {
                files.insert(module.clone(), path);
            } else if name != "tests" {
                files.insert(inner, path);
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(&root(), &Vec::new(), &mut files);
    let is_test =
        |module: &Module| module.iter().any(|part| part == "simulation" || part == "claims");
    let is_root = |module: &Module| matches!(&module[..], [one] if one == "main" || one == "lib");
    files.retain(|module, _| !is_test(module) && !is_root(module));
    assert!(files.len() > 80, "the sources were not found");
    files
}

/// The code before the first module of tests, without comments.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_tests =
            line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.ends_with(" {"));
        if is_tests && lines.peek().is_some_and(|next| next.contains("mod ")) {
            break;
        }
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// Every path of a `use` tree.
fn expand(tree: &str) -> Vec<String> {
    let Some((head, body)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let body = body.trim().trim_end_matches('}');
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    // One brace too many was cut off if the tree ends in several.
    let missing = body.matches('{').count().saturating_sub(body.matches('}').count());
    let body = format!("{body}{}", "}".repeat(missing));
    for (at, letter) in body.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&body[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&body[start..]);
    let inner = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    let paths = inner.flat_map(expand).map(|path| format!("{}{path}", head.trim()));
    paths.collect()
}

/// The paths of `text` that begin with `crate`, `super` or `self`.
pub fn paths(text: &str) -> Vec<String> {
    let code = code(text);
    let mut paths = Vec::new();
    for statement in code.split("use ").skip(1) {
        if let Some((tree, _)) = statement.split_once(';') {
            paths.extend(expand(&tree.replace('\n', " ")));
        }
    }
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    for word in code.split(|letter| !is_name(letter)) {
        if word.starts_with("crate::") || word.starts_with("super::") {
            paths.push(word.trim_end_matches(':').to_owned());
        }
    }
    paths.retain(|path| {
        matches!(path.split("::").next(), Some("crate" | "super" | "self")) && path.contains("::")
    });
    paths.retain(|path| !path.ends_with("::"));
    paths.sort_unstable();
    paths.dedup();
    // Heads of trees are no paths of their own.
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other.starts_with(&format!("{path}::"))));
    paths
}

/// The module that a path of `module` leads to.
fn target(module: &Module, path: &str, files: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut parts: Vec<&str> = path.split("::").collect();
    let mut base: Module = match parts[0] {
        "crate" => Vec::new(),
        _ => module.clone(),
    };
    while let Some("crate" | "self" | "super") = parts.first().copied() {
        if parts.remove(0) == "super" {
            base.pop();
        }
    }
    base.extend(parts.into_iter().map(str::to_owned));
    while !base.is_empty() && !files.contains_key(&base) {
        base.pop();
    }
    (!base.is_empty()).then_some(base)
}

/// Reads all modules. A folder and what is in it are one: they use each other freely.
pub fn read() -> Graph {
    let files = files();
    let uses = |module: &Module, path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let targets = paths(&text).into_iter().filter_map(|path| target(module, &path, &files));
        targets.filter(|it| !module.starts_with(it) && !it.starts_with(module)).collect()
    };
    files.iter().map(|(module, path)| (module.clone(), uses(module, path))).collect()
}

/// Groups of modules of which each needs every other.
pub fn circles(graph: &Graph) -> BTreeSet<BTreeSet<Module>> {
    let reached = |from: &Module| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(module) = todo.pop() {
            for next in graph.get(module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&Module, BTreeSet<Module>> =
        graph.keys().map(|module| (module, reached(module))).collect();
    let group = |module: &Module| {
        let others =
            reach[module].iter().filter(|it| reach.get(it).is_some_and(|r| r.contains(module)));
        others.cloned().collect::<BTreeSet<Module>>()
    };
    graph.keys().map(group).filter(|group| !group.is_empty()).collect()
}

/// The table of src/lib.rs: each room with those that it may use.
pub fn arrows() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let (_, table) = text.split_once("Each room may use").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! "));
    let rows = rows.skip_while(|line| *line != "```text").skip(1).take_while(|line| *line != "```");
    let rows = rows.map(|row| {
        let (room, rest) = row.split_once(' ').unwrap();
        let (rooms, _) = rest.split_once(':').unwrap_or_else(|| panic!("no colon in {row:?}"));
        let rooms = rooms.trim().split(", ").filter(|room| *room != "nothing");
        (room.to_owned(), rooms.map(str::to_owned).collect())
    });
    let table: BTreeMap<String, Vec<String>> = rows.collect();
    assert!(table.len() > 10, "the table of src/lib.rs was not found");
    table
}

/// The files in which types that are declared once have `impl` blocks of their own.
pub fn impl_files() -> BTreeMap<String, BTreeSet<String>> {
    let (mut declared, mut found) = (BTreeMap::new(), BTreeMap::new());
    for (module, path) in files() {
        for line in code(&fs::read_to_string(path).unwrap()).lines() {
            let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let line = line.trim_start_matches("pub(super) ");
            for kind in ["struct ", "enum "] {
                if let Some(rest) = line.strip_prefix(kind) {
                    *declared.entry(name_of(rest)).or_insert(0) += 1;
                }
            }
            if let Some(rest) = line.strip_prefix("impl")
                && !line.contains(" for ")
            {
                let rest = match rest.strip_prefix('<') {
                    Some(generics) => generics.split_once("> ").map_or("", |(_, rest)| rest),
                    None => rest,
                };
                let files: &mut BTreeSet<String> = found.entry(name_of(rest.trim())).or_default();
                files.insert(module.join("/"));
            }
        }
    }
    found.retain(|name, _| declared.get(name) == Some(&1));
    assert!(found.len() > 50, "no impl was found");
    found
}

fn name_of(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}
