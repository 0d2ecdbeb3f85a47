//! Weighs a chat template's source before it is compiled.
//!
//! The template engine's parser, compiler and syntax tree recurse once for every link of a chain (`not not x`, `a ~ b`,
//! `x.a.b`, `elif`), and its compiler looks again at all that is below a node for every node above it. So what a source
//! would take is counted first, in its tokens: more than there is, never less. What usual templates have is a small
//! part of each limit.

use minijinja::machinery::{Token, Tokenizer, WhitespaceConfig};

/// Bytes of a source.
const MAX_BYTES: u64 = 256 << 10;
/// Bytes of one line: the engine counts columns in 16 bits.
const MAX_LINE: u64 = 60_000;
/// Tokens of a source.
const MAX_TOKENS: u64 = 50_000;
/// Operators, names and brackets in one another in one expression.
pub(super) const MAX_CHAIN: u64 = 400;
/// Blocks in one another, an `elif` being one in the `if` before it.
pub(super) const MAX_BLOCKS: u64 = 300;
/// Looks that the compiler takes at the parts of expressions, where strings count by their bytes.
const MAX_FOLDING: u64 = 10_000_000;
/// Looks that it takes for variables of macros in macros.
const MAX_CAPTURES: u64 = 5_000_000;

/// What a source has more of than it may.
#[derive(Debug)]
pub(super) struct Excess {
    pub found: u64,
    pub limit: u64,
    /// What it is that was counted.
    pub what: &'static str,
}

/// How Hugging Face's templates treat white space around tags.
pub(super) fn spaces() -> WhitespaceConfig {
    WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true }
}

fn check(found: u64, limit: u64, what: &'static str) -> Result<(), Excess> {
    if found > limit { Err(Excess { found, limit, what }) } else { Ok(()) }
}

/// What stands between two brackets so far.
#[derive(Default)]
struct Level {
    /// Links of the chain that is now read.
    links: u64,
    /// The deepest of what stood in brackets in it.
    inner: u64,
    /// The deepest of the chains before it, up to commas.
    deepest: u64,
}

impl Level {
    fn end_chain(&mut self) {
        self.deepest = self.deepest.max(self.links + self.inner);
        (self.links, self.inner) = (0, 0);
    }
}

/// The tag that is now read.
#[derive(Default)]
struct Tag {
    levels: Vec<Level>,
    tokens: u64,
    string_bytes: u64,
    keyword: Keyword,
    assigns: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Keyword {
    #[default]
    None,
    Open,
    OpenMacro,
    Set,
    Elif,
    Close,
}

impl Tag {
    fn begin(&mut self) {
        *self = Tag { levels: vec![Level::default()], ..Tag::default() };
    }

    fn token(&mut self, token: &Token<'_>) {
        self.tokens += 1;
        let outermost = self.levels.len() == 1;
        let Some(level) = self.levels.last_mut() else { return };
        match token {
            Token::Str(text) => self.string_bytes += text.len() as u64,
            Token::String(text) => self.string_bytes += text.len() as u64,
            _ => {}
        }
        match token {
            Token::Comma | Token::Colon => level.end_chain(),
            Token::Assign => {
                self.assigns |= outermost;
                level.end_chain();
            }
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                level.links += 1;
                self.levels.push(Level::default());
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose if !outermost => self.close(),
            _ => level.links += 1,
        }
    }

    /// Ends the innermost bracket.
    fn close(&mut self) {
        let Some(mut level) = self.levels.pop() else { return };
        level.end_chain();
        if let Some(outer) = self.levels.last_mut() {
            outer.inner = outer.inner.max(level.deepest);
        } else {
            self.levels.push(level);
        }
    }

    /// The depth of all of it, with brackets that are still open taken for closed.
    fn depth(&mut self) -> u64 {
        while self.levels.len() > 1 {
            self.close();
        }
        self.levels.first_mut().map_or(0, |level| {
            level.end_chain();
            level.deepest
        })
    }
}

/// What has been read.
#[derive(Default)]
struct Weight {
    tokens: u64,
    tag: Tag,
    /// For each open block how many `elif` it has, and whether it is a macro.
    open: Vec<(u64, bool)>,
    folding: u64,
    captures: u64,
}

impl Weight {
    fn end_tag(&mut self) -> Result<(), Excess> {
        let depth = self.tag.depth();
        check(depth, MAX_CHAIN, "links in one chain of operators, names and brackets")?;
        let looks = self.tag.tokens.saturating_mul(depth).saturating_mul(1 + self.tag.string_bytes / 64);
        self.folding = self.folding.saturating_add(looks);
        check(self.folding, MAX_FOLDING, "steps to fold its constants")?;
        let macros = self.open.iter().filter(|(_, is_macro)| *is_macro).count() as u64;
        let blocks = self.open.iter().map(|(elifs, _)| 1 + elifs).sum::<u64>() + 1;
        self.captures = self.captures.saturating_add(macros.saturating_mul(blocks).saturating_mul(self.tag.tokens));
        check(self.captures, MAX_CAPTURES, "steps to find its macros' variables")?;
        match self.tag.keyword {
            Keyword::Open => self.open.push((0, false)),
            Keyword::OpenMacro => self.open.push((0, true)),
            Keyword::Set if !self.tag.assigns => self.open.push((0, false)),
            Keyword::Elif => {
                if let Some((elifs, _)) = self.open.last_mut() {
                    *elifs += 1;
                }
            }
            Keyword::Close => {
                self.open.pop();
            }
            Keyword::Set | Keyword::None => {}
        }
        let blocks = self.open.iter().map(|(elifs, _)| 1 + elifs).sum();
        check(blocks, MAX_BLOCKS, "blocks in one another, each elif being one in the one before")
    }
}

fn keyword(name: &str) -> Keyword {
    match name {
        "macro" | "call" => Keyword::OpenMacro,
        "for" | "if" | "with" | "filter" | "block" | "autoescape" => Keyword::Open,
        "set" => Keyword::Set,
        "elif" => Keyword::Elif,
        name if name.starts_with("end") => Keyword::Close,
        _ => Keyword::None,
    }
}

/// Fails if it is too long to be looked at.
pub(super) fn weigh_bytes(source: &str) -> Result<(), Excess> {
    check(source.len() as u64, MAX_BYTES, "bytes")
}

/// Fails with the first thing that there is too much of. What is no template passes as far as it is one: the parser
/// goes no further either, and says what is wrong.
pub(super) fn weigh(source: &str) -> Result<(), Excess> {
    weigh_bytes(source)?;
    let longest = source.split('\n').map(str::len).max().unwrap_or(0);
    check(longest as u64, MAX_LINE, "bytes in one line")?;
    let mut tokenizer = Tokenizer::new(source, "chat_template", false, Default::default(), spaces());
    let mut weight = Weight::default();
    let (mut inside, mut statement) = (false, false);
    while let Ok(Some((token, _))) = tokenizer.next_token() {
        weight.tokens += 1;
        check(weight.tokens, MAX_TOKENS, "tokens")?;
        match &token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => {
                weight.tag.begin();
                (inside, statement) = (true, matches!(token, Token::BlockStart));
            }
            Token::VariableEnd | Token::BlockEnd => {
                weight.end_tag()?;
                inside = false;
            }
            token => {
                if let (true, 0, Token::Ident(name)) = (statement, weight.tag.tokens, token) {
                    weight.tag.keyword = keyword(name);
                }
                weight.tag.token(token);
            }
        }
    }
    if inside { weight.end_tag() } else { Ok(()) }
}
