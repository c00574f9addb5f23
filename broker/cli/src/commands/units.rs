//! Times, sizes and durations as people write and read them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat};

const DAY_MS: i64 = 86_400_000;

/// Reads a time as milliseconds since 1970: `2026-11-21`, `2026-11-21T10:30:00`, with `.250`, with `Z` or `+02:00`.
/// Without a zone it is UTC, as with Kafka's tools.
pub(super) fn time(text: &str) -> Result<i64, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(time.and_utc().timestamp_millis());
        }
    }
    match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(day) => Ok(day.and_time(NaiveTime::MIN).and_utc().timestamp_millis()),
        Err(_) => Err(format!("{text:?} is no time like 2026-11-21T10:30:00 or 2026-11-21T10:30:00+02:00")),
    }
}

/// Formats a time: `2026-11-21T10:30:00Z`.
pub(super) fn date(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| ms.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// A size for people: `512 B`, `1.5 KiB`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn bytes(count: i64) -> String {
    let mut size = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if size.abs() < 1024.0 || unit == "TiB" {
            return if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{count} B")
}

/// A duration for people: `7 d`, `90 s`, the largest unit that divides it.
pub(super) fn duration(ms: i64) -> String {
    let units = [(DAY_MS, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{} {name}", ms / unit),
        None => format!("{ms} ms"),
    }
}

/// A config's value, followed by the same in a larger unit where that helps.
pub(super) fn config(name: &str, value: &str) -> String {
    let meaning = match value.parse::<i64>() {
        Ok(-1 | i64::MAX) => return format!("{value} (no limit)"),
        Ok(ms) if name.ends_with(".ms") => duration(ms),
        Ok(count) if name.ends_with(".bytes") => bytes(count),
        _ => return value.to_owned(),
    };
    if meaning.starts_with(&format!("{value} ")) { value.to_owned() } else { format!("{value} ({meaning})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_zone() {
        let ms = 1_795_257_000_250;
        assert_eq!(time("2026-11-21T10:30:00.250Z"), Ok(ms));
        assert_eq!(time(&date(ms)), Ok(ms));
        assert_eq!(time("2026-11-21T12:30:00.250+02:00"), Ok(ms));
        assert_eq!(time("2026-11-21T10:30:00.250"), Ok(ms));
        assert_eq!(time("2026-11-21 10:30"), Ok(ms - 250));
        assert_eq!(time("2026-11-21"), Ok(ms - 250 - 37_800_000));
        for wrong in ["", "now", "2026-13-01", "2026-11-21T25:00:00", "10:30", "1795257000250"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_durations_are_short() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(
            [duration(604_800_000), duration(90_000), duration(1_500), duration(0)],
            ["7 d", "90 s", "1500 ms", "0 ms"]
        );
        assert_eq!(config("retention.ms", "86400000"), "86400000 (1 d)");
        assert_eq!(config("retention.ms", "-1"), "-1 (no limit)");
        assert_eq!(config("retention.ms", "1500"), "1500");
        assert_eq!(config("segment.bytes", "1048576"), "1048576 (1.0 MiB)");
        assert_eq!(config("cleanup.policy", "compact"), "compact");
        assert_eq!(config("min.insync.replicas", "2"), "2");
    }
}
