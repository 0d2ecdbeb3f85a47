//! What a template's source is cut into.

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Data(String),
    /// `{{`, `}}`, `{%` and `%}`.
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// What a token is called in an error.
pub(super) fn described(token: &Token) -> String {
    match token {
        Token::Data(_) => "template data / text",
        Token::PrintBegin => "begin of print statement",
        Token::PrintEnd => "end of print statement",
        Token::BlockBegin => "begin of statement block",
        Token::BlockEnd => "end of statement block",
        Token::Name(name) => name,
        Token::Str(_) => "string",
        Token::Int(_) => "integer",
        Token::Float(_) => "float",
        Token::Operator(operator) => operator,
        Token::End => "end of template",
    }
    .to_owned()
}
