//! `strftime` for chat templates that name the date, in UTC: the library reads no time zone.

use std::fmt::Write;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Formats a time, given in seconds since 1970, in Python's notation; `None` if a directive is not known here.
pub(super) fn strftime(format: &str, seconds: i64) -> Option<String> {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day, year_day) = civil(days);
    let weekday = (days + 3).rem_euclid(7) as usize; // 1970-01-01 was a Thursday
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next()?;
        // glibc's `%-d`: without padding.
        let (pad, directive) = if directive == '-' { (0, chars.next()?) } else { (2, directive) };
        let written = match directive {
            'Y' => write!(out, "{year}"),
            'y' => write!(out, "{:0pad$}", year.rem_euclid(100)),
            'm' => write!(out, "{month:0pad$}"),
            'd' => write!(out, "{day:0pad$}"),
            'e' => write!(out, "{day:pad$}"),
            'H' => write!(out, "{hour:0pad$}"),
            'I' => write!(out, "{hour12:0pad$}"),
            'M' => write!(out, "{minute:0pad$}"),
            'S' => write!(out, "{second:0pad$}"),
            'j' => write!(out, "{year_day:0w$}", w = if pad == 0 { 0 } else { 3 }),
            'p' => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            'B' => write!(out, "{}", MONTHS[month - 1]),
            'b' | 'h' => write!(out, "{}", &MONTHS[month - 1][..3]),
            'A' => write!(out, "{}", DAYS[weekday]),
            'a' => write!(out, "{}", &DAYS[weekday][..3]),
            'F' => write!(out, "{year}-{month:02}-{day:02}"),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'Z' => write!(out, "UTC"),
            'z' => write!(out, "+0000"),
            '%' => write!(out, "%"),
            _ => return None,
        };
        written.ok()?;
    }
    Some(out)
}

/// Year, month (1 to 12), day (1 to 31) and day of the year (1 to 366) of a day since 1970-01-01, in the Gregorian
/// calendar. Years are counted from March, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, usize, i64, i64) {
    let day = days.saturating_add(719_468); // since 0000-03-01
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100); // since March 1st
    let month = (5 * day + 2) / 153; // since March
    let month_day = day - (153 * month + 2) / 5 + 1;
    let (calendar_month, year) =
        if month < 10 { (month + 3, year + era * 400) } else { (month - 9, year + era * 400 + 1) };
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let year_day = if month < 10 { day + 60 + i64::from(leap) } else { day - 305 };
    (year, calendar_month as usize, month_day, year_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let all = "%a %A %d %b %B %Y %y %m %j %H:%M:%S %I%p %-d %F %T %%";
        assert_eq!(
            strftime(all, 0).unwrap(),
            "Thu Thursday 01 Jan January 1970 70 01 001 00:00:00 12AM 1 1970-01-01 00:00:00 %"
        );
        assert_eq!(strftime("%F %j %a", 951_782_400).unwrap(), "2000-02-29 060 Tue");
        assert_eq!(strftime("%F %j %T", 1_735_689_599).unwrap(), "2024-12-31 366 23:59:59");
        assert_eq!(strftime("%d %b %Y", 1_721_952_000).unwrap(), "26 Jul 2024");
        assert_eq!(strftime("%F %j", -1).unwrap(), "1969-12-31 365");
        assert_eq!(strftime("%Q", 0), None);
        assert_eq!(strftime("%", 0), None);
    }
}
