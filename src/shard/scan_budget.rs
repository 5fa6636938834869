//! How much one command may look through before it is cut short.
//!
//! A step is one event or channel that is looked at, or one subscription that it is compared with:
//! whatever a command makes the shard go through is charged, so that one command takes 10 ms at
//! most. Bound: the steps that it is made with.

/// The steps that one command has left.
#[derive(Debug)]
pub struct ScanBudget {
    left: usize,
    taken: usize,
    is_exceeded: bool,
}

impl ScanBudget {
    /// A budget of `steps`.
    pub fn new(steps: usize) -> Self {
        Self { left: steps, taken: 0, is_exceeded: false }
    }

    /// Takes one step; false if none is left.
    pub fn take(&mut self) -> bool {
        if self.left == 0 {
            self.is_exceeded = true;
            return false;
        }
        self.left -= 1;
        self.taken += 1;
        true
    }

    /// Charges `steps` that were needed whatever is left.
    pub fn charge(&mut self, steps: usize) {
        self.taken += steps;
        self.left = self.left.saturating_sub(steps);
    }

    /// How many were taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Whether one was wanted and not to be had.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }
}
