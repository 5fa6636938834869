//! Imitated machines and what is said of them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            200000               200000               files
Max locked memory         67108864             67108864             bytes
";

/// A directory that looks like a machine on which the kit is installed.
struct Machine(TempDir);

impl Machine {
    fn new(role: Role) -> Self {
        let machine = Self(TempDir::new().unwrap());
        for wanted in kit::wanted(role) {
            let values: Vec<String> = wanted.values.iter().map(u64::to_string).collect();
            machine.sysctl(wanted.key, &values.join("\t"));
        }
        machine.file("proc/sys/kernel/osrelease", "6.18.0-test");
        machine.file("proc/self/limits", LIMITS);
        machine.file("proc/self/status", "Name: x\nCpus_allowed_list:\t0-1");
        machine.file("proc/self/cgroup", "0::/a.slice/b.service");
        machine.file("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB");
        machine.file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
        machine
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn sysctl(&self, key: &str, text: &str) {
        self.file(&format!("proc/sys/{}", key.replace('.', "/")), text);
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    fn root(&self) -> Root {
        Root::new(self.0.path())
    }

    fn examine(&self, role: Role, connections: u64) -> Diagnosis {
        let question = Question { role, connections, source_addresses: 1, pid: None };
        examine(&self.root(), question, &Ok(()))
    }
}

fn found<'a>(diagnosis: &'a Diagnosis, name: &str) -> &'a Check {
    diagnosis.checks.iter().find(|check| check.name == name).unwrap()
}

#[test]
fn a_machine_with_the_kit_is_ok() {
    for role in [Role::Server, Role::LoadGenerator] {
        let diagnosis = Machine::new(role).examine(role, 18_000);
        assert_eq!(diagnosis.severity(), Severity::Ok, "{}", text(&diagnosis));
        assert_eq!(exit_code(diagnosis.severity()), 0);
        assert!(diagnosis.checks.iter().all(|check| check.fix_now.is_none()));
        assert!(!script(&Machine::new(role).root(), &diagnosis).contains("set_now net"));
    }
}

