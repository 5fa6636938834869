//! The files that an operator installs, as the one source of the wanted values.

use super::Role;

const SERVER: &str = include_str!("../../../sysctl/90-odin-ws-server.conf");
const LOADGEN: &str = include_str!("../../../sysctl/90-odin-ws-loadgen.conf");

/// limits.d.
pub(super) const LIMITS: &str = include_str!("../../../ulimits/90-odin-ws.conf");
/// The drop-in of the service.
pub(super) const SERVICE: &str = include_str!("../../../ulimits/odin-ws.service.d/limits.conf");

/// Where the files belong.
pub(super) const LIMITS_PATH: &str = "/etc/security/limits.d/90-odin-ws.conf";
/// See [`LIMITS_PATH`].
pub(super) const SERVICE_PATH: &str = "/etc/systemd/system/odin-ws.service.d/limits.conf";

/// The file of a role.
pub(super) fn sysctl_file(role: Role) -> &'static str {
    match role {
        Role::Server => SERVER,
        Role::LoadGenerator => LOADGEN,
    }
}

/// Where the file of a role belongs.
pub(super) fn sysctl_path(role: Role) -> &'static str {
    match role {
        Role::Server => "/etc/sysctl.d/90-odin-ws-server.conf",
        Role::LoadGenerator => "/etc/sysctl.d/90-odin-ws-loadgen.conf",
    }
}

/// A line of a sysctl file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The sysctl.
    pub key: &'static str,
    /// Its values.
    pub values: Vec<u64>,
    /// Whether it may be missing: a `-` before its name.
    pub is_optional: bool,
    /// The line as it stands in the file.
    pub line: &'static str,
}

/// The settings of a role's file, in its order.
pub(super) fn wanted(role: Role) -> Vec<Wanted> {
    sysctl_file(role).lines().filter_map(setting).collect()
}

fn setting(line: &'static str) -> Option<Wanted> {
    let (name, values) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
    let name = name.trim();
    let key = name.strip_prefix('-').unwrap_or(name);
    let values: Option<Vec<u64>> =
        values.split_whitespace().map(|value| value.parse().ok()).collect();
    Some(Wanted { key, values: values?, is_optional: key.len() < name.len(), line })
}

/// A limit of `90-odin-ws.conf`: `nofile` in descriptors, `memlock` in bytes.
pub(super) fn limit(name: &str) -> u64 {
    let value = LIMITS.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["*", "hard", item, value] if item == name => value.parse::<u64>().ok(),
            _ => None,
        }
    });
    // The file is a part of this binary, and a test reads both limits.
    let value = value.expect("the limit is in ulimits/90-odin-ws.conf");
    if name == "memlock" { value * 1_024 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_why_and_what_it_costs() {
        for role in [Role::Server, Role::LoadGenerator] {
            let blocks: Vec<&str> = sysctl_file(role).split("\n\n").skip(1).collect();
            assert_eq!(blocks.len(), wanted(role).len());
            for block in blocks {
                let lines: Vec<&str> = block.trim_end().lines().collect();
                let (setting, comment) = lines.split_last().unwrap();
                assert!(super::setting(setting).is_some(), "{setting}");
                assert!(comment.iter().all(|line| line.starts_with("# ")), "{block}");
                assert!(comment.first().unwrap().starts_with("# Why: "), "{block}");
                let comment = comment.concat();
                assert!(comment.contains("Cost: ") || comment.contains("Security: "), "{block}");
            }
        }
    }

    #[test]
    fn the_files_of_limits_agree() {
        let (nofile, memlock) = (limit("nofile"), limit("memlock"));
        assert_eq!((nofile, memlock), (200_000, 64 << 20));
        for (words, found) in [
            (format!("LimitNOFILE={nofile}"), SERVICE),
            (format!("LimitMEMLOCK={memlock}"), SERVICE),
            (format!("nofile={nofile}:{nofile}"), include_str!("../../../ulimits/README.md")),
            (format!("memlock={memlock}:{memlock}"), include_str!("../../../ulimits/README.md")),
            (
                format!("nofile: {{ soft: {nofile}, hard: {nofile} }}"),
                include_str!("../../../ulimits/compose.yaml"),
            ),
            (
                format!("memlock: {{ soft: {memlock}, hard: {memlock} }}"),
                include_str!("../../../ulimits/compose.yaml"),
            ),
        ] {
            assert!(found.contains(&words), "{words}");
        }
        let daemon: serde_json::Value =
            serde_json::from_str(include_str!("../../../ulimits/daemon.json")).unwrap();
        for (name, value) in [("nofile", nofile), ("memlock", memlock)] {
            let limit = &daemon["default-ulimits"][name];
            assert_eq!((&limit["Soft"], &limit["Hard"]), (&value.into(), &value.into()));
        }
        for line in LIMITS.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let value = if words[2] == "memlock" { memlock / 1_024 } else { nofile };
            assert_eq!(words[3].parse(), Ok(value), "{line}");
        }
    }

    #[test]
    fn the_network_settings_of_the_containers_are_those_of_the_server() {
        let compose = include_str!("../../../ulimits/compose.yaml");
        let readme = include_str!("../../../ulimits/README.md");
        for wanted in wanted(Role::Server) {
            if let Some(at) = compose.find(&format!("{}: ", wanted.key)) {
                let line = compose[at..].lines().next().unwrap();
                assert_eq!(line, format!("{}: {}", wanted.key, wanted.values[0]));
                let option = format!("--sysctl {}={}", wanted.key, wanted.values[0]);
                assert!(readme.contains(&option), "{option}");
            }
        }
    }
}
