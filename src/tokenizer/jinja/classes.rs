//! Python's questions of what a string's characters are.

use super::case;
use super::context::{Class, Context, is_space};
use super::fault::{Done, unsupported};

/// Digits that are no decimal ones, beyond ASCII: Unicode's numeric type `Digit`.
const DIGITS: [(u32, u32); 19] = [
    (0xb2, 0xb3),
    (0xb9, 0xb9),
    (0x1369, 0x1371),
    (0x19da, 0x19da),
    (0x2070, 0x2070),
    (0x2074, 0x2079),
    (0x2080, 0x2089),
    (0x2460, 0x2468),
    (0x2474, 0x247c),
    (0x2488, 0x2490),
    (0x24ea, 0x24ea),
    (0x24f5, 0x24fd),
    (0x24ff, 0x24ff),
    (0x2776, 0x277e),
    (0x2780, 0x2788),
    (0x278a, 0x2792),
    (0x10a40, 0x10a43),
    (0x10e60, 0x10e68),
    (0x1f100, 0x1f10a),
];

fn is_digit(context: &Context<'_>, c: char) -> bool {
    context.is(Class::Decimal, c) || DIGITS.iter().any(|&(from, to)| (from..=to).contains(&u32::from(c)))
}

/// What a method such as `isalpha` says; `None` where it is none of these.
pub(super) fn is(context: &Context<'_>, text: &str, method: &str) -> Done<Option<bool>> {
    let all = |is: &dyn Fn(char) -> bool| Some(!text.is_empty() && text.chars().all(is));
    let cased = |c: char| c.is_uppercase() || c.is_lowercase();
    let ideographs =
        text.chars().any(|c| matches!(u32::from(c), 0x3400..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff));
    if method == "isnumeric" && ideographs {
        return unsupported("str.isnumeric() of ideographs");
    }
    Ok(match method {
        "isspace" => all(&is_space),
        "isalpha" => all(&|c| context.is(Class::Letter, c)),
        "isdecimal" => all(&|c| context.is(Class::Decimal, c)),
        "isdigit" => all(&|c| is_digit(context, c)),
        "isnumeric" => all(&|c| is_digit(context, c) || c.is_numeric()),
        "isalnum" => all(&|c| context.is(Class::Letter, c) || is_digit(context, c) || c.is_numeric()),
        "islower" => Some(text.chars().any(cased) && !text.chars().any(char::is_uppercase)),
        "isupper" => Some(text.chars().any(cased) && !text.chars().any(char::is_lowercase)),
        "istitle" => Some(case::is_title(text)),
        "isascii" => Some(text.is_ascii()),
        "isprintable" => Some(text.chars().all(|c| c == ' ' || !context.is(Class::Hidden, c))),
        "isidentifier" if text.is_ascii() => {
            let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            Some(begins && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        }
        "isidentifier" => return unsupported("str.isidentifier() beyond ASCII"),
        _ => None,
    })
}
