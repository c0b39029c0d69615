//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): the one source of randomness, equal on every target.
//!
//! A draw is a function of (seed, site, step, index) and of nothing else: the key is (seed, site), the counter is
//! (index / 4, step, 0, 0), and the lane is index % 4.

/// Four random words of a counter under a key.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let p0 = 0xD251_1F53 * c0 as u64;
        let p1 = 0xCD9E_8D57 * c2 as u64;
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// The 32 bits of one element of a draw. Only the low 32 bits of `index / 4` count.
pub fn bits(seed: u32, site: u32, step: u32, index: u64) -> u32 {
    philox4x32_10([(index / 4) as u32, step, 0, 0], [seed, site])[(index % 4) as usize]
}

/// One element of a draw: uniform in (0, 1), both ends excluded, and exact in f32.
pub fn uniform(seed: u32, site: u32, step: u32, index: u64) -> f32 {
    unit(bits(seed, site, step, index))
}

/// `(bits >> 9 + 0.5) · 2^-23`. With one bit more the largest value would round to 1 in f32, and its logarithm's
/// logarithm (Gumbel noise) to infinity.
pub fn unit(bits: u32) -> f32 {
    ((bits >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn agrees_with_the_published_answers() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox4x32_10([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn a_draw_is_strictly_between_zero_and_one() {
        assert_eq!(unit(0), 0.5f32.powi(24));
        assert_eq!(unit(u32::MAX), 1.0 - 0.5f32.powi(24));
        assert_eq!(unit(u32::MAX) as f64, ((u32::MAX >> 9) as f64 + 0.5) / 8_388_608.0);
    }

    #[test]
    fn neighbours_share_a_counter_and_differ_in_lane() {
        let words = philox4x32_10([2, 7, 0, 0], [3, 5]);
        for lane in 0..4 {
            assert_eq!(bits(3, 5, 7, 8 + lane), words[lane as usize]);
        }
    }
}
