//! Time as the API writes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, as `2026-11-23T08:02:21Z`.
pub fn rfc3339_now() -> String {
    rfc3339(SystemTime::now(), false)
}

/// Now with microseconds, the API's MicroTime: `2026-11-23T08:02:21.123456Z`.
pub fn micro_time_now() -> String {
    rfc3339(SystemTime::now(), true)
}

/// `at` in UTC.
pub fn rfc3339(at: SystemTime, micros: bool) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    if micros {
        format!("{year:04}-{month:02}-{day:02}T{clock}.{:06}Z", since.subsec_micros())
    } else {
        format!("{year:04}-{month:02}-{day:02}T{clock}Z")
    }
}

/// Reads a UTC timestamp with or without fraction; `None` for anything else.
pub fn parse(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?;
    let (date, clock) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let in_range = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    let seconds = days_from_civil(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::new(seconds, nanos))
}

/// Gregorian date of a day number since 1970-01-01, counting in 400-year cycles from 0000-03-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_moments() {
        assert_eq!(rfc3339(at(0), false), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(951_782_400), false), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(at(1_795_420_941), false), "2026-11-23T08:02:21Z");
        assert_eq!(rfc3339(at(4_107_542_400), false), "2100-03-01T00:00:00Z");
        assert_eq!(
            rfc3339(at(1) + Duration::from_micros(42), true),
            "1970-01-01T00:00:01.000042Z"
        );
    }

    #[test]
    fn reads_what_it_writes() {
        for seconds in [0, 59, 86_399, 951_782_400, 951_868_799, 1_795_420_941, 4_107_542_400] {
            assert_eq!(parse(&rfc3339(at(seconds), false)), Some(at(seconds)));
        }
        assert_eq!(
            parse("1970-01-01T00:00:01.5Z"),
            Some(at(1) + Duration::from_millis(500))
        );
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "yesterday",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "1970-01-01T00:00:00.xZ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
