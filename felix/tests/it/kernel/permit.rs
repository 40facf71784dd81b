//! How many tests use the kernel at a time.

use std::sync::{Condvar, Mutex};

/// One of two permits to use the kernel.
pub(super) struct Permit;

static PERMITS: (Mutex<usize>, Condvar) = (Mutex::new(2), Condvar::new());

impl Permit {
    pub(super) fn take() -> Self {
        let free = PERMITS.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut free = PERMITS
            .1
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *free -= 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *PERMITS.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
        PERMITS.1.notify_one();
    }
}
