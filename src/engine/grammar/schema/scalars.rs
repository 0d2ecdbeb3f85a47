//! Numbers and strings of a branch, as expressions.

use std::rc::Rc;

use super::branch::{Branch, FRACTION, INTEGER, NUMBER, STRING, Scalar};
use super::decimal::Decimal;
use super::json::{Id, Kind, quoted};
use super::number::{self, Bound};
use super::pattern;
use super::rules::Compiler;
use super::rx::{CHAR, Rx};
use crate::schema::MAX_COUNT;

/// The largest number that multiples are counted by, once its powers of ten are taken off.
const MAX_UNIT: u64 = 20_000;
/// The most multiples that are listed one by one.
const MAX_LISTED: i128 = 2_000;
/// The largest integer up to which all are numbers of 64 bits.
const EXACT: i128 = 1 << 53;

/// A number that others are multiples of: so many units of ten to the power of an exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    units: u128,
    exponent: i64,
}

impl Unit {
    /// The least number that is a multiple of both.
    fn with(self, other: Unit) -> Option<Unit> {
        let exponent = self.exponent.min(other.exponent);
        let scaled = |unit: Unit| {
            let zeros = u32::try_from(unit.exponent - exponent).ok()?;
            unit.units.checked_mul(10u128.checked_pow(zeros)?)
        };
        let (a, b) = (scaled(self)?, scaled(other)?);
        let (mut x, mut y) = (a, b);
        while y != 0 {
            (x, y) = (y, x % y);
        }
        let mut unit = Unit { units: (a / x).checked_mul(b)?, exponent };
        while unit.units.is_multiple_of(10) {
            unit = Unit { units: unit.units / 10, exponent: unit.exponent + 1 };
        }
        Some(unit)
    }
}

impl<'a> Compiler<'a> {
    /// The numbers of a branch: an expression, and a schema where they are multiples that no expression tells.
    pub(super) fn numbers(&mut self, branch: &Branch) -> Result<(Option<Rx>, Option<Rc<str>>), String> {
        let types = branch.types & NUMBER;
        if types == 0 {
            return Ok((None, None));
        }
        let decimal = |id: &Id| match Scalar::of(self.document, *id) {
            Some(Scalar::Number(number)) => Some(number),
            _ => None,
        };
        let not: Vec<Decimal> = branch.not.iter().filter_map(decimal).collect();
        if let Some(only) = &branch.only {
            let mut listed: Vec<(Decimal, Id)> = Vec::new();
            for (number, id) in only.iter().filter_map(|id| Some((decimal(id)?, *id))) {
                let kind = if number.is_integer() { INTEGER } else { FRACTION };
                if types & kind != 0 && !not.contains(&number) && self.in_range(branch, &number)? {
                    listed.push((number, id));
                }
            }
            let literals = listed.into_iter().map(|(number, id)| match self.document.kind(id) {
                Kind::Number(text) if !branch.as_integer => Rx::Literal(text.to_string()),
                _ => Rx::Literal(number.plain()),
            });
            let literals: Vec<Rx> = literals.collect();
            return Ok((if literals.is_empty() { None } else { Some(Rx::any(literals)) }, None));
        }
        let integer = types == INTEGER;
        let Some(range) = number::range(branch.low.as_ref(), branch.high.as_ref(), integer) else {
            return Ok((None, None));
        };
        let unit = self.unit(branch, integer)?;
        let bounded = branch.low.is_some() || branch.high.is_some();
        if let Some(unit) = unit {
            return self.multiples(branch, unit, range, &not);
        }
        let mut parts = vec![match types {
            NUMBER if !bounded && not.is_empty() && branch.multiples.is_empty() => {
                Rx::Pattern(number::NUMBER.to_owned())
            }
            _ => Rx::Pattern(range),
        }];
        if types == FRACTION {
            parts.push(Rx::Pattern(r"-?(0|[1-9][0-9]*)\.[0-9]*[1-9][0-9]*".to_owned()));
        }
        parts.extend(not.iter().map(|number| Rx::Pattern(number::equal(number)).not()));
        parts.extend(self.no_multiples(branch)?);
        self.settled(branch, parts).map(|rx| (rx, None))
    }

