//! Text to tokens.
use super::TextError;
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A bare word.
    Word(String),
    /// A word in quotes.
    Quoted(String),
    /// `@name` or `@"name"`.
    At(String),
    /// `%name`.
    Value(String),
    /// Digits, with a sign, a point or an exponent perhaps, and `-inf`.
    Number(String),
    Mark(char),
    Newline,
    End,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Word(s) | Kind::Number(s) => write!(f, "`{s}`"),
            Kind::Quoted(s) => write!(f, "{}", quoted(s)),
            Kind::At(s) => write!(f, "`@{s}`"),
            Kind::Value(s) => write!(f, "`%{s}`"),
            Kind::Mark(c) => write!(f, "`{c}`"),
            Kind::Newline => f.write_str("the end of the line"),
            Kind::End => f.write_str("the end of the text"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    pub line: usize,
    pub column: usize,
}

pub(crate) fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}
/// Characters of a word after the first, and of names behind `@` and `%`.
pub(crate) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// A name as a quoted string that lexes back to it.
pub(crate) fn quoted(s: &str) -> String {
    let escaped = s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    column: usize,
}

/// All tokens of a text; the last one is `End`.
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, TextError> {
    let mut lexer = Lexer { rest: text.chars().peekable(), line: 1, column: 1 };
    let mut tokens = vec![];
    loop {
        lexer.skip_blanks();
        let (line, column) = (lexer.line, lexer.column);
        let kind = lexer.token()?;
        let end = kind == Kind::End;
        tokens.push(Token { kind, line, column });
        if end {
            return Ok(tokens);
        }
    }
}

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        Some(c)
    }
    fn take_while(&mut self, mut keep: impl FnMut(char) -> bool) -> String {
        let mut s = String::new();
        while let Some(c) = self.peek().filter(|c| keep(*c)) {
            s.push(c);
            self.next();
        }
        s
    }
    fn skip_blanks(&mut self) {
        self.take_while(|c| c != '\n' && c.is_whitespace());
        if self.peek() == Some(';') {
            self.take_while(|c| c != '\n');
        }
    }
    fn fail<T>(&self, found: String, expected: &str) -> Result<T, TextError> {
        Err(TextError { line: self.line, column: self.column, found, expected: expected.into(), near: None })
    }

    fn token(&mut self) -> Result<Kind, TextError> {
        let Some(c) = self.peek() else { return Ok(Kind::End) };
        match c {
            '\n' => {
                self.next();
                Ok(Kind::Newline)
            }
            '"' => Ok(Kind::Quoted(self.string()?)),
            '@' => {
                self.next();
                Ok(Kind::At(if self.peek() == Some('"') { self.string()? } else { self.name()? }))
            }
            '%' => {
                self.next();
                Ok(Kind::Value(self.name()?))
            }
            '-' | '0'..='9' => Ok(Kind::Number(self.number())),
            '[' | ']' | '{' | '}' | '(' | ')' | ',' | ':' | '=' | '*' | '+' | '~' => {
                self.next();
                Ok(Kind::Mark(c))
            }
            c if is_word_start(c) => Ok(Kind::Word(self.take_while(is_name))),
            c => self.fail(format!("`{}`", c.escape_default()), "a statement"),
        }
    }

    fn name(&mut self) -> Result<String, TextError> {
        let name = self.take_while(is_name);
        if name.is_empty() { self.fail("no name".into(), "a name after `@` or `%`") } else { Ok(name) }
    }

    /// A sign may follow an exponent's `e`.
    fn number(&mut self) -> String {
        let mut before = ' ';
        self.take_while(|c| {
            let sign = matches!((before, c), (' ', '-') | ('e' | 'E', '-' | '+'));
            before = c;
            sign || is_name(c)
        })
    }

    fn string(&mut self) -> Result<String, TextError> {
        self.next();
        let mut s = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => return self.fail("the end of the line".into(), "a closing `\"`"),
                Some('"') => {
                    self.next();
                    return Ok(s);
                }
                Some('\\') => {
                    self.next();
                    match self.peek() {
                        Some('n') => s.push('\n'),
                        Some(c @ ('"' | '\\')) => s.push(c),
                        _ => return self.fail("an unknown escape".into(), "`\\\"`, `\\\\` or `\\n`"),
                    }
                }
                Some(c) => s.push(c),
            }
            self.next();
        }
    }
}
