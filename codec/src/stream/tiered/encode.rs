//! Encoder of the `tiered` codec.

use super::{NAMED, TIERS, TILE};

/// Appends the stream for `symbols` to `out`.
pub(super) fn encode(symbols: &[u8], out: &mut Vec<u8>) {
    let named = commonest(symbols);
    out.extend_from_slice(&named);
    out.extend_from_slice(&[0; 4]);
    let tiles = symbols.len().div_ceil(TILE);
    let ends = out.len();
    out.resize(ends + 4 * (tiles + 1), 0);
    let payload = out.len();
    let mut rank = [NAMED as u8; 256];
    for (i, &symbol) in named.iter().enumerate() {
        rank[usize::from(symbol)] = i as u8;
    }
    for (t, tile) in symbols.chunks(TILE).enumerate() {
        encode_tile(tile, &rank, out);
        out.resize(payload + (out.len() - payload).next_multiple_of(4), 0);
        let end = ((out.len() - payload) / 4) as u32;
        out[ends + 4 * (t + 1)..][..4].copy_from_slice(&end.to_le_bytes());
    }
}

/// The twelve commonest symbols, by descending count, the smaller value first among equals.
fn commonest(symbols: &[u8]) -> [u8; NAMED] {
    let mut count = [0u32; 256];
    for &symbol in symbols {
        count[usize::from(symbol)] += 1;
    }
    let mut order: [u8; 256] = std::array::from_fn(|i| i as u8);
    order.sort_by_key(|&symbol| std::cmp::Reverse(count[usize::from(symbol)]));
    std::array::from_fn(|i| order[i])
}

fn encode_tile(tile: &[u8], rank: &[u8; 256], out: &mut Vec<u8>) {
    let mut tier_symbols = tile.to_vec();
    for tier in 0..TIERS {
        let plane_len = tier_symbols.len().div_ceil(8);
        let low = out.len();
        out.resize(low + 2 * plane_len, 0);
        let first = (3 * tier) as u8;
        let mut escaped = Vec::new();
        for (i, &symbol) in tier_symbols.iter().enumerate() {
            let code = (rank[usize::from(symbol)] - first).min(3);
            out[low + i / 8] |= (code & 1) << (i % 8);
            out[low + plane_len + i / 8] |= (code >> 1) << (i % 8);
            if code == 3 {
                escaped.push(symbol);
            }
        }
        tier_symbols = escaped;
    }
    out.extend_from_slice(&tier_symbols);
}
