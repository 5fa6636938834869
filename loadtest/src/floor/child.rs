//! The bare sender as its parent sees it.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::settings::Settings;

/// The running process; it ends when this is dropped.
#[derive(Debug)]
pub struct BareSender {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where it listens, as `ws://...`.
    pub url: String,
}

/// What it has sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Frames that the kernel took.
    pub frames: u64,
    /// Frames that it refused, because the peer did not read or was gone.
    pub refused: u64,
}

impl BareSender {
    /// Starts this executable as the sender, and waits until it listens.
    ///
    /// # Errors
    /// Why it could not start.
    pub fn start(settings: &Settings) -> Result<Self, String> {
        let arguments = &settings.arguments;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["floor-sender", "--channels", &settings.channels.join(",")]);
        // The parent's settings in the environment are not meant for the sender.
        command.env_clear();
        if let Some(threads) = arguments.sender_threads {
            command.args(["--sender-threads", &threads.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("the bare sender did not start: {error}"))?;
        let (Some(commands), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the bare sender has no pipes".into());
        };
        let mut answers = BufReader::new(output).lines();
        let url = match answers.next() {
            Some(Ok(url)) => url,
            _ => return Err("the bare sender ended at once".into()),
        };
        Ok(Self { child, commands, answers, url })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Begins to send so many events per second in frames of so many bytes on average.
    ///
    /// # Errors
    /// The process is gone.
    pub fn begin(&mut self, rate: f64, frame_bytes: f64) -> Result<(), String> {
        writeln!(self.commands, "begin {rate} {frame_bytes}")
            .map_err(|error| format!("the bare sender is gone: {error}"))
    }

    /// Stops sending; the connections stay until this is dropped.
    ///
    /// # Errors
    /// The process is gone.
    pub fn end(&mut self) -> Result<Sent, String> {
        let gone = || "the bare sender is gone".to_owned();
        writeln!(self.commands, "end").map_err(|_| gone())?;
        let answer = self.answers.next().and_then(Result::ok).ok_or_else(gone)?;
        let words: Vec<&str> = answer.split(' ').collect();
        match words[..] {
            ["sent", frames, "refused", refused] => match (frames.parse(), refused.parse()) {
                (Ok(frames), Ok(refused)) => Ok(Sent { frames, refused }),
                _ => Err(gone()),
            },
            _ => Err(format!("the bare sender said {answer:?}")),
        }
    }
}

impl Drop for BareSender {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}
