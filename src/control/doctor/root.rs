//! The file system that is examined: `/`, or a directory that imitates it.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// The longest part of a file that is read, bytes.
const FILE_BYTES_MAX: u64 = 65_536;

/// Where `/proc` and `/sys` are.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// The file system below `directory`; `/` is this machine's.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// A file without the space around its text; `None` if it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let file = File::open(self.0.join(path)).ok()?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file of numbers with space between them; `None` if it has anything else.
    pub fn numbers(&self, path: &str) -> Option<Vec<u64>> {
        let text = self.text(path)?;
        let numbers: Option<Vec<u64>> =
            text.split_whitespace().map(|word| word.parse().ok()).collect();
        numbers.filter(|numbers| !numbers.is_empty())
    }

    /// The first number of a file.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.numbers(path).map(|numbers| numbers[0])
    }

    /// Whether there is such a file or directory.
    pub fn has(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }

    /// A sysctl by its name.
    pub fn sysctl(&self, key: &str) -> Option<Vec<u64>> {
        self.numbers(&format!("proc/sys/{}", key.replace('.', "/")))
    }
}