/// Role, connections, sysctl, value, severity, a part of what it limits to.
type SysctlCase = (Role, u64, &'static str, &'static str, Severity, &'static str);

#[test]
fn each_sysctl_is_judged_by_what_it_limits() {
    use Role::{LoadGenerator as L, Server as S};
    use Severity::{Error, Note, Ok, Warning};
    let cases: &[SysctlCase] = &[
        (S, 10_000, "net.core.somaxconn", "4096", Warning, "at most 4,096 connections waiting"),
        (S, 1_000, "net.core.somaxconn", "4096", Note, "8,192 in all"),
        (S, 1_000_000, "net.core.somaxconn", "65535", Ok, "65,535"),
        (S, 10_000, "net.ipv4.tcp_max_syn_backlog", "128", Note, "no loss"),
        (S, 10_000, "net.ipv4.tcp_syncookies", "0", Warning, "flood"),
        (S, 10_000, "net.ipv4.tcp_syncookies", "2", Warning, "every connection"),
        (S, 10_000, "net.ipv4.ip_local_port_range", "32768 60999", Note, "28,232"),
        (S, 10_000, "net.ipv4.ip_local_port_range", "2 1", Error, "at most 0"),
        (L, 30_000, "net.ipv4.ip_local_port_range", "32768 60999", Error, "at most 28,232"),
        (L, 20_000, "net.ipv4.ip_local_port_range", "32768 60999", Note, "1 source address"),
        (L, 70_000, "net.ipv4.ip_local_port_range", "1024 65535", Error, "at most 64,512"),
        (S, 10_000, "net.ipv4.tcp_tw_reuse", "0", Note, "60 s"),
        (L, 10_000, "net.ipv4.tcp_tw_reuse", "0", Warning, "60 s"),
        (L, 10_000, "net.ipv4.tcp_tw_reuse", "2", Note, "loopback"),
        (S, 10_000, "net.ipv4.tcp_fin_timeout", "60", Note, "60 s"),
        (S, 10_000, "net.ipv4.tcp_fin_timeout", "5", Ok, "5 s"),
        (S, 10_000, "net.netfilter.nf_conntrack_max", "8192", Error, "at most 8,192 tracked"),
        (S, 10_000, "net.netfilter.nf_conntrack_max", "16384", Warning, "16,384"),
        (S, 10_000, "net.netfilter.nf_conntrack_max", "65536", Note, "65,536"),
        (S, 10_000, "net.ipv4.tcp_mem", "5000 10000 20000", Error, "9,642 sockets"),
        (S, 10_000, "net.ipv4.tcp_mem", "10000 20000 30000", Warning, "937 with a full"),
        (S, 1_000, "net.ipv4.tcp_mem", "10000 20000 30000", Note, "117.2 MiB"),
        (S, 10_000, "net.ipv4.tcp_wmem", "4096 16384 32768", Warning, "32 KiB"),
        (S, 10_000, "net.ipv4.tcp_rmem", "4096 131072 6291456", Note, "6 MiB"),
        (S, 10_000, "net.ipv4.tcp_rmem", "4096 8192 8192", Warning, "8 KiB"),
        (S, 10_000, "net.core.wmem_max", "32768", Warning, "up to 32,768"),
        (S, 10_000, "net.core.netdev_max_backlog", "1000", Note, "1,000 packets"),
        (L, 10_000, "net.core.netdev_max_backlog", "1000", Warning, "1,000 packets"),
        (S, 10_000, "fs.file-max", "9000", Error, "9,000 files"),
        (S, 10_000, "fs.file-max", "100000", Note, "100,000 files"),
        (S, 10_000, "fs.nr_open", "9000", Error, "up to 9,000"),
        (S, 10_000, "fs.nr_open", "100000", Note, "up to 100,000"),
        (S, 10_000, "kernel.io_uring_disabled", "1", Warning, "io_uring_group"),
        (S, 10_000, "kernel.io_uring_disabled", "2", Error, "does not start"),
        (S, 10_000, "net.core.somaxconn", "many", Note, "unknown"),
    ];
    for (role, connections, key, value, severity, part) in cases {
        let machine = Machine::new(*role);
        machine.sysctl(key, value);
        let diagnosis = machine.examine(*role, *connections);
        let check = found(&diagnosis, key);
        assert_eq!(check.severity, *severity, "{key} = {value}: {check:?}");
        assert!(check.limits_to.contains(part), "{key} = {value}: {}", check.limits_to);
        let others = diagnosis.checks.iter().filter(|check| check.name != *key);
        if *connections <= 18_000 {
            let others: Vec<&Check> = others.filter(|c| c.severity > Severity::Ok).collect();
            assert!(others.is_empty(), "{key} = {value}: {others:?}");
        }
    }
}

#[test]
fn a_syn_queue_binds_without_cookies() {
    let machine = Machine::new(Role::Server);
    machine.sysctl("net.ipv4.tcp_syncookies", "0");
    machine.sysctl("net.ipv4.tcp_max_syn_backlog", "2048");
    let diagnosis = machine.examine(Role::Server, 10_000);
    let check = found(&diagnosis, "net.ipv4.tcp_max_syn_backlog");
    assert_eq!(check.severity, Severity::Warning);
    assert!(check.limits_to.contains("at most 1,536 half-open"), "{}", check.limits_to);
}

#[test]
fn what_may_be_missing_is_ok() {
    let machine = Machine::new(Role::Server);
    machine.remove("proc/sys/net/netfilter/nf_conntrack_max");
    machine.remove("proc/sys/kernel/io_uring_disabled");
    let diagnosis = machine.examine(Role::Server, 10_000);
    assert_eq!(diagnosis.severity(), Severity::Ok, "{}", text(&diagnosis));
    machine.remove("proc/sys/net/core/somaxconn");
    assert_eq!(machine.examine(Role::Server, 10_000).severity(), Severity::Note);
}

/// Path, content, check, severity, a part of what it limits to.
type FileCase = (&'static str, &'static str, &'static str, Severity, &'static str);

#[test]
fn each_file_is_judged_by_what_it_limits() {
    use Severity::{Error, Note, Ok, Warning};
    let limits = "proc/self/limits";
    let cases: &[FileCase] = &[
        (limits, "Max open files 1024 1024 files\n", "nofile", Error, "at most 840 connections"),
        (limits, "Max open files 1024 20000 files", "nofile", Note, "at most 18,848"),
        (limits, "Max open files 1024 unlimited files", "nofile", Ok, "fs.nr_open"),
        (limits, "nothing", "nofile", Warning, "unknown"),
        (limits, "Max locked memory 65536 65536 bytes", "memlock", Error, "512 KiB"),
        (limits, "Max locked memory 8388608 8388608 bytes", "memlock", Note, "5.12"),
        (limits, "Max locked memory unlimited unlimited bytes", "memlock", Ok, ""),
        ("proc/sys/kernel/osrelease", "5.4.0-1-generic", "kernel", Error, "too old"),
        ("proc/sys/kernel/osrelease", "5.15.0", "kernel", Ok, ""),
        ("proc/sys/kernel/osrelease", "strange", "kernel", Note, "unknown"),
        ("proc/meminfo", "MemAvailable: 200000 kB", "memory", Error, "at most 3,0"),
        ("proc/meminfo", "MemAvailable: 500000 kB", "memory", Warning, "one in ten stalled"),
        ("sys/fs/cgroup/a.slice/cpu.max", "150000 100000", "cpu", Warning, "1.50 cores"),
        ("sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000", "cpu", Ok, "2 shards"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never",
            "transparent huge pages",
            Note,
            "resident",
        ),
        (
            "proc/net/netstat",
            "TcpExt: A ListenOverflows\nTcpExt: 1 7",
            "accept queue overflows",
            Note,
            "second try",
        ),
        (
            "proc/net/softnet_stat",
            "0000000a 000000ff 00000000\n0000000a 00000001 00000000",
            "packets dropped per core",
            Note,
            "netdev_max_backlog",
        ),
        (".dockerenv", "", "container", Note, "container"),
    ];
    for (path, content, name, severity, part) in cases {
        let machine = Machine::new(Role::Server);
        machine.file(path, content);
        let diagnosis = machine.examine(Role::Server, 10_000);
        let check = found(&diagnosis, name);
        assert_eq!(check.severity, *severity, "{path} = {content}: {check:?}");
        assert!(check.limits_to.contains(part), "{path} = {content}: {}", check.limits_to);
    }
}

#[test]
fn only_a_server_on_few_cores_is_told_what_shards_do() {
    let cases =
        [("0", None), ("0-1", Some("2 unless")), ("0,2,5", Some("3 unless")), ("0-3", None)];
    for (cores, current) in cases {
        let machine = Machine::new(Role::Server);
        machine.file("proc/self/status", &format!("Cpus_allowed_list:\t{cores}"));
        let diagnosis = machine.examine(Role::Server, 10_000);
        let check = diagnosis.checks.iter().find(|check| check.name == "shards");
        assert_eq!(check.is_some(), current.is_some(), "{cores}");
        if let (Some(check), Some(current)) = (check, current) {
            assert_eq!((check.severity, &check.fix_now), (Severity::Ok, &None), "a choice");
            assert!(check.current.starts_with(current), "{}", check.current);
            assert!(check.limits_to.starts_with("WS_SHARDS=1 saves CPU"), "{}", check.limits_to);
        }
    }
    let machine = Machine::new(Role::LoadGenerator);
    let diagnosis = machine.examine(Role::LoadGenerator, 10_000);
    assert!(diagnosis.checks.iter().all(|check| check.name != "shards"));
}

#[test]
fn the_smallest_limit_of_all_cgroups_above_holds() {
    let machine = Machine::new(Role::Server);
    for (directory, most, used) in [("", "4294967296", "0"), ("a.slice/", "314572800", "104857600")]
    {
        machine.file(&format!("sys/fs/cgroup/{directory}memory.max"), most);
        machine.file(&format!("sys/fs/cgroup/{directory}memory.current"), used);
    }
    let diagnosis = machine.examine(Role::Server, 10_000);
    let check = found(&diagnosis, "memory");
    assert_eq!((check.severity, &*check.current), (Severity::Error, "200 MiB left in the cgroup"));
}

#[test]
fn io_uring_errors_stop_the_server_and_not_a_load_generator() {
    for error in [
        UringError::Sysctl { setting: 2 },
        UringError::Seccomp,
        UringError::Missing,
        UringError::Memlock,
        UringError::Descriptors,
        UringError::Other("x".into()),
    ] {
        for (role, severity) in
            [(Role::Server, Severity::Error), (Role::LoadGenerator, Severity::Ok)]
        {
            let question = Question { role, connections: 10, source_addresses: 1, pid: None };
            let diagnosis = examine(&Machine::new(role).root(), question, &Err(error.clone()));
            assert_eq!(diagnosis.severity(), severity, "{error}");
        }
    }
}

#[test]
fn source_addresses_and_reserved_ports_count() {
    let machine = Machine::new(Role::LoadGenerator);
    machine.sysctl("net.ipv4.ip_local_reserved_ports", "3002,4222,8000-8099");
    let question = Question {
        role: Role::LoadGenerator,
        connections: 100_000,
        source_addresses: 2,
        pid: None,
    };
    let diagnosis = examine(&machine.root(), question, &Ok(()));
    let check = found(&diagnosis, "net.ipv4.ip_local_port_range");
    assert_eq!(check.connections_max, Some(2 * (64_512 - 102)));
    assert_eq!(check.severity, Severity::Ok);
}

#[test]
fn the_limits_of_another_process_can_be_asked_for() {
    let machine = Machine::new(Role::Server);
    machine.file("proc/77/limits", "Max open files 1024 4096 files");
    let question =
        Question { role: Role::Server, connections: 10_000, source_addresses: 1, pid: Some(77) };
    let diagnosis = examine(&machine.root(), question, &Ok(()));
    assert_eq!(found(&diagnosis, "nofile").current, "1,024 soft, 4,096 hard");
    assert_eq!(
        diagnosis.ceiling().map(|(check, most)| (&*check.name, most)),
        Some(("nofile", 3_720))
    );
    assert!(text(&diagnosis).contains("ceiling: 3,720 connections, by nofile"));
}

/// A machine on which everything that a script can fix is off.
fn bare() -> Machine {
    let machine = Machine::new(Role::Server);
    machine.sysctl("net.core.somaxconn", "128");
    machine.sysctl("net.ipv4.tcp_mem", "1 2 3");
    machine.sysctl("fs.file-max", "9223372036854775807");
    machine.file("proc/self/limits", "Max open files 1024 1024 files\nMax locked memory 1 1 bytes");
    machine
}

#[test]
fn a_script_sets_installs_and_takes_nothing_away() {
    let machine = bare();
    let diagnosis = machine.examine(Role::Server, 10_000);
    let script = script(&machine.root(), &diagnosis);
    for part in [
        "set_now net.core.somaxconn '8192'\n",
        "set_now net.ipv4.tcp_mem '98304 196608 393216'\n",
        "\nnet.core.somaxconn = 8192\n",
        "\n-net.netfilter.nf_conntrack_max = 262144\n",
        "# left out, this machine has more: fs.file-max = 1048576\n",
        "\nLimitNOFILE=200000\n",
        "root hard nofile 200000",
    ] {
        let found = script.split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = part.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(found.contains(&wanted), "{part} in {script}");
    }
    assert!(!script.contains("set_now fs.file-max"), "{script}");
    assert_eq!(script.matches("<<'END_OF_FILE'").count(), 3);
}

#[test]
fn a_script_is_valid_whatever_the_machine_says() {
    let machine = bare();
    machine.file("proc/sys/kernel/osrelease", "1.0'$(touch /tmp/x)`\nEND_OF_FILE\nexit 1");
    machine.sysctl("net.core.somaxconn", "'; exit 1 #");
    let error = UringError::Other("\nEND_OF_FILE\n'$(touch x)`".into());
    let question =
        Question { role: Role::Server, connections: 10_000, source_addresses: 1, pid: None };
    let diagnosis = examine(&machine.root(), question, &Err(error));
    let script = script(&machine.root(), &diagnosis);
    let path = machine.0.path().join("fix.sh");
    fs::write(&path, &script).unwrap();
    assert!(is_valid(&path), "{script}");
    let ends = script.lines().filter(|line| *line == "END_OF_FILE").count();
    assert_eq!(ends, script.matches("<<'END_OF_FILE'").count());
}

fn is_valid(script: &Path) -> bool {
    let mut shell = Command::new("sh");
    shell.arg("-n").arg(script).stdin(Stdio::null());
    shell.status().unwrap().success()
}

#[test]
fn json_says_the_same() {
    let diagnosis = bare().examine(Role::Server, 10_000);
    let value = json(&diagnosis);
    assert_eq!((value["version"].as_u64(), value["exit_code"].as_u64()), (Some(1), Some(3)));
    assert_eq!(value["ceiling"]["by"], "net.ipv4.tcp_mem");
    let checks = value["checks"].as_array().unwrap();
    assert_eq!(checks.len(), diagnosis.checks.len());
    let nofile = checks.iter().find(|check| check["name"] == "nofile").unwrap();
    assert_eq!((&nofile["severity"], &nofile["connections_max"]), (&"error".into(), &840.into()));
}

#[test]
fn exit_codes_follow_the_severity() {
    let codes =
        [(Severity::Ok, 0), (Severity::Note, 0), (Severity::Warning, 1), (Severity::Error, 3)];
    for (severity, code) in codes {
        assert_eq!(exit_code(severity), code);
    }
}
