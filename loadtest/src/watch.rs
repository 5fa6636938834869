//! CPU and memory of processes: the server's by /proc or by its metrics, our own by thread.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Microseconds of a clock tick of /proc (USER_HZ is 100 on every Linux that matters).
const TICK_US: u64 = 10_000;

/// Bytes of metrics that are read.
const METRICS_BYTES_MAX: u64 = 4 << 20;

/// Sums since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time, microseconds, counted in ticks of 10,000.
    pub cpu_us: u64,
    /// Time on a core by the scheduler's count, nanoseconds; `None` if the kernel does not report
    /// it or the server is on another machine.
    pub sched_ns: Option<u64>,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
}

/// Where the server's figures come from.
#[derive(Debug, Clone)]
pub enum Server {
    /// A process on this machine.
    Process(u32),
    /// Its Prometheus metrics: host and port, and the path.
    Metrics(String, String),
}

impl Server {
    /// From `http://host:port/path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_metrics_url(url: &str) -> Result<Self, String> {
        let mistake = || format!("--metrics-url is {url:?}: write http://host:port/metrics");
        let rest = url.strip_prefix("http://").ok_or_else(mistake)?;
        let (host, path) = rest.split_once('/').ok_or_else(mistake)?;
        if !host.contains(':') {
            return Err(mistake());
        }
        Ok(Self::Metrics(host.to_owned(), format!("/{path}")))
    }

    /// The newest figures; `None` if they cannot be read now.
    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Process(pid) => process(*pid),
            Self::Metrics(host, path) => parse_metrics(&fetch(host, path)?),
        }
    }
}

fn process(pid: u32) -> Option<Usage> {
    let cpu_us = cpu_us(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(Usage { cpu_us, sched_ns: sched_ns(pid), rss_bytes: kib * 1_024 })
}

/// The sum over all threads (Documentation/scheduler/sched-stats.rst: the first
/// number of a thread's schedstat).
fn sched_ns(pid: u32) -> Option<u64> {
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let sum = tasks.flatten().map(of_task).try_fold(0, |sum, ns| Some(sum + ns?))?;
    // A kernel without the counts shows zeros.
    (sum > 0).then_some(sum)
}

/// CPU time of this process's threads of that name, microseconds.
pub fn own_threads_cpu_us(name: &str) -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let of_task = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let is_named = stat.contains(&format!("({name})"));
        if is_named { cpu_us(&stat) } else { None }
    };
    tasks.flatten().filter_map(of_task).sum()
}

/// User and system time of a line of /proc/PID/stat (proc(5), fields 14 and 15).
fn cpu_us(stat: &str) -> Option<u64> {
    // The name may hold anything, also parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_US)
}

fn fetch(host: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(host).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.take(METRICS_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn parse_metrics(text: &str) -> Option<Usage> {
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Some(Usage {
        cpu_us: (value("process_cpu_seconds_total ")? * 1e6) as u64,
        sched_ns: None,
        rss_bytes: value("process_resident_memory_bytes ")? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_proc_and_of_metrics() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_us(stat), Some(2_000_000));
        let own = process(std::process::id()).unwrap();
        assert!(own.rss_bytes > 100_000);
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP x\nprocess_cpu_seconds_total 1.5\n\
                    process_resident_memory_bytes 20480\n";
        let usage = Usage { cpu_us: 1_500_000, sched_ns: None, rss_bytes: 20_480 };
        assert_eq!(parse_metrics(text), Some(usage));
        assert!(Server::from_metrics_url("http://a:9302/metrics").is_ok());
        assert!(Server::from_metrics_url("a:9302").is_err());
    }
}
