//! Growing pauses between attempts.

use std::time::Duration;

/// Exponential backoff with jitter: `first`, doubled each time up to `most`, each pause between half and all of that.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    seed: u64,
}

impl Backoff {
    /// Pauses from `first` to `most`; `seed` keeps many agents from retrying in step.
    pub fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Self {
            first,
            most,
            next: first,
            seed: seed | 1,
        }
    }

    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        // xorshift64: quality does not matter here, only that nodes differ.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let whole = self.next;
        self.next = (self.next * 2).min(self.most);
        let half = whole / 2;
        half + half.mul_f64((self.seed % 1024) as f64 / 1024.0)
    }

    /// Starts over from the first pause: call after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 42);
        let pauses: Vec<_> = (0..6).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] <= Duration::from_millis(100));
        assert!(pauses[5] >= Duration::from_millis(500) && pauses[5] <= Duration::from_secs(1));
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
