//! Dates as `strftime` writes them, in coordinated universal time, for templates that say what day it is.
use std::time::{SystemTime, UNIX_EPOCH};

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

/// The time in a format with `%Y`, `%m`, `%d`, `%B`, `%b`, `%A`, `%a`, `%H`, `%I`, `%M`, `%S`, `%p`, `%y`, `%j`, `%%`.
pub fn format(format: &str, now: SystemTime) -> Result<String, String> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let days = seconds / 86400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day, of_year) = date(days);
    // 1970 began on a Thursday.
    let weekday = DAYS[((days + 3) % 7) as usize];
    let name = MONTHS[month - 1];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        // `%-d` is a number without a zero before it.
        let plain = code == Some('-');
        if plain {
            code = chars.next();
        }
        let two = |n: u64| if plain { n.to_string() } else { format!("{n:02}") };
        match code {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &two(year % 100),
            Some('m') => out += &two(month as u64),
            Some('d') => out += &two(day),
            Some('B') => out += name,
            Some('b' | 'h') => out += &name[..3],
            Some('A') => out += weekday,
            Some('a') => out += &weekday[..3],
            Some('H') => out += &two(hour),
            Some('I') => out += &two((hour + 11) % 12 + 1),
            Some('M') => out += &two(minute),
            Some('S') => out += &two(second),
            Some('p') => out += if hour < 12 { "AM" } else { "PM" },
            Some('j') => out += &format!("{of_year:03}"),
            Some('%') => out.push('%'),
            other => {
                return Err(format!("strftime_now does not know `%{}`", other.map_or(String::new(), String::from)));
            }
        }
    }
    Ok(out)
}

/// Year, month, day of the month and day of the year, of a number of days since the beginning of 1970.
fn date(days: u64) -> (u64, usize, u64, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    // Years repeat after 400 of them, which are 146,097 days; 1970 is counted from 1600, which begins such a round.
    let from_1600 = days + 135_140;
    let (mut year, mut left) = (1600 + from_1600 / 146_097 * 400, from_1600 % 146_097);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let of_year = left + 1;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month + 1, left + 1, of_year)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let show = |seconds| format("%A %a %d %-d %B %b %Y %y %m %j %H:%M:%S %I %p %%", at(seconds)).unwrap();
        assert_eq!(show(0), "Thursday Thu 01 1 January Jan 1970 70 01 001 00:00:00 12 AM %");
        assert_eq!(show(951_782_399), "Monday Mon 28 28 February Feb 2000 00 02 059 23:59:59 11 PM %");
        assert_eq!(show(951_782_400), "Tuesday Tue 29 29 February Feb 2000 00 02 060 00:00:00 12 AM %");
        assert_eq!(show(1_735_689_599), "Tuesday Tue 31 31 December Dec 2024 24 12 366 23:59:59 11 PM %");
        assert_eq!(format("%d %b %Y", at(4_107_542_400)).unwrap(), "01 Mar 2100");
        assert!(format("%Q", at(0)).unwrap_err().contains("`%Q`") && format("%", at(0)).is_err());
    }
}
