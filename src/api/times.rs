//! Times of day and spans as the documents write them. Times are UTC.

use std::time::{Duration, SystemTime};

/// `YYYY-MM-DD HH:mm:ss`.
pub fn date_time(time: SystemTime) -> String {
    let s = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil((s / 86_400) as i64);
    let (hour, minute, second) = (s / 3_600 % 24, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `YYYY-MM-DD HH:mm:ss.SSS` of milliseconds since 1970.
pub fn date_time_ms(ms: u64) -> String {
    let second = date_time(SystemTime::UNIX_EPOCH + Duration::from_secs(ms / 1_000));
    format!("{second}.{:03}", ms % 1_000)
}

/// `H hours, M minutes, S seconds`.
pub fn uptime_hours(span: Duration) -> String {
    let s = span.as_secs();
    format!("{} hours, {} minutes, {} seconds", s / 3_600, s / 60 % 60, s % 60)
}

/// `D days H hours, M minutes, S seconds`.
pub fn uptime_days(span: Duration) -> String {
    let (days, rest) = (span.as_secs() / 86_400, span.as_secs() % 86_400);
    format!("{days} days {}", uptime_hours(Duration::from_secs(rest)))
}

/// Year, month and day of a day since 1970-01-01: the years begin in March, so that the leap day is their last.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(ERA), shifted.rem_euclid(ERA));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_written_as_documented() {
        let at = |s: u64| date_time(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date_time_ms(951_782_400_007), "2000-02-29 00:00:00.007");
        assert_eq!(at(951_868_800), "2000-03-01 00:00:00");
        assert_eq!(at(1_616_033_757), "2021-03-18 02:15:57");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00");
        assert_eq!(uptime_hours(Duration::from_secs(15 * 3_600 + 98)), "15 hours, 1 minutes, 38 seconds");
        assert_eq!(uptime_days(Duration::from_secs(5 * 86_400 + 3)), "5 days 0 hours, 0 minutes, 3 seconds");
    }
}
