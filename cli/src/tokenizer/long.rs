//! Long texts are encoded in parts, as the library needs some hundred bytes of memory for each byte of a text.
use anyhow::Result;

/// Bytes of a part, at least.
const PART: usize = 1 << 18;
/// Bytes on either side of a cut that are compared.
const WINDOW: usize = 1 << 10;

/// The tokens of a text by `encode`. A text is cut only where a window around the cut has the same tokens cut and whole;
/// where no such place is found it stays in one part.
pub fn encode_long(text: &str, encode: &dyn Fn(&str) -> Result<Vec<u32>>) -> Result<Vec<u32>> {
    encode_in_parts(text, PART, encode)
}

pub fn encode_in_parts(text: &str, part: usize, encode: &dyn Fn(&str) -> Result<Vec<u32>>) -> Result<Vec<u32>> {
    let (mut out, mut rest) = (vec![], text);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(cut(rest, part, encode)?);
        out.extend(encode(now)?);
        rest = later;
    }
    Ok(out)
}

/// The end of the first part: between a letter and the line break behind it, past `part` bytes.
fn cut(text: &str, part: usize, encode: &dyn Fn(&str) -> Result<Vec<u32>>) -> Result<usize> {
    let mut from = part;
    while from < text.len() {
        let Some(line) = text.as_bytes()[from..].iter().position(|b| *b == b'\n') else { break };
        let at = from + line;
        if text[..at].ends_with(char::is_alphanumeric) && same(text, at, encode)? {
            return Ok(at);
        }
        from = at + 1;
    }
    Ok(text.len())
}

fn same(text: &str, at: usize, encode: &dyn Fn(&str) -> Result<Vec<u32>>) -> Result<bool> {
    let begin = text.floor_char_boundary(at.saturating_sub(WINDOW));
    let end = text.ceil_char_boundary((at + WINDOW).min(text.len()));
    let whole = encode(&text[begin..end])?;
    Ok(whole == [encode(&text[begin..at])?, encode(&text[at..end])?].concat())
}
