//! What a grammar's expressions may take at one byte, told from what the parser has made of them, before it runs them.
//!
//! The parser's fuel bounds what it does over many bytes, but it is looked at between bytes only, and not at all for the
//! first one: a sequence of n parts that may each be left out takes n^2. Invariant: of a grammar within the limits, the
//! derivatives of all expressions by all bytes take no more steps and entries than [`MAX_STEPS`]. Numbers that refer to
//! llguidance 1.9.1 and derivre 0.3.13, whose versions Cargo.toml fixes.

use llguidance::api::ParserLimits;
use llguidance::derivre::ExprRef;
use llguidance::derivre::raw::ExprSet;
use llguidance::earley::Grammar;
use llguidance::earley::lexerspec::LexerSpec;

use super::cost::at_most;

/// Steps and table entries for the first byte (0.2 microseconds and 30 bytes each were measured).
const MAX_STEPS: u64 = 4_000_000;
/// Expressions, each a node.
const MAX_NODES: u64 = 1_000_000;
/// Lexemes; each new one is compared with all before it.
pub(super) const MAX_LEXEMES: u64 = 20_000;
/// Bytes of the parser's table of lexer states: what a mask may add.
const STATE_TABLE_BYTES: usize = 96 << 20;
/// Symbols, which the parser numbers in 16 bits.
const MAX_SYMBOLS: u64 = 65_000;
/// Comparisons for one lexeme (0.3 ns each were measured).
const MAX_ROW_STEPS: u64 = 6_000_000_000;
/// Comparisons from which on a lexeme is watched.
const WIDE: u64 = 20_000_000;
/// Items that the parser holds for the tokens of a session.
pub(super) const MAX_ITEMS: u64 = 4_000_000;

