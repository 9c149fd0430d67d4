//! Numbers in bytes of seven bits, the lowest first, as protobuf and JFR write them.

/// The number at the start of `word`, and the number of its bytes; `None` if it has more than eight.
#[inline(always)]
pub(crate) fn first_in(word: u64) -> Option<(u64, usize)> {
    let stops = !word & 0x8080_8080_8080_8080;
    if stops == 0 {
        return None;
    }
    let length = stops.trailing_zeros() as usize / 8 + 1;
    // Seven bits of each byte up to the last of the number, joined pairwise.
    let bits = word & (stops ^ stops.wrapping_sub(1)) & 0x7f7f_7f7f_7f7f_7f7f;
    let bits = (bits & 0x007f_007f_007f_007f) | ((bits & 0x7f00_7f00_7f00_7f00) >> 1);
    let bits = (bits & 0x0000_3fff_0000_3fff) | ((bits & 0x3fff_0000_3fff_0000) >> 2);
    Some(((bits & 0x0fff_ffff) | ((bits & 0x0fff_ffff_0000_0000) >> 4), length))
}
