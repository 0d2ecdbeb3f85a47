//! Decimal numbers of any size, exact: what JSON writes is what is compared, divided and written again.

use std::cmp::Ordering;

/// The most digits that a number may have when it is written without an exponent; the largest `double` has 309.
pub(super) const MAX_DIGITS: i64 = 400;

/// `digits` times ten to the power of `exponent`.
///
/// Invariants: no leading and no trailing zeros; zero has no digits, no sign and the exponent 0, so that equal numbers are
/// equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    pub(super) negative: bool,
    /// Each 0 to 9, the most significant first.
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    pub(super) const ZERO: Decimal = Decimal { negative: false, digits: Vec::new(), exponent: 0 };

    /// A JSON number's value; `None`: it is too large or small to be written without an exponent.
    pub(super) fn of(text: &str) -> Option<Decimal> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b.wrapping_sub(b'0')).collect();
        let zero = digits.iter().all(|d| *d == 0);
        if zero {
            return Some(Decimal::ZERO);
        }
        let exponent: i64 = exponent.parse().ok()?;
        let number = Decimal::new(negative, digits, exponent.checked_sub(fraction.len() as i64)?);
        let (whole, fraction) = (number.n_whole(), -number.exponent);
        (whole.max(1) + fraction.max(0) <= MAX_DIGITS).then_some(number)
    }

    fn new(negative: bool, mut digits: Vec<u8>, mut exponent: i64) -> Decimal {
        let leading = digits.iter().take_while(|d| **d == 0).count();
        digits.drain(..leading);
        while digits.last() == Some(&0) {
            digits.pop();
            exponent = exponent.saturating_add(1);
        }
        if digits.is_empty() { Decimal::ZERO } else { Decimal { negative, digits, exponent } }
    }

    pub(super) fn from_integer(value: i128) -> Decimal {
        let digits = value.unsigned_abs().to_string().bytes().map(|b| b - b'0').collect();
        Decimal::new(value < 0, digits, 0)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    pub(super) fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    pub(super) fn negated(&self) -> Decimal {
        Decimal { negative: !self.negative && !self.is_zero(), ..self.clone() }
    }

    /// Digits before the point; not positive for what is less than 1.
    fn n_whole(&self) -> i64 {
        self.digits.len() as i64 + self.exponent
    }

    /// The digits before and behind the point of its absolute value: `"0"` at least, and none behind it for an integer.
    pub(super) fn parts(&self) -> (String, String) {
        let digit = |i: i64| usize::try_from(i).ok().and_then(|i| self.digits.get(i)).copied().unwrap_or(0);
        let n = self.n_whole();
        let text = |range: std::ops::Range<i64>| range.map(|i| char::from(b'0' + digit(i))).collect::<String>();
        let whole = if n > 0 { text(0..n) } else { "0".to_owned() };
        (whole, text(n..self.digits.len() as i64))
    }

    /// It without an exponent.
    pub(super) fn plain(&self) -> String {
        let (whole, fraction) = self.parts();
        let sign = if self.negative { "-" } else { "" };
        if fraction.is_empty() { sign.to_owned() + &whole } else { format!("{sign}{whole}.{fraction}") }
    }

    /// The largest integer that is not above it, or the least that is not below it.
    pub(super) fn rounded(&self, up: bool) -> Decimal {
        if self.is_integer() {
            return self.clone();
        }
        let (whole, _) = self.parts();
        let mut digits: Vec<u8> = whole.bytes().map(|b| b - b'0').collect();
        if up != self.negative {
            let nines = digits.iter().rev().take_while(|d| **d == 9).count();
            let from = digits.len() - nines;
            digits[from..].fill(0);
            match from.checked_sub(1) {
                Some(at) => digits[at] += 1,
                None => digits.insert(0, 1),
            }
        }
        Decimal::new(self.negative, digits, 0)
    }

    /// The next integer above or below an integer.
    pub(super) fn beside(&self, up: bool) -> Decimal {
        let half = Decimal { negative: false, digits: vec![5], exponent: -1 };
        if self.is_zero() {
            return Decimal { negative: !up, ..half }.rounded(up);
        }
        // Half of one added or taken, then rounded.
        let (whole, _) = self.parts();
        let mut digits: Vec<u8> = whole.bytes().map(|b| b - b'0').collect();
        if up == self.negative {
            let zeros = digits.iter().rev().take_while(|d| **d == 0).count();
            let from = digits.len() - zeros;
            digits[from..].fill(9);
            if let Some(digit) = from.checked_sub(1).and_then(|at| digits.get_mut(at)) {
                *digit -= 1;
            }
            return Decimal::new(self.negative, digits, 0);
        }
        digits.push(5);
        Decimal::new(self.negative, digits, -1).rounded(up)
    }

    /// The value times ten to the power of `scale`, where that is an integer of 38 digits at most.
    pub(super) fn scaled(&self, scale: i64) -> Option<i128> {
        let zeros = usize::try_from(self.exponent.checked_add(scale)?).ok()?;
        if self.digits.len() + zeros > 38 {
            return if self.is_zero() { Some(0) } else { None };
        }
        let value = self.digits.iter().fold(0i128, |n, d| n * 10 + i128::from(*d));
        let value = value * 10i128.pow(zeros as u32);
        Some(if self.negative { -value } else { value })
    }

    /// The digits without their zeros at the end, as a number, and the power of ten that they are counted in.
    pub(super) fn unit(&self) -> Option<(u64, i64)> {
        let value = self.digits.iter().try_fold(0u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(*d)))?;
        Some((value, self.exponent))
    }

    /// Whether it is a multiple of `unit` times ten to the power of `exponent`; `unit` is not 0.
    pub(super) fn is_multiple(&self, unit: u64, exponent: i64) -> bool {
        if self.is_zero() {
            return true;
        }
        let Ok(zeros) = u32::try_from(self.exponent - exponent) else { return false };
        let unit = u128::from(unit);
        let rest = self.digits.iter().fold(0u128, |n, d| (n * 10 + u128::from(*d)) % unit);
        (0..zeros).fold(rest, |n, _| n * 10 % unit) == 0
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let sign = |d: &Decimal| {
            if d.is_zero() {
                0
            } else if d.negative {
                -1
            } else {
                1
            }
        };
        let by_sign = sign(self).cmp(&sign(other));
        if by_sign != Ordering::Equal || self.is_zero() {
            return by_sign;
        }
        let size = self.n_whole().cmp(&other.n_whole()).then_with(|| self.digits.cmp(&other.digits));
        if self.negative { size.reverse() } else { size }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Decimal {
        Decimal::of(text).unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_and_others_in_order() {
        for same in [["1", "1.0"], ["1e3", "1000"], ["-0", "0.00"], ["12.50", "125e-1"], ["0.001", "1E-3"]] {
            assert_eq!(of(same[0]), of(same[1]));
        }
        let order =
            ["-1e30", "-10.5", "-10", "-9.999", "-0.1", "0", "1e-9", "0.1", "0.11", "1", "9", "10", "99.9", "1e2"];
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                assert_eq!(of(a).cmp(&of(b)), i.cmp(&j), "{a} {b}");
            }
        }
        assert!(
            Decimal::of("1e400").is_none() && Decimal::of("1e-400").is_none() && Decimal::of("1e99999999999").is_none()
        );
        assert_eq!(of("1.7976931348623157e308").plain().len(), 309);
    }

    #[test]
    fn integers_beside_and_around_a_number() {
        for (text, down, up) in
            [("1.5", "1", "2"), ("-1.5", "-2", "-1"), ("9.01", "9", "10"), ("-0.5", "-1", "0"), ("7", "7", "7")]
        {
            assert_eq!((of(text).rounded(false), of(text).rounded(true)), (of(down), of(up)), "{text}");
        }
        for (text, down, up) in [
            ("0", "-1", "1"),
            ("10", "9", "11"),
            ("-10", "-11", "-9"),
            ("-1", "-2", "0"),
            ("99", "98", "100"),
            ("1", "0", "2"),
            ("-100", "-101", "-99"),
        ] {
            assert_eq!((of(text).beside(false), of(text).beside(true)), (of(down), of(up)), "{text}");
        }
        let least = i64::MIN.to_string();
        assert_eq!(of(&least).beside(false).plain(), "-9223372036854775809");
    }

    #[test]
    fn multiples_are_found_at_any_size() {
        for (value, unit, multiple) in [
            ("0.3", "0.1", true),
            ("0.35", "0.1", false),
            ("18446744073709551615", "5", true),
            ("1e300", "7", false),
            ("7e300", "7", true),
            ("-12", "4", true),
            ("4.5", "1.5", true),
            ("100", "1e3", false),
            ("0", "13", true),
        ] {
            let (coefficient, exponent) = of(unit).unit().unwrap();
            assert_eq!(of(value).is_multiple(coefficient, exponent), multiple, "{value} {unit}");
        }
    }
}
