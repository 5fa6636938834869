//! How a shard is woken: by another thread that has something for it, or by a task of its own.
//!
//! The task that does a shard's work sleeps in one of two places: for a short time in the private
//! ring, where an eventfd wakes it, and then in glommio's executor, where a waker does. It falls
//! asleep only if nobody has rung since it last began to do all there is to do; so a ring is never
//! missed, and costs a system call only if somebody sleeps.
//!
//! It is a [`Wake`], to be handed to what the task waits for. It knows neither of the two places.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

/// Where the task is.
mod state {
    /// It works, and nobody has rung.
    pub(super) const AWAKE: u8 = 0;
    /// Somebody has rung; it goes on working.
    pub(super) const RUNG: u8 = 1;
    /// It sleeps until the eventfd can be read.
    pub(super) const DOZING: u8 = 2;
    /// It sleeps until its waker is called.
    pub(super) const PARKED: u8 = 3;
}

/// Where a task is about to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Where the eventfd wakes it.
    Doze,
    /// Where its waker does.
    Park,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Doorbell {
    /// All that is told by it is told by this one word, in the order of its changes.
    state: AtomicU8,
    /// Never read: whoever watches it is told of each write (`eventfd(2)` and edge-triggered
    /// polls). Its counter has room for 2^64 of them.
    eventfd: OwnedFd,
    task: OnceLock<Waker>,
    /// Another task was woken, which can run only when this one has given way.
    is_turn_wanted: AtomicBool,
}

/// Wakes a task that is not the doorbell's, and has the doorbell's give way to it.
struct OtherTask {
    task: Waker,
    doorbell: Arc<Doorbell>,
}

impl Doorbell {
    /// A doorbell of a task that is awake.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            state: AtomicU8::new(state::AWAKE),
            eventfd,
            task: OnceLock::new(),
            is_turn_wanted: AtomicBool::new(false),
        })
    }

    /// Has `task` woken from [`Sleep::Park`]: the only one that ever sleeps here.
    pub(super) fn belongs_to(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
    }

    /// Whether the task may fall asleep: nobody has rung since [`Self::wake_up`].
    pub(super) fn fall_asleep(&self, how: Sleep) -> bool {
        let asleep = match how {
            Sleep::Doze => state::DOZING,
            Sleep::Park => state::PARKED,
        };
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.state.compare_exchange(state::AWAKE, asleep, order.0, order.1).is_ok()
    }

    /// The task is awake, and is going to do all that it was rung for until now; whether it was.
    pub(super) fn wake_up(&self) -> bool {
        self.state.swap(state::AWAKE, Ordering::AcqRel) == state::RUNG
    }

    /// A waker for what `other` waits for, which is another task of the same executor.
    pub(super) fn waker_of_other(self: &Arc<Self>, other: &Waker) -> Waker {
        Arc::new(OtherTask { task: other.clone(), doorbell: Arc::clone(self) }).into()
    }

    /// Whether another task was woken since this was asked the last time.
    pub(super) fn takes_turn_wish(&self) -> bool {
        self.is_turn_wanted.swap(false, Ordering::AcqRel)
    }

    /// Wakes the task, or has it not fall asleep before it has begun anew.
    pub(super) fn ring(&self) {
        match self.state.swap(state::RUNG, Ordering::AcqRel) {
            state::DOZING => {
                // It fails only if nobody has seen 2^64 writes.
                rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes()).unwrap_or_default();
            }
            state::PARKED => {
                if let Some(task) = self.task.get() {
                    task.wake_by_ref();
                }
            }
            _ => {}
        }
    }
}

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Wake for OtherTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.task.wake_by_ref();
        self.doorbell.is_turn_wanted.store(true, Ordering::Release);
        self.doorbell.ring();
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn writes(doorbell: &Doorbell) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&doorbell.eventfd, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn a_ring_before_the_sleep_forbids_it_until_the_task_begins_anew() {
        let doorbell = Doorbell::new().unwrap();
        doorbell.ring();
        for how in [Sleep::Doze, Sleep::Park] {
            assert!(!doorbell.fall_asleep(how));
        }
        assert!(doorbell.wake_up());
        assert!(doorbell.fall_asleep(Sleep::Doze));
    }

    #[test]
    fn a_ring_wakes_the_sleeper_once_and_where_it_sleeps() {
        let doorbell = Doorbell::new().unwrap();
        let task = Arc::new(Task::default());
        doorbell.belongs_to(&Waker::from(Arc::clone(&task)));
        let woken = || task.0.load(Ordering::SeqCst);
        doorbell.ring();
        assert_eq!((writes(&doorbell), woken()), (0, 0), "nobody sleeps");
        assert!(doorbell.wake_up());
        assert!(doorbell.fall_asleep(Sleep::Doze));
        doorbell.ring();
        doorbell.ring();
        assert_eq!((writes(&doorbell), woken()), (1, 0));
        assert!(doorbell.wake_up());
        assert!(doorbell.fall_asleep(Sleep::Park));
        doorbell.ring();
        doorbell.ring();
        assert_eq!((writes(&doorbell), woken()), (0, 1));
    }

    #[test]
    fn another_task_is_woken_and_the_sleeper_told_to_give_way() {
        let doorbell = Arc::new(Doorbell::new().unwrap());
        let other = Arc::new(Task::default());
        let waker = doorbell.waker_of_other(&Waker::from(Arc::clone(&other)));
        assert!(!doorbell.takes_turn_wish());
        assert!(doorbell.fall_asleep(Sleep::Doze));
        waker.wake();
        assert_eq!((writes(&doorbell), other.0.load(Ordering::SeqCst)), (1, 1));
        assert!(doorbell.wake_up() && doorbell.takes_turn_wish());
        assert!(!doorbell.takes_turn_wish());
    }

    #[test]
    fn what_is_told_before_a_ring_is_seen_by_a_task_that_cannot_sleep() {
        let doorbell = Arc::new(Doorbell::new().unwrap());
        let told = Arc::new(AtomicUsize::new(0));
        const RINGS: usize = 10_000;
        let teller = std::thread::spawn({
            let (doorbell, told) = (Arc::clone(&doorbell), Arc::clone(&told));
            move || {
                for _ in 0..RINGS {
                    told.fetch_add(1, Ordering::Relaxed);
                    doorbell.ring();
                }
            }
        });
        let mut seen = 0;
        while seen < RINGS {
            doorbell.wake_up();
            seen = told.load(Ordering::Relaxed);
            if seen < RINGS && doorbell.fall_asleep(Sleep::Doze) {
                // The writer's last ring comes after this: else it would sleep for ever.
                while writes(&doorbell) == 0 {
                    std::thread::yield_now();
                }
            }
        }
        teller.join().unwrap();
    }
}
