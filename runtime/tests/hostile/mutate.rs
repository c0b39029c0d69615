//! Damage to a file, as a function of a list of numbers: cuts, flips, splices, and numbers that are absurd.

/// Values that counts, lengths, offsets and types do not have, or hardly.
const ABSURD: [u64; 12] =
    [0, 1, 2, 7, 255, 65536, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 62, i64::MAX as u64, u64::MAX];
/// The same in texts.
const ABSURD_TEXTS: [&str; 10] =
    ["0", "-1", "1", "4294967296", "18446744073709551615", "1e999", "99999999999999999999999", "null", "[]", "\"\""];

/// Applies one change for each four numbers.
pub fn mutate(bytes: &mut Vec<u8>, numbers: &[u32]) {
    for n in numbers.chunks_exact(4) {
        if bytes.is_empty() {
            return;
        }
        change(bytes, [n[0], n[1], n[2], n[3]].map(|x| x as usize));
    }
}

fn change(bytes: &mut Vec<u8>, [how, at, other, what]: [usize; 4]) {
    let len = bytes.len();
    let (at, other) = (at % len, other % len);
    let part = |at: usize, most: usize| at..(at + 1 + what % most).min(len);
    match how % 9 {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << (what % 8),
        2 => bytes[at] = what as u8,
        3 => overwrite(bytes, at, &(ABSURD[what % ABSURD.len()] as u32).to_le_bytes()),
        4 => overwrite(bytes, at, &ABSURD[what % ABSURD.len()].to_le_bytes()),
        5 => {
            let piece = bytes[part(other, 64)].to_vec();
            overwrite(bytes, at, &piece);
        }
        6 => {
            let piece = bytes[part(other, 256)].to_vec();
            bytes.splice(at..at, piece);
        }
        7 => drop(bytes.drain(part(at, 64))),
        _ => {
            // The next number in a text becomes another.
            let is_digit = |b: &u8| b.is_ascii_digit();
            let Some(begin) = bytes[at..].iter().position(is_digit).map(|i| at + i) else { return };
            let end = bytes[begin..].iter().position(|b| !is_digit(b)).map_or(len, |i| begin + i);
            bytes.splice(begin..end, ABSURD_TEXTS[what % ABSURD_TEXTS.len()].bytes());
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..].iter_mut().zip(with).for_each(|(to, from)| *to = *from);
}
