//! Spans of time as people say them.

use jiff::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long ago a time was, in RFC 3339 or as Go prints it. Another text is shown as it is, none at all as nothing.
pub(crate) fn ago(since: Option<&str>, now: Timestamp) -> String {
    let Some(since) = since else {
        return String::new();
    };
    match since.parse().ok().or_else(|| go_time(since)) {
        Some(since) => duration(u64::try_from(now.as_second() - since.as_second()).unwrap_or(0)),
        None => since.to_owned(),
    }
}

/// Reads what Go's `Time.String` writes, and Calico's IPAM keeps: `2026-11-23 08:02:20.000000001 +0000 UTC`. A time that
/// still had its monotonic clock has `m=+0.5` behind the zone.
fn go_time(text: &str) -> Option<Timestamp> {
    let (time, zone) = text
        .rsplit_once(" m=")
        .map_or(text, |(time, _)| time)
        .rsplit_once(' ')?;
    let named = zone
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-'));
    named.then(|| Timestamp::strptime("%Y-%m-%d %H:%M:%S%.f %z", time).ok())?
}

/// Seconds in the two largest units that say something: `42s`, `5m10s`, `3h2m`, `9d4h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (large, unit, rest, rest_unit) = match seconds {
        DAY.. => (seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        HOUR.. => (seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        MINUTE.. => (seconds / MINUTE, "m", seconds % MINUTE, "s"),
        _ => return format!("{seconds}s"),
    };
    if rest == 0 {
        format!("{large}{unit}")
    } else {
        format!("{large}{unit}{rest}{rest_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::{ago, duration};

    #[test]
    fn two_units_at_most() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (310, "5m10s"),
            (3_600, "1h"),
            (10_925, "3h2m"),
            (86_399, "23h59m"),
            (86_400, "1d"),
            (792_000, "9d4h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn times_are_relative_to_now_and_never_negative() {
        let now = "2026-03-01T12:00:00Z".parse().expect("a time");
        assert_eq!(ago(Some("2026-03-01T11:55:00.5Z"), now), "5m");
        assert_eq!(ago(Some("2026-03-01T13:00:00+01:00"), now), "0s");
        assert_eq!(ago(Some("2026-03-01T12:00:09Z"), now), "0s");
        for text in [
            "yesterday",
            "2026-03-01 11:55:00",
            "2026-03-01 11:55:00 +0000",
            "2026-02-30 11:55:00 +0000 UTC",
            "",
        ] {
            assert_eq!(ago(Some(text), now), text);
        }
        assert_eq!(ago(None, now), "");
    }

    #[test]
    fn times_that_go_printed_are_read() {
        let now = "2026-03-01T12:00:00Z".parse().expect("a time");
        for text in [
            "2026-03-01 11:55:00.088365517 +0000 UTC",
            "2026-03-01 11:55:00 +0000 UTC",
            "2026-03-01 12:55:00.5 +0100 CET",
            "2026-03-01 08:55:00 -0300 -03",
            "2026-03-01 11:55:00.088365517 +0000 UTC m=+0.012345678",
        ] {
            assert_eq!(ago(Some(text), now), "5m", "{text}");
        }
    }
}
