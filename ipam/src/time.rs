//! Text for points in time.

use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 3339, whole seconds, UTC.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let (date, clock, _) = parts(time);
    format!("{date}T{clock}Z")
}

/// As Calico's plugin writes the `timestamp` of an address: `2026-11-23 08:02:20.000000001 +0000 UTC`.
pub(crate) fn verbose(time: SystemTime) -> String {
    let (date, clock, nanoseconds) = parts(time);
    format!("{date} {clock}.{nanoseconds:09} +0000 UTC")
}

/// Nanoseconds since 1970: what a new block's sequence number starts from.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 4)
}

fn parts(time: SystemTime) -> (String, String, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date by eras of 400 years that begin in March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year + u64::from(month <= 2);
    let date = format!("{year:04}-{month:02}-{day_of_month:02}");
    let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    (date, clock, since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_right() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_420_941, "2026-11-23T08:02:21Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(at(seconds)), text);
        }
        let time = at(1_795_420_940) + Duration::from_nanos(5);
        assert_eq!(verbose(time), "2026-11-23 08:02:20.000000005 +0000 UTC");
        assert_eq!(nanoseconds(time), 1_795_420_940_000_000_005);
    }
}
