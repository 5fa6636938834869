//! The machine that the server runs on: what it offers, and whether io_uring works.

use std::fs;
use std::io::IsTerminal as _;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use crate::config::Machine;

/// Entries of the executor's io_uring: a few timers and reads; sockets have a ring of their own.
const RING_DEPTH: usize = 256;

/// io_uring cannot be used here. The machine's or the container's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UringError {
    /// Switched off by the kernel's setting.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled = {setting}): allow it with \
         `sysctl -w kernel.io_uring_disabled=0`"
    )]
    Sysctl {
        /// The value of the setting.
        setting: u8,
    },
    /// Refused although the setting allows it: a seccomp profile.
    #[error(
        "io_uring is blocked, probably by the container's seccomp profile: run the container \
         with a profile that allows io_uring_setup, io_uring_enter and io_uring_register, such \
         as `--security-opt seccomp=unconfined`"
    )]
    Seccomp,
    /// Not in this kernel.
    #[error("this kernel has no io_uring: Linux 5.13 or newer is needed")]
    Missing,
    /// Too little memory may be locked.
    #[error(
        "io_uring may not lock enough memory: raise it with `ulimit -l 8192`, LimitMEMLOCK= in \
         the systemd unit, or `--ulimit memlock=-1` for a container"
    )]
    Memlock,
    /// Too few descriptors.
    #[error("too few descriptors for io_uring: raise them with `ulimit -n 200000`")]
    Descriptors,
    /// Anything else.
    #[error("io_uring does not work here: {0}")]
    Other(String),
}

/// What the machine offers. The soft limit of descriptors is raised to the hard one.
pub fn detect() -> Machine {
    let cores = core_affinity::get_core_ids().map_or(1, |ids| ids.len().max(1));
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "odin-ws".into());
    Machine {
        cores,
        descriptors: raise_descriptors(),
        host_name,
        is_terminal: std::io::stderr().is_terminal(),
    }
}

/// The time after which glommio 0.9 takes tasks off the core: never. Its run loop sleeps, with
/// tasks that can run and no timer to wake it, if that time passes between setting the timer and
/// looking at it, which is to say if the kernel runs another thread there. On a busy machine with
/// 1 ms, 6 of 400 servers had a shard that slept from its start on. So tasks give way themselves,
/// with `turn` of the IO layer.
const PREEMPT_NEVER: Duration = Duration::from_secs(3_600);

/// The executor of one shard, pinned to `cpu`. An io_memory of 64 KiB, for the server does no
/// file IO through it and the default pins 10 MiB.
pub fn executor(cpu: usize, name: &str) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(name)
        .io_memory(65_536)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT_NEVER)
}

/// The cores that this process may run on, by number.
pub fn cpus() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Starts and ends one executor, so that a machine without io_uring is told of in one line.
///
/// # Errors
/// Why it does not work, and the fix.
pub fn check_io_uring(cpu: usize) -> Result<(), UringError> {
    // A bare ring first: it says why, where glommio would panic.
    io_uring::IoUring::new(8)
        .map(drop)
        .map_err(|error| explain(error.raw_os_error(), error.to_string()))?;
    // Setting up an executor can panic deep inside when the kernel refuses a part of it; the
    // thread keeps that from the process, and the hook keeps it off the screen.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let attempt = std::thread::spawn(move || {
        executor(cpu, "probe").make().map(drop).map_err(|error| {
            let error = std::io::Error::from(error);
            explain(error.raw_os_error(), error.to_string())
        })
    })
    .join();
    std::panic::set_hook(hook);
    match attempt {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(explain(None, "the executor could not be set up".into())),
    }
}

fn explain(code: Option<i32>, text: String) -> UringError {
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    match code {
        _ if setting > 0 => UringError::Sysctl { setting },
        // glommio's own check, of which only the text comes through.
        _ if text.contains("MemLockLimit") => UringError::Memlock,
        Some(libc::EPERM | libc::EACCES) => UringError::Seccomp,
        Some(libc::ENOSYS) => UringError::Missing,
        Some(libc::ENOMEM) => UringError::Memlock,
        Some(libc::EMFILE | libc::ENFILE) => UringError::Descriptors,
        _ => UringError::Other(text),
    }
}

fn raise_descriptors() -> u64 {
    let resource = rlimit::Resource::NOFILE;
    let Ok((soft, hard)) = resource.get() else { return 1_024 };
    match resource.set(hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
