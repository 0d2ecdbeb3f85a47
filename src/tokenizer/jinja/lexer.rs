//! Cuts a template's source into tokens, as Jinja does with `trim_blocks` and `lstrip_blocks`.

use super::context::is_space;
use super::fault::{Done, raise};
use super::literals;
use super::token::Token;

/// Operators, the longer ones first.
const OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",",
];

/// The source with line ends as Jinja has them, without the last.
pub(super) fn normalized(source: &str) -> String {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    source
}

/// Takes tokens off a source.
pub(super) struct Lexer<'s> {
    source: &'s str,
    at: usize,
    pub line: u32,
    /// What closes the tag that is read, and the brackets in it.
    tag: Option<&'static str>,
    brackets: Vec<&'static str>,
    /// Whether what was read last ends a line.
    line_starting: bool,
    /// What comes behind some data.
    next: Vec<Token>,
}

impl<'s> Lexer<'s> {
    /// One at the beginning of a source that is [`normalized`].
    pub fn new(source: &'s str) -> Lexer<'s> {
        let (brackets, next) = (Vec::new(), Vec::new());
        Lexer { source, at: 0, line: 1, tag: None, brackets, line_starting: true, next }
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// Goes on by so many bytes.
    fn skip(&mut self, n: usize) -> &'s str {
        let taken = self.source.get(self.at..self.at + n).unwrap_or_default();
        self.line += taken.matches('\n').count() as u32;
        self.at += n;
        if !taken.is_empty() {
            self.line_starting = taken.ends_with('\n');
        }
        taken
    }

    /// The next token.
    pub fn token(&mut self) -> Done<Token> {
        if let Some(token) = self.next.pop() {
            return Ok(token);
        }
        match self.tag {
            Some(close) => self.code(close),
            None => self.data(),
        }
    }

    /// Text up to the next tag, and that tag's beginning.
    fn data(&mut self) -> Done<Token> {
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return Ok(Token::End);
            }
            let bytes = rest.as_bytes().windows(2);
            let Some(at) = bytes.into_iter().position(|p| p[0] == b'{' && matches!(p[1], b'{' | b'%' | b'#')) else {
                return Ok(Token::Data(self.skip(rest.len()).to_owned()));
            };
            let (text, tag) = rest.split_at(at);
            let text = self.stripped(text, sign(tag), tag.starts_with("{{")).to_owned();
            let begin = match tag.as_bytes().get(1) {
                Some(b'{') => Some((Token::PrintBegin, "}}")),
                Some(b'%') => match raw_begin(tag) {
                    Some(length) => {
                        self.skip(at + length);
                        let raw = self.raw()?;
                        // Jinja has two tokens here, and nobody can tell.
                        if !text.is_empty() || !raw.is_empty() {
                            return Ok(Token::Data(text + &raw));
                        }
                        continue;
                    }
                    None => Some((Token::BlockBegin, "%}")),
                },
                _ => None,
            };
            self.skip(at + 2 + sign(tag).map_or(0, char::len_utf8));
            match begin {
                Some((token, close)) => {
                    self.tag = Some(close);
                    if text.is_empty() {
                        return Ok(token);
                    }
                    self.next.push(token);
                    return Ok(Token::Data(text));
                }
                None => {
                    self.comment()?;
                    if !text.is_empty() {
                        return Ok(Token::Data(text));
                    }
                }
            }
        }
    }

    /// The text in front of a tag, without what the tag strips off.
    fn stripped<'t>(&self, text: &'t str, sign: Option<char>, prints: bool) -> &'t str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if !prints => {
                let begin = text.rfind('\n').map_or(0, |at| at + 1);
                let (kept, last) = text.split_at(begin);
                if (begin > 0 || self.line_starting) && last.chars().all(is_space) { kept } else { text }
            }
            _ => text,
        }
    }

    fn comment(&mut self) -> Done<()> {
        let Some(at) = self.rest().find("#}") else { return raise("Missing end of comment tag") };
        // A sign in front of the end belongs to it.
        let text = self.rest().get(..at).unwrap_or_default();
        let sign = text.chars().next_back().filter(|c| matches!(c, '-' | '+'));
        self.skip(at);
        self.close("#}", sign);
        Ok(())
    }

    /// Goes over the end of a tag or comment, and what it strips off.
    fn close(&mut self, end: &str, sign: Option<char>) {
        let rest = self.rest().get(end.len()..).unwrap_or_default();
        let blank = match sign {
            Some('-') => rest.find(|c| !is_space(c)).unwrap_or(rest.len()),
            Some(_) => 0,
            None => usize::from(end != "}}" && rest.starts_with('\n')),
        };
        self.skip(end.len() + blank);
    }

    /// Raw text, and the tag that ends it.
    fn raw(&mut self) -> Done<String> {
        let rest = self.rest();
        let end = rest.match_indices("{%").find_map(|(at, _)| Some((at, raw_end(rest.get(at..)?)?)));
        let Some((at, (length, open, close))) = end else { return raise("Missing end of raw directive") };
        let text = self.stripped(rest.get(..at).unwrap_or_default(), open, false).to_owned();
        self.skip(at + length - 2);
        self.close("%}", close);
        Ok(text)
    }

    /// A token in a tag.
    fn code(&mut self, close: &'static str) -> Done<Token> {
        let rest = self.rest();
        let blank = rest.find(|c| !is_space(c)).unwrap_or(rest.len());
        self.skip(blank);
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(Token::End);
        }
        if self.brackets.is_empty() {
            let sign = rest.chars().next().filter(|&c| c == '-' || (c == '+' && close == "%}"));
            let signed = rest.get(sign.map_or(0, char::len_utf8)..).unwrap_or_default();
            if signed.starts_with(close) {
                self.skip(rest.len() - signed.len());
                self.close(close, sign);
                self.tag = None;
                return Ok(if close == "}}" { Token::PrintEnd } else { Token::BlockEnd });
            }
        }
        let before = self.source.get(..self.at).unwrap_or_default();
        if let Some((number, length)) = literals::number(rest, before.ends_with('.')) {
            self.skip(length);
            return number;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if let Some(length) = Some(rest.find(|c| !is_word(c)).unwrap_or(rest.len())).filter(|&n| n > 0) {
            let name = self.skip(length);
            if name.starts_with(|c: char| c.is_numeric()) {
                return raise("Invalid character in identifier");
            }
            return Ok(Token::Name(name.to_owned()));
        }
        if let Some((length, inside)) = literals::string(rest) {
            self.skip(length);
            return literals::unescape(inside).map(Token::Str);
        }
        self.operator(rest)
    }

    fn operator(&mut self, rest: &str) -> Done<Token> {
        let Some(operator) = OPERATORS.into_iter().chain([";"]).find(|operator| rest.starts_with(operator)) else {
            let before = self.source.get(..self.at).unwrap_or_default().chars().count();
            let c = rest.chars().next().unwrap_or_default();
            let shown = if c == '\'' { "\"'\"".to_owned() } else { format!("'{c}'") };
            return raise(format!("unexpected char {shown} at {before}"));
        };
        match operator {
            "{" => self.brackets.push("}"),
            "(" => self.brackets.push(")"),
            "[" => self.brackets.push("]"),
            "}" | ")" | "]" => match self.brackets.pop() {
                Some(expected) if expected == operator => {}
                Some(expected) => return raise(format!("unexpected '{operator}', expected '{expected}'")),
                None => return raise(format!("unexpected '{operator}'")),
            },
            _ => {}
        }
        self.skip(operator.len());
        Ok(Token::Operator(operator))
    }
}