/// The parser's own limits, of a compile and of a token.
pub(super) fn limits() -> ParserLimits {
    ParserLimits {
        // More symbols than this are refused, since the parser numbers what is left of them in 16 bits.
        max_grammar_size: 250_000,
        initial_lexer_fuel: 1_000_000,
        // What a mask takes that needs every word of a list of thousands.
        step_lexer_fuel: 1_000_000,
        step_max_items: 50_000,
        max_items_in_row: 2000,
        max_lexer_states: 50_000,
        // Its states are unlimited; a mask makes what it needs.
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// How the parser tags its expressions.
mod tag {
    pub const BYTE: u8 = 3;
    pub const BYTE_SET: u8 = 4;
    pub const BYTE_CONCAT: u8 = 5;
    pub const REPEAT: u8 = 9;
    pub const CONCAT: u8 = 10;
    pub const OR: u8 = 11;
}

/// A set of classes of bytes.
type Set = [u64; 4];

fn union(a: Set, b: Set) -> Set {
    [a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]]
}

fn count(a: Set) -> u64 {
    a.iter().map(|w| u64::from(w.count_ones())).sum()
}

/// Bytes that no expression tells apart are one class.
struct Classes {
    of: [u8; 256],
    n: usize,
}

impl Classes {
    /// Each byte of the text is a class, since literals in it are told apart.
    fn new(text: &str) -> Classes {
        let mut classes = Classes { of: [0; 256], n: 1 };
        let mut seen = [false; 256];
        for b in text.bytes() {
            if !seen[usize::from(b)] {
                seen[usize::from(b)] = true;
                for b in [b, b.to_ascii_lowercase(), b.to_ascii_uppercase()] {
                    classes.split(|other| other == b);
                }
            }
        }
        classes
    }

    fn all(&self) -> Set {
        std::array::from_fn(|i| (0..64).filter(|bit| i * 64 + bit < self.n).fold(0, |word, bit| word | 1 << bit))
    }

    fn split(&mut self, inside: impl Fn(u8) -> bool) {
        let mut into = [None; 256];
        let mut outside = [false; 256];
        for b in 0..=255u8 {
            outside[usize::from(self.of[usize::from(b)])] |= !inside(b);
        }
        for b in 0..=255u8 {
            let class = &mut self.of[usize::from(b)];
            if inside(b) && outside[usize::from(*class)] {
                let n = self.n;
                let new = *into[usize::from(*class)].get_or_insert(n as u8);
                self.n = self.n.max(usize::from(new) + 1);
                *class = new;
            }
        }
    }
}

/// What the parser may do for one more lexeme: predict each rule that a place of any rule may begin with, each time looking
/// through all places. `deterministic`: only a few of them are ever there at a time. Gives whether they are many.
pub(super) fn rows(symbols: &Grammar, deterministic: bool) -> Result<bool, String> {
    at_most(symbols.num_symbols() as u64, MAX_SYMBOLS, "symbols that the text comes to")?;
    let lexer = LexerSpec::new().map_err(|e| e.to_string())?;
    let compiled = symbols.compile(lexer, &limits()).map_err(|e| e.to_string())?;
    let (mut places, mut predictions) = (0u64, 0u64);
    let mut seen = vec![false; symbols.num_symbols() + 8];
    let mut left = vec![compiled.start()];
    while let Some(symbol) = left.pop() {
        match seen.get_mut(symbol.as_index()) {
            Some(seen) if !*seen => *seen = true,
            _ => continue,
        }
        for rule in compiled.rules_of(symbol) {
            let (parts, _, _) = compiled.rule_rhs(*rule);
            places += parts.len() as u64 + 1;
            predictions += parts.iter().map(|part| compiled.rules_of(*part).len() as u64).sum::<u64>();
            left.extend_from_slice(parts);
        }
    }
    let steps = places.saturating_mul(predictions);
    if !deterministic {
        at_most(steps, MAX_ROW_STEPS, "places of rules times alternatives to be predicted there")?;
    }
    Ok(steps > WIDE)
}

/// What an expression comes to.
#[derive(Clone, Copy, Default)]
struct Node {
    /// What it may begin with.
    first: Set,
    /// Alternatives of its derivatives, by all classes together.
    options: u64,
    /// Parts of it in a row, and of a derivative of it.
    len: u64,
    derived: u64,
}

fn is_leaf(tag: u8) -> bool {
    tag == tag::BYTE || tag == tag::BYTE_SET
}

/// The classes of bytes that a text and its expressions tell apart.
fn classes_of(exprs: &ExprSet, text: &str) -> Classes {
    let mut classes = Classes::new(text);
    for id in (1..exprs.len() as u32).map(ExprRef::new) {
        if is_leaf(exprs.get_tag(id) as u8) && classes.n < 256 {
            let expr = exprs.get(id);
            classes.split(|b| expr.matches_byte(b));
        }
    }
    classes
}

/// The limit that the expressions of a text exceed. What is returned is the limit of lexer states.
pub(super) fn check(exprs: &ExprSet, n_lexemes: usize, text: &str) -> Result<usize, String> {
    let n = exprs.len();
    at_most(n as u64, MAX_NODES, "expressions that the text comes to")?;
    at_most(n_lexemes as u64, MAX_LEXEMES, "terminals that the text comes to")?;
    let classes = classes_of(exprs, text);
    let ids = || (1..n as u32).map(ExprRef::new);
    let mut nodes = vec![Node::default(); n];
    let (mut steps, mut visits) = (0u64, 0u64);
    for id in ids() {
        let tag = exprs.get_tag(id) as u8;
        let args = exprs.get_args(id);
        let of = |id: ExprRef| nodes[id.as_usize()];
        let mut node = Node { len: 1, ..Node::default() };
        let mut copied = 0;
        match tag {
            tag::BYTE | tag::BYTE_SET | tag::BYTE_CONCAT => {
                let expr = exprs.get(id);
                for b in 0..=255u8 {
                    if !expr.surely_no_match(b) {
                        let class = classes.of[usize::from(b)];
                        node.first[usize::from(class / 64)] |= 1 << (class % 64);
                    }
                }
                if tag == tag::BYTE_CONCAT {
                    node.len += args.first().map_or(0, |tail| of(*tail).len);
                    node.derived = node.len;
                }
                node.options = count(node.first);
            }
            tag::CONCAT if args.len() == 2 => {
                let (a, b) = (of(args[0]), of(args[1]));
                node.first = a.first;
                node.options = count(a.first);
                node.len = a.len.saturating_add(b.len);
                node.derived = a.derived.saturating_add(b.len);
                if exprs.is_nullable(args[0]) {
                    node.first = union(a.first, b.first);
                    node.options = node.options.saturating_add(b.options);
                    node.derived = node.derived.max(b.derived);
                }
                copied = count(a.first).saturating_mul(a.derived);
            }
            tag::REPEAT if args.len() == 1 => {
                let a = of(args[0]);
                node.first = a.first;
                node.options = count(a.first);
                node.derived = a.derived.saturating_add(1);
                copied = count(a.first).saturating_mul(a.derived);
            }
            tag::OR => {
                for arg in args {
                    let a = of(*arg);
                    node.first = union(node.first, a.first);
                    node.options = node.options.saturating_add(a.options);
                    node.derived = node.derived.max(a.derived);
                }
            }
            _ => {
                // What must all match, must not, and remainders of digits: an expression again, by any byte.
                node.first = classes.all();
                node.options = classes.n as u64;
                node.derived = 1;
            }
        }
        if !is_leaf(tag) && tag != tag::BYTE_CONCAT {
            let inside = args.iter().filter(|arg| exprs.get_tag(**arg) as u8 <= tag::BYTE_CONCAT).count() as u64;
            visits = visits.saturating_add(1 + inside);
            steps = steps.saturating_add(node.options).saturating_add(copied);
        }
        nodes[id.as_usize()] = node;
    }
    let all = steps.saturating_add(visits.saturating_mul(classes.n as u64));
    at_most(all, MAX_STEPS, "steps that the expressions may take at one byte")?;
    let state_bytes = classes.n * 4 + n_lexemes / 8 + 320;
    Ok((STATE_TABLE_BYTES / state_bytes).clamp(2000, limits().max_lexer_states))
}

#[cfg(test)]
mod tests {
    use super::*;
    use llguidance::derivre::RegexBuilder;

    fn weigh(text: &str) -> Result<usize, String> {
        let mut builder = RegexBuilder::new();
        builder.mk_regex(text).unwrap();
        check(builder.exprset(), 1, text)
    }

    /// The tags are the dependency's, which does not name them for others.
    #[test]
    fn tags_are_as_the_parser_has_them() {
        let mut builder = RegexBuilder::new();
        let mut tag = |text: &str| {
            let id = builder.mk_regex(text).unwrap();
            builder.exprset().get_tag(id) as u8
        };
        assert_eq!(tag("a"), tag::BYTE);
        assert_eq!(tag("[ab]"), tag::BYTE_SET);
        assert_eq!(tag("abc"), tag::BYTE_CONCAT);
        assert_eq!(tag("[ab]*"), tag::REPEAT);
        assert_eq!(tag("[ab]*c"), tag::CONCAT);
        assert_eq!(tag("[ab]*c|d"), tag::OR);
    }

    #[test]
    fn classes_are_what_expressions_tell_apart() {
        let mut classes = Classes::new("");
        classes.split(|b| b.is_ascii_lowercase());
        classes.split(|b| b.is_ascii_alphabetic());
        classes.split(|b| b < 128);
        assert_eq!(classes.n, 4);
        let mut all = Classes::new("");
        (0..=255).for_each(|b| all.split(|c| c == b));
        assert_eq!((all.n, count(all.all()), count(classes.all())), (256, 256, 4));
    }

    #[test]
    fn what_may_be_left_out_in_a_row_counts_squared() {
        weigh(&"a*".repeat(1000)).unwrap();
        weigh(&"[a-z]?".repeat(1000)).unwrap();
        weigh(&"abc[de]".repeat(4000)).unwrap();
        let error = weigh(&"a*".repeat(4000)).unwrap_err();
        assert!(error.starts_with("steps that the expressions may take at one byte: 8"), "{error}");
    }
}
