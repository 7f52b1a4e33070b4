//! The two placeholders of paths: `~` and `{timestamp}`.

use std::time::{SystemTime, UNIX_EPOCH};

/// `path` with a leading `~` replaced by the home folder, where one is known.
pub fn expand_home(path: &str) -> String {
    match (path.strip_prefix('~'), std::env::var("HOME")) {
        (Some(rest), Ok(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => path.into(),
    }
}

/// `path` with `{timestamp}` replaced by the time, such as `20260131T154500`, in UTC.
pub(crate) fn expand_timestamp(path: &str) -> String {
    if !path.contains("{timestamp}") {
        return path.into();
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    path.replace("{timestamp}", &timestamp(seconds))
}

/// Seconds since 1970 as `YYYYMMDDThhmmss` in UTC.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Years begin in March here, so that the leap day comes last; an era is 400 such years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        assert_eq!(timestamp(0), "19700101T000000");
        assert_eq!(timestamp(951_782_400), "20000229T000000");
        assert_eq!(timestamp(1_735_689_599), "20241231T235959");
        assert_eq!(timestamp(1_709_210_096), "20240229T123456");
    }
}
