//! Numbers for people.

/// Returns a number with separated thousands: `6,185`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of bytes in the largest unit of which there is at least one: `12.34 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    let (mut rest, mut unit) = (number as f64, "");
    for larger in ["Ki", "Mi", "Gi", "Ti"] {
        if rest < 1024.0 {
            break;
        }
        (rest, unit) = (rest / 1024.0, larger);
    }
    if unit.is_empty() { format!("{number} B") } else { format!("{rest:.2} {unit}B") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let shown = [0, 999, 1_000, 6_185, 1_234_567].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "6,185", "1,234,567"]);
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit_of_which_there_is_one() {
        let shown = [0, 1_023, 1_024, 1_536, 24 << 20, 5 << 40].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "24.00 MiB", "5.00 TiB"]);
    }
}
