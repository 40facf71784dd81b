//! Spans of time as people say them.

use jiff::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long ago an RFC 3339 time was. A text that is none is shown as it is, none at all as nothing.
pub(crate) fn ago(since: Option<&str>, now: Timestamp) -> String {
    let Some(since) = since else {
        return String::new();
    };
    match since.parse::<Timestamp>() {
        Ok(since) => duration(u64::try_from(now.as_second() - since.as_second()).unwrap_or(0)),
        Err(_) => since.to_owned(),
    }
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
        assert_eq!(ago(Some("yesterday"), now), "yesterday");
        assert_eq!(ago(None, now), "");
    }
}
