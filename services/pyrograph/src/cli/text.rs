//! Makes untrusted text safe to print on a terminal.
//!
//! Names in profiles are arbitrary text from clients. A terminal obeys some characters instead of showing them: they
//! move the cursor, change the window's title, reverse the direction of text. Those are shown as escapes.

use std::borrow::Cow;

use model::DAY;

/// `text` in one line, with each character that a terminal may obey written as `\n`, `\t` or `\u{1b}`.
pub(super) fn inert(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_obeyed(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// As [`inert`], for text of several lines.
pub(super) fn inert_lines(text: &str) -> String {
    text.split('\n').map(inert).collect::<Vec<_>>().join("\n")
}

/// Controls of ASCII and Latin-1, separators of lines and paragraphs, and marks that set the direction of text.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A time in Unix milliseconds as `2026-11-30 14:02:05`, in UTC; the number itself outside of the years 1970 to 9999.
pub(super) fn utc(millis: i64) -> String {
    let (mut days, seconds) = (millis.div_euclid(1000) / DAY, millis.div_euclid(1000) % DAY);
    if millis < 0 || days >= 2_932_897 {
        return millis.to_string();
    }
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + i64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_obeys_are_escaped() {
        assert_eq!(inert("größer → main.(*T).work<é>\\"), "größer → main.(*T).work<é>\\");
        assert_eq!(
            inert("a\u{1b}[31mred\nforged 100%\r\t\0\u{7f}\u{9b}2J\u{202e}"),
            r"a\u{1b}[31mred\nforged 100%\r\t\u{0}\u{7f}\u{9b}2J\u{202e}"
        );
        assert_eq!(inert_lines("a\u{7}\nb"), "a\\u{7}\nb");
    }

    #[test]
    fn times_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_796_047_325_000), "2026-11-30 14:02:05");
        assert_eq!(utc(4_102_444_799_000), "2099-12-31 23:59:59");
        assert_eq!(utc(253_402_300_799_000), "9999-12-31 23:59:59");
        assert_eq!(utc(253_402_300_800_000), "253402300800000");
        assert_eq!(utc(-1), "-1");
    }
}
