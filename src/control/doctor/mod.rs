//! `odin-ws doctor`: what this machine limits the server, or a load generator, to.
//!
//! ```text
//! root       files below / or below a test's imitation of it
//! kit        the files in sysctl/ and ulimits/: the wanted values
//! check      one line of the answer
//! kernel     one check per sysctl of the files
//! limits     descriptors, locked memory
//! resources  kernel, io_uring, cores, memory
//! traces     what has been dropped since boot, and surroundings that surprise
//! report     text and JSON
//! script     the shell script that fixes what was found
//! ```
//!
//! It reads and never changes anything. Bound: files of `/proc` and `/sys` of at most 64 KiB.

mod check;
mod kernel;
mod kit;
mod limits;
mod report;
mod resources;
mod root;
mod script;
mod traces;

use super::machine::UringError;
pub use check::{Check, Severity};
pub use report::{exit_code, json, text};
pub use root::Root;
pub use script::script;

/// What the machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It runs `odin-ws serve`.
    Server,
    /// It makes the connections of a load test.
    LoadGenerator,
}

impl Role {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::LoadGenerator => "loadgen",
        }
    }
}

/// What is asked of the machine.
#[derive(Debug, Clone)]
pub struct Question {
    /// What it is for.
    pub role: Role,
    /// Connections that it has to hold.
    pub connections: u64,
    /// Addresses that a load generator connects from.
    pub source_addresses: u64,
    /// The process whose limits count; `None` is this one.
    pub pid: Option<u32>,
}

/// The answer.
#[derive(Debug)]
pub struct Diagnosis {
    /// What was asked.
    pub question: Question,
    /// The answers in the order of the report.
    pub checks: Vec<Check>,
}

/// What the checks look at.
struct Context<'a> {
    root: &'a Root,
    question: &'a Question,
    /// Cores that the process may run on, at least 1.
    cores: u64,
}

impl Context<'_> {
    /// A file of the process whose limits count.
    fn process_file(&self, name: &str) -> Option<String> {
        let process = self.question.pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        self.root.text(&format!("proc/{process}/{name}"))
    }

    /// Connections that so many descriptors allow in this role.
    fn connections_allowed(&self, descriptors: u64) -> u64 {
        match self.question.role {
            Role::Server => crate::config::connections_allowed(descriptors).0,
            Role::LoadGenerator => descriptors.saturating_sub(limits::LOADGEN_DESCRIPTORS_RESERVED),
        }
    }

    /// Descriptors that the wanted connections take in this role.
    fn descriptors_needed(&self) -> u64 {
        let connections = self.question.connections;
        match self.question.role {
            Role::Server => crate::config::descriptors_needed(connections),
            Role::LoadGenerator => connections + limits::LOADGEN_DESCRIPTORS_RESERVED,
        }
    }
}

/// Looks at the machine. `io_uring` is what came of the attempt to use it.
pub fn examine(root: &Root, question: Question, io_uring: &Result<(), UringError>) -> Diagnosis {
    let mut context = Context { root, question: &question, cores: 1 };
    context.cores = resources::cores(&context).max(1);
    let mut checks = vec![resources::kernel(&context)];
    if question.role == Role::Server {
        checks.push(resources::io_uring(io_uring));
    }
    checks.extend(limits::checks(&context));
    checks.extend(kernel::checks(&context));
    checks.extend(resources::checks(&context));
    checks.extend(traces::checks(&context));
    Diagnosis { question, checks }
}

impl Diagnosis {
    /// The worst that was found.
    pub fn severity(&self) -> Severity {
        self.checks.iter().map(|check| check.severity).max().unwrap_or(Severity::Ok)
    }

    /// The check that allows the fewest connections, and how many.
    pub fn ceiling(&self) -> Option<(&Check, u64)> {
        let bounds = self.checks.iter().filter_map(|check| Some((check, check.connections_max?)));
        bounds.min_by_key(|(_, connections)| *connections)
    }
}

#[cfg(test)]
mod tests;