/// The sign behind a tag's two opening characters.
fn sign(tag: &str) -> Option<char> {
    tag.chars().nth(2).filter(|c| matches!(c, '-' | '+'))
}

/// How long `{% raw %}` is, with what it strips off, where a tag is that.
fn raw_begin(tag: &str) -> Option<usize> {
    let inside = tag.get(2 + usize::from(sign(tag).is_some())..)?.trim_start_matches(is_space);
    let end = inside.strip_prefix("raw")?.trim_start_matches(is_space);
    let behind = match end.strip_prefix("-%}") {
        Some(behind) => behind.trim_start_matches(is_space),
        None => end.strip_prefix("%}")?,
    };
    Some(tag.len() - behind.len())
}

/// How long `{% endraw %}` is, with its signs, where a tag is that.
fn raw_end(tag: &str) -> Option<(usize, Option<char>, Option<char>)> {
    let open = sign(tag);
    let inside = tag.get(2 + usize::from(open.is_some())..)?.trim_start_matches(is_space);
    let end = inside.strip_prefix("endraw")?.trim_start_matches(is_space);
    let close = end.chars().next().filter(|c| matches!(c, '-' | '+'));
    let behind = end.get(usize::from(close.is_some())..)?.strip_prefix("%}")?;
    Some((tag.len() - behind.len(), open, close))
}
