//! When to read the kernel back. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Others may change the tables all the time: the kernel is not read more often than this because of them.
const SHORTEST: Duration = Duration::from_millis(500);

/// Looks after a write get rarer until they are this far from it.
const LONGEST_AFTER_WRITE: Duration = Duration::from_secs(3600);

/// The first pause after the kernel refused a part; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// The longest pause while the kernel refuses a part.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// When the kernel is to be read next, and why then.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    after_write: Duration,
    last_look: Instant,
    refresh: Instant,
    /// When we wrote last, and how long after that the next look is due.
    written: Option<(Instant, Duration)>,
    /// When to try again what was refused, and the pause before that.
    retry: Option<(Instant, Duration)>,
}

impl Schedule {
    /// A look every `interval`, and looks `after_write`, twice that, and so on after each write; zero for none of the latter.
    pub(super) fn new(interval: Duration, after_write: Duration, now: Instant) -> Self {
        Self {
            interval,
            after_write,
            last_look: now,
            refresh: now + interval,
            written: None,
            retry: None,
        }
    }

    /// The next look.
    pub(super) fn next(&self) -> Instant {
        let written = self.written.map(|(at, after)| at + after);
        let retry = self.retry.map(|(at, _)| at);
        [written, retry].into_iter().flatten().fold(self.refresh, Instant::min)
    }

    /// The kernel is being read.
    pub(super) fn look(&mut self, now: Instant) {
        self.last_look = now;
        self.refresh = now + self.interval;
        while let Some((at, after)) = self.written
            && at + after <= now
        {
            self.written = (after < LONGEST_AFTER_WRITE).then_some((at, after * 2));
        }
    }

    /// Something was written: others may have done so at the same time.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.written = (!self.after_write.is_zero()).then_some((now, self.after_write));
    }

    /// Others may have changed something.
    pub(super) fn heard(&mut self) {
        self.refresh = self.refresh.min(self.last_look + SHORTEST);
    }

    /// Whether the kernel took everything.
    pub(super) fn taken(&mut self, everything: bool, now: Instant) {
        self.retry = match self.retry {
            _ if everything => None,
            Some((at, pause)) if at > now => Some((at, pause)),
            earlier => {
                let pause = earlier.map_or(FIRST_RETRY, |(_, pause)| (pause * 2).min(LONGEST_RETRY));
                Some((now + pause, pause))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NEVER: Duration = Duration::from_secs(1 << 28);

    #[test]
    fn looks_after_a_write_get_rarer_and_end() {
        let start = Instant::now();
        let mut schedule = Schedule::new(NEVER, 5 * SECOND, start);
        assert_eq!(schedule.next(), start + NEVER);
        schedule.wrote(start);
        let mut looks = Vec::new();
        while schedule.next() < start + NEVER {
            let now = schedule.next();
            looks.push((now - start).as_secs());
            schedule.look(now);
        }
        assert_eq!(looks, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120]);
        // Looks for other reasons count; another write begins anew.
        schedule.wrote(start);
        schedule.look(start + 7 * SECOND);
        assert_eq!(schedule.next(), start + 10 * SECOND);
        schedule.wrote(start + 8 * SECOND);
        assert_eq!(schedule.next(), start + 13 * SECOND);
        let mut none = Schedule::new(90 * SECOND, Duration::ZERO, start);
        none.wrote(start);
        assert_eq!(none.next(), start + 90 * SECOND);
    }

    #[test]
    fn others_are_looked_after_soon_and_not_all_the_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(90 * SECOND, Duration::ZERO, start);
        schedule.heard();
        assert_eq!(schedule.next(), start + SHORTEST);
        schedule.look(start + SHORTEST);
        assert_eq!(schedule.next(), start + SHORTEST + 90 * SECOND);
        schedule.heard();
        schedule.heard();
        assert_eq!(schedule.next(), start + 2 * SHORTEST);
    }

    #[test]
    fn what_is_refused_is_tried_again_at_growing_pauses() {
        let start = Instant::now();
        let mut schedule = Schedule::new(NEVER, Duration::ZERO, start);
        let mut now = start;
        for pause in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            schedule.taken(false, now);
            // A change in between does not move it.
            schedule.taken(false, now + Duration::from_millis(10));
            assert_eq!(schedule.next() - now, Duration::from_millis(pause));
            now = schedule.next();
        }
        schedule.taken(true, now);
        assert_eq!(schedule.next(), start + NEVER);
    }
}