    /// What is left where all parts match; none, where nothing is.
    fn settled(&mut self, branch: &Branch, parts: Vec<Rx>) -> Result<Option<Rx>, String> {
        let rx = Rx::all(parts);
        if let Rx::All(_) = rx {
            self.pay(200)?;
            let at = branch.multiples.first().map(|(id, _)| *id).or(branch.texts.first().map(|(id, _)| *id));
            let path = at
                .or(branch.not.first().copied())
                .map_or("#".to_owned(), |id| self.document.path(self.document.parent(id)));
            if rx.is_empty().map_err(|e| format!("{path}: {e}"))? {
                return Ok(None);
            }
        }
        Ok(Some(rx))
    }

    fn in_range(&self, branch: &Branch, number: &Decimal) -> Result<bool, String> {
        let above = |low: &Bound| *number > low.at || *number == low.at && !low.strict;
        let below = |high: &Bound| *number < high.at || *number == high.at && !high.strict;
        if !branch.low.as_ref().is_none_or(above) || !branch.high.as_ref().is_none_or(below) {
            return Ok(false);
        }
        for (id, divides) in &branch.multiples {
            let (units, exponent) = self.unit_of(*id)?;
            if number.is_multiple(units, exponent) != *divides {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn refused_multiple<T>(&self, id: Id, why: &str) -> Result<T, String> {
        let path = self.document.path(self.document.parent(id));
        Err(format!("{path}: \"multipleOf\" of {} {why}", self.document.shown(id)))
    }

    fn unit_of(&self, id: Id) -> Result<(u64, i64), String> {
        let number = if let Kind::Number(text) = self.document.kind(id) { Decimal::of(text) } else { None };
        match number.and_then(|number| number.unit()) {
            Some(unit) => Ok(unit),
            None => self.refused_multiple(id, "has more than 19 digits"),
        }
    }

    /// What all numbers of a branch are multiples of, where there is something.
    fn unit(&self, branch: &Branch, integer: bool) -> Result<Option<Unit>, String> {
        let mut all: Option<Unit> = None;
        for (id, divides) in &branch.multiples {
            if !divides {
                continue;
            }
            let (units, exponent) = self.unit_of(*id)?;
            let unit = Unit { units: u128::from(units), exponent };
            let first = all.or(integer.then_some(Unit { units: 1, exponent: 0 }));
            all = Some(match first.map_or(Some(unit), |first| first.with(unit)) {
                Some(unit) => unit,
                None => return self.refused_multiple(*id, "together with others has more than 38 digits"),
            });
        }
        Ok(all)
    }

    /// Expressions for what is no multiple.
    fn no_multiples(&self, branch: &Branch) -> Result<Vec<Rx>, String> {
        let mut parts = Vec::new();
        for (id, divides) in &branch.multiples {
            if !divides {
                let (units, exponent) = self.unit_of(*id)?;
                match number::multiples(units, exponent) {
                    Some(text) => parts.push(Rx::Pattern(text).not()),
                    None => return self.refused_multiple(*id, "is not supported in \"not\""),
                }
            }
        }
        Ok(parts)
    }

    fn multiples(
        &mut self,
        branch: &Branch,
        unit: Unit,
        range: String,
        not: &[Decimal],
    ) -> Result<(Option<Rx>, Option<Rc<str>>), String> {
        let types = branch.types & NUMBER;
        let id = branch.multiples.first().map_or(0, |(id, _)| *id);
        let mut others = self.no_multiples(branch)?;
        others.extend(not.iter().map(|number| Rx::Pattern(number::equal(number)).not()));
        if types == FRACTION {
            others.push(Rx::Pattern(r"-?(0|[1-9][0-9]*)\.[0-9]*[1-9][0-9]*".to_owned()));
        }
        let told = u64::try_from(unit.units).ok().and_then(|units| number::multiples(units, unit.exponent));
        // What is listed is in the range.
        let told = match told {
            Some(text) => Some(vec![Rx::Pattern(text), Rx::Pattern(range)]),
            None => self.listed(branch, unit).map(|listed| vec![listed]),
        };
        if let Some(mut parts) = told {
            if parts == [Rx::Any(Vec::new())] {
                return Ok((None, None));
            }
            parts.append(&mut others);
            return self.settled(branch, parts).map(|rx| (rx, None));
        }
        let whole = unit.units.checked_mul(10u128.checked_pow(unit.exponent.clamp(0, 38) as u32).unwrap_or(u128::MAX));
        let Some(units) = whole.and_then(|n| u64::try_from(n).ok()).filter(|n| *n <= MAX_UNIT) else {
            return self.refused_multiple(id, &format!("is counted in {} steps; at most {MAX_UNIT}", unit.units));
        };
        if !others.is_empty() {
            return self.refused_multiple(id, "is not supported together with \"not\"");
        }
        match self.schema_of_multiples(branch, units, unit.exponent.min(0)) {
            Some(schema) => Ok((None, Some(schema.into()))),
            None => self.refused_multiple(
                id,
                "is not supported: more than 4 places, no exact product with a power of ten as a double (as 0.07 has none), or \
                 bounds beyond 9007199254740992 or of many digits",
            ),
        }
    }

    /// The multiples in a range one by one, where there are few.
    fn listed(&self, branch: &Branch, unit: Unit) -> Option<Rx> {
        let scale = (-unit.exponent).max(0);
        let step = i128::try_from(unit.units).ok()?.checked_mul(10i128.checked_pow(unit.exponent.max(0) as u32)?)?;
        let end = |bound: &Bound, up: bool| {
            // In steps' scale, of which the next whole one is taken.
            let shifted = Decimal::of(&format!("{}e{scale}", bound.at.plain()))?;
            let at = shifted.rounded(up);
            let at = if bound.strict && at == shifted { at.beside(up) } else { at };
            at.scaled(0)
        };
        let low = end(branch.low.as_ref()?, true)?;
        let high = end(branch.high.as_ref()?, false)?;
        let first = low.div_euclid(step) + i128::from(low.rem_euclid(step) != 0);
        let last = high.div_euclid(step);
        if last.checked_sub(first)? >= MAX_LISTED {
            return None;
        }
        let number = |n: i128| Decimal::of(&format!("{}e-{scale}", n * step));
        let integer = branch.types & NUMBER == INTEGER;
        let equal = |n: i128| {
            let number = number(n)?;
            Some(if integer { Rx::Literal(number.plain()) } else { Rx::Pattern(number::equal(&number)) })
        };
        (first..=last).map(equal).collect::<Option<Vec<Rx>>>().map(Rx::Any)
    }

    /// A schema of llguidance's for multiples, without its last brace: it counts them digit by digit in machine numbers.
    fn schema_of_multiples(&self, branch: &Branch, units: u64, exponent: i64) -> Option<String> {
        let integer = branch.types & NUMBER == INTEGER;
        let places = usize::try_from(-exponent).ok()?;
        let digits = format!("{units:0>width$}", width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let multiple = if places == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") };
        // As it counts them: ten times as often as there are places, if the machine's numbers say so too.
        let mut value: f64 = multiple.parse().ok()?;
        for _ in 0..places {
            if value.fract() == 0.0 {
                return None;
            }
            value *= 10.0;
        }
        if value != units as f64 || places > 4 {
            return None;
        }
        let mut schema =
            format!("{{\"type\":\"{}\",\"multipleOf\":{multiple}", if integer { "integer" } else { "number" });
        for (bound, lower) in [(&branch.low, true), (&branch.high, false)] {
            let Some(bound) = bound else { continue };
            let at = match (integer, bound.strict && bound.at.is_integer()) {
                (true, true) => bound.at.beside(lower),
                (true, false) => bound.at.rounded(lower),
                (false, _) => bound.at.clone(),
            };
            let text = at.plain();
            if at.rounded(true).scaled(0).is_none_or(|n| n.abs() > EXACT)
                || format!("{}", text.parse::<f64>().ok()?) != text
            {
                return None;
            }
            let keyword = match (lower, bound.strict && !integer) {
                (true, false) => "minimum",
                (true, true) => "exclusiveMinimum",
                (false, false) => "maximum",
                (false, true) => "exclusiveMaximum",
            };
            schema += &format!(",\"{keyword}\":{text}");
        }
        Some(schema)
    }

    /// The strings of a branch; `None`: there are none.
    pub(super) fn strings(&mut self, branch: &Branch) -> Result<Option<Rx>, String> {
        if branch.types & STRING == 0 {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for (id, matches) in &branch.texts {
            let rx = self.text(*id)?;
            parts.push(if *matches { rx } else { rx.not() });
        }
        let not: Vec<&str> = branch.not.iter().filter_map(|id| self.document.text(*id)).collect();
        if let Some(only) = &branch.only {
            let mut matcher = match parts.is_empty() {
                true => None,
                false => {
                    self.pay(200)?;
                    Some(Rx::all(parts).matcher().map_err(|e| {
                        let id = branch.texts.first().map_or(0, |(id, _)| *id);
                        format!("{}: \"pattern\": {e}", self.document.path(self.document.parent(id)))
                    })?)
                }
            };
            let texts = only.iter().filter_map(|id| self.document.text(*id));
            let long = |text: &str| {
                let n = text.chars().count() as u64;
                n >= branch.min_length && branch.max_length.is_none_or(|most| n <= most)
            };
            let matched = |text: &&str| long(text) && !not.contains(text);
            let literals = texts.filter(matched).map(quoted);
            let literals: Vec<Rx> =
                literals.filter(|text| matcher.as_mut().is_none_or(|m| m.is_match(text))).map(Rx::Literal).collect();
            return Ok(if literals.is_empty() { None } else { Some(Rx::any(literals)) });
        }
        if branch.min_length > MAX_COUNT {
            return Err(format!("#: \"minLength\" is {}; at most {MAX_COUNT}", branch.min_length));
        }
        // No text is as long as what is beyond the largest count.
        let most = branch.max_length.filter(|most| *most <= MAX_COUNT).map(|most| most as u32);
        if branch.min_length > 0 || most.is_some() {
            let chars = Rx::Repeat(Box::new(Rx::Pattern(CHAR.to_owned())), branch.min_length as u32, most);
            parts.push(Rx::string_of(chars));
        }
        if !not.is_empty() {
            parts.push(Rx::any(not.iter().map(|text| Rx::Literal(quoted(text))).collect()).not());
        }
        if parts.iter().all(|part| matches!(part, Rx::Not(_))) {
            parts.push(Rx::any_string());
        }
        if !branch.texts.is_empty() && parts.len() == 1 {
            self.pay(200)?;
            let id = branch.texts[0].0;
            let path = || self.document.path(self.document.parent(id));
            return Ok(if parts[0].is_empty().map_err(|e| format!("{}: {e}", path()))? { None } else { parts.pop() });
        }
        self.settled(branch, parts)
    }

    /// The strings that the value of a `pattern` or `format` tells.
    fn text(&mut self, id: Id) -> Result<Rx, String> {
        if let Some(rx) = self.texts.get(&id) {
            return Ok(rx.clone());
        }
        let text = self.document.text(id).unwrap_or("");
        let owner = self.document.parent(id);
        let is_format = self.document.get(owner, "format") == Some(id);
        let rx = match if is_format { pattern::format(text) } else { None } {
            Some(rx) => rx,
            None => {
                self.pay(text.len() as u64)?;
                pattern::search(text).map_err(|e| format!("{}: \"pattern\": {e}", self.document.path(owner)))?
            }
        };
        self.texts.insert(id, rx.clone());
        Ok(rx)
    }
}
