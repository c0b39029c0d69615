//! Cuts PTX text into tokens, each with its line. Names keep their dots, so an opcode with its modifiers is one token.
use crate::parse::ParseError;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'t> {
    /// A name, a directive or an opcode: `%r1`, `.reg`, `ld.global.nc.L1::no_allocate.f32`.
    Name(&'t str),
    /// An integer as its 64 bits; the sign stands in a token of its own.
    Int(u64),
    F32(u32),
    F64(u64),
    Text(&'t str),
    /// One of `, ; : { } ( ) [ ] < > @ ! | + - =`.
    Sign(u8),
}

#[derive(Clone, Copy, Debug)]
pub struct Spanned<'t> {
    pub token: Token<'t>,
    pub line: u32,
}

const SIGNS: &[u8] = b",;:{}()[]<>@!|+-=";

fn starts_name(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn goes_on(c: u8) -> bool {
    starts_name(c) || c.is_ascii_digit()
}

/// All tokens of a text. Comments and white space are gone.
pub fn lex(text: &str) -> Result<Vec<Spanned<'_>>, ParseError> {
    let bytes = text.as_bytes();
    // The assembler takes no other characters, not even in comments.
    if let Some(at) = bytes.iter().position(|c| !c.is_ascii()) {
        let line = 1 + bytes[..at].iter().filter(|&&c| c == b'\n').count() as u32;
        let shown = text.get(at..).and_then(|t| t.chars().next()).unwrap_or('?');
        return Err(ParseError::new(line, format!("the character {shown:?}"), "PTX is ASCII, in its comments as well"));
    }
    let (mut out, mut i, mut line) = (vec![], 0, 1);
    while i < bytes.len() {
        let c = bytes[i];
        match c {
            b'\n' => (line, i) = (line + 1, i + 1),
            _ if c.is_ascii_whitespace() => i += 1,
            b'/' if bytes.get(i + 1) == Some(&b'/') => i += bytes[i..].iter().take_while(|&&c| c != b'\n').count(),
            b'/' if bytes.get(i + 1) == Some(&b'*') => {
                let end = text.get(i + 2..).and_then(|t| t.find("*/"));
                let end = end.ok_or_else(|| ParseError::new(line, "a comment without end", "close it with */"))?;
                line += bytes[i..i + 2 + end].iter().filter(|&&c| c == b'\n').count() as u32;
                i += end + 4;
            }
            b'"' => {
                let end = bytes[i + 1..].iter().position(|&c| c == b'"' || c == b'\n');
                let end = end.filter(|e| bytes[i + 1 + e] == b'"');
                let end = end.ok_or_else(|| ParseError::new(line, "a string without end", "close it with \""))?;
                out.push(Spanned { token: Token::Text(&text[i + 1..i + 1 + end]), line });
                i += end + 2;
            }
            _ if starts_name(c) => {
                let end = name_end(bytes, i);
                out.push(Spanned { token: Token::Name(&text[i..end]), line });
                i = end;
            }
            _ if c.is_ascii_digit() => {
                let end = number_end(bytes, i);
                out.push(Spanned { token: number(&text[i..end], line)?, line });
                i = end;
            }
            _ if SIGNS.contains(&c) => {
                out.push(Spanned { token: Token::Sign(c), line });
                i += 1;
            }
            _ => {
                return Err(ParseError::new(
                    line,
                    format!("the character {:?}", c as char),
                    "PTX text has none like it",
                ));
            }
        }
    }
    Ok(out)
}

/// Where a name ends. `::` belongs to it, a single colon (that of a label) does not.
fn name_end(bytes: &[u8], start: usize) -> usize {
    let mut i = start + 1;
    loop {
        match bytes.get(i) {
            Some(&c) if goes_on(c) => i += 1,
            Some(b':') if bytes.get(i + 1) == Some(&b':') && bytes.get(i + 2).is_some_and(|&c| goes_on(c)) => i += 2,
            _ => return i,
        }
    }
}

fn number_end(bytes: &[u8], start: usize) -> usize {
    let mut i = start;
    let hex = bytes[start] == b'0' && matches!(bytes.get(start + 1), Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
    while let Some(&c) = bytes.get(i) {
        let exponent = !hex && matches!(c, b'+' | b'-') && matches!(bytes[i - 1], b'e' | b'E') && i > start;
        if c.is_ascii_alphanumeric() || c == b'.' || exponent {
            i += 1;
        } else {
            break;
        }
    }
    i
}

fn number(text: &str, line: u32) -> Result<Token<'_>, ParseError> {
    let wrong = |_| ParseError::new(line, format!("the number `{text}`"), "write 12, 0x1f, 0f3F800000, 0d… or 1.5");
    let digits = text.get(2..).unwrap_or("");
    match text.get(..2).unwrap_or("") {
        "0f" | "0F" => match digits.len() {
            8 => u32::from_str_radix(digits, 16).map(Token::F32).map_err(|_| wrong(())),
            _ => Err(wrong(())),
        },
        "0d" | "0D" => match digits.len() {
            16 => u64::from_str_radix(digits, 16).map(Token::F64).map_err(|_| wrong(())),
            _ => Err(wrong(())),
        },
        "0x" | "0X" => {
            u64::from_str_radix(digits.trim_end_matches(['U', 'u']), 16).map(Token::Int).map_err(|_| wrong(()))
        }
        "0b" | "0B" => {
            u64::from_str_radix(digits.trim_end_matches(['U', 'u']), 2).map(Token::Int).map_err(|_| wrong(()))
        }
        _ => {
            let plain = text.trim_end_matches(['U', 'u']);
            let octal = plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|c| c.is_ascii_digit());
            if octal {
                u64::from_str_radix(plain, 8).map(Token::Int).map_err(|_| wrong(()))
            } else if let Ok(v) = plain.parse::<u64>() {
                Ok(Token::Int(v))
            } else if plain.contains(['.', 'e', 'E']) {
                plain.parse::<f64>().map(|v| Token::F64(v.to_bits())).map_err(|_| wrong(()))
            } else {
                Err(wrong(()))
            }
        }
    }
}
