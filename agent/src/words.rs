//! Numbers and tables as a person reads them in a terminal.
use std::fmt::Write;

/// `1 234 567`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `5.0 MiB`
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1_000.0 && unit + 1 < units.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 { format!("{value:.0} {}", units[unit]) } else { format!("{value:.1} {}", units[unit]) }
}

/// `2.0 h`
pub fn age(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3_600.0),
        seconds => format!("{:.1} d", seconds / 86_400.0),
    }
}

/// An aligned table with a line of titles. A title that begins with `>` stands over a column that is aligned to the right.
pub fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let title = |column: usize| titles[column].trim_start_matches('>');
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([title(column).chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let heads: Vec<String> = (0..titles.len()).map(|column| title(column).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let (gap, width) = (if column > 0 { "  " } else { "" }, widths[column]);
            // Writing into a string cannot fail.
            let _ = if titles[column].starts_with('>') { write!(line, "{gap}{cell:>width$}") } else { write!(line, "{gap}{cell:width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!([0, 999, 1_000, 1 << 20, 300 << 20, 5 << 40].map(bytes), ["0 B", "999 B", "1.0 KiB", "1.0 MiB", "300 MiB", "5.0 TiB"]);
        assert_eq!([1.0, 119.0, 600.0, 7_300.0, 900_000.0].map(age), ["1 s", "119 s", "10 min", "2.0 h", "10.4 d"]);
    }
}
