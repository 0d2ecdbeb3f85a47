//! Python's mappings between upper and lower case.

/// Characters whose form at a word's beginning is one of their own: the form, then those that become it.
const DIGRAPHS: [(char, &str); 4] = [
    ('\u{1c5}', "\u{1c4}\u{1c5}\u{1c6}"),
    ('\u{1c8}', "\u{1c7}\u{1c8}\u{1c9}"),
    ('\u{1cb}', "\u{1ca}\u{1cb}\u{1cc}"),
    ('\u{1f2}', "\u{1f1}\u{1f2}\u{1f3}"),
];

/// A character at a word's beginning.
fn title_char(c: char, out: &mut String) {
    if let Some((title, _)) = DIGRAPHS.iter().find(|(_, forms)| forms.contains(c)) {
        return out.push(*title);
    }
    let number = u32::from(c);
    let own = match number {
        // Georgian has capitals for headings only.
        0x10d0..=0x10ff => Some(number),
        // Greek with an iota below: eight small ones, then their forms at a beginning.
        0x1f80..=0x1faf => Some(number | 8),
        0x1fb3 | 0x1fc3 | 0x1ff3 => Some(number + 9),
        0x1fbc | 0x1fcc | 0x1ffc => Some(number),
        _ => None,
    };
    if let Some(own) = own.and_then(char::from_u32) {
        return out.push(own);
    }
    let mut upper = c.to_uppercase();
    let first = upper.next().unwrap_or(c);
    out.push(first);
    // One that becomes several goes on in lower case, unless it begins with a mark.
    let keeps = !first.is_uppercase();
    upper.for_each(|c| if keeps { out.push(c) } else { out.extend(c.to_lowercase()) });
}

fn is_cased(c: char) -> bool {
    c.is_uppercase() || c.is_lowercase() || DIGRAPHS.iter().any(|(title, _)| *title == c)
}

/// `str.title`.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let lower = text.to_lowercase();
    // In lower case a final sigma looks at what stands around it, which characters one by one do not.
    let same = lower.chars().count() == text.chars().count();
    let mut lowered = lower.chars();
    let mut inside = false;
    for c in text.chars() {
        let small = lowered.next();
        match (inside, small) {
            (true, Some(small)) if same => out.push(small),
            (true, _) => out.extend(c.to_lowercase()),
            (false, _) => title_char(c, &mut out),
        }
        inside = is_cased(c);
    }
    out
}

/// `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let Some(first) = text.chars().next() else { return out };
    title_char(first, &mut out);
    let rest = text.get(first.len_utf8()..).unwrap_or_default();
    let lower = text.to_lowercase();
    let first_lower: String = first.to_lowercase().collect();
    out.push_str(lower.strip_prefix(first_lower.as_str()).unwrap_or(rest));
    out
}

/// `str.swapcase`.
pub(super) fn swap(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

/// Jinja's filter `title`: at blanks, hyphens and opening brackets.
pub(super) fn title_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let is_break = |c: char| matches!(c, '-' | '(' | '{' | '[' | '<') || super::context::is_space(c);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let breaks = is_break(first);
        let end = rest.find(|c| is_break(c) != breaks).unwrap_or(rest.len());
        let (part, behind) = rest.split_at(end);
        out.extend(first.to_uppercase());
        out.push_str(&part.get(first.len_utf8()..).unwrap_or_default().to_lowercase());
        rest = behind;
    }
    out
}

/// `str.istitle`.
pub(super) fn is_title(text: &str) -> bool {
    let (mut inside, mut any) = (false, false);
    for c in text.chars() {
        let begins = c.is_uppercase() || DIGRAPHS.iter().any(|(title, _)| *title == c);
        if begins && inside || c.is_lowercase() && !begins && !inside {
            return false;
        }
        inside = is_cased(c);
        any |= inside;
    }
    any
}
