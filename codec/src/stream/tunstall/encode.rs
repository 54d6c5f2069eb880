//! Encoder of the `tunstall` codec: a walk through the tree of words.

use super::CODEWORD_BITS;
use super::code::{Code, frequencies};
use crate::Scratch;
use crate::stream::counter::Counter;
use crate::stream::ternary;

/// Marks an entry of the tree that is a codeword.
const LEAF: u16 = 1 << 15;

/// The tables of one stream, reused from stream to stream.
#[derive(Default)]
pub(super) struct Encoder {
    counter: Counter,
    code: Code,
    /// The frequencies that the tree is for.
    frequencies: [u8; 2],
    /// Where each symbol leads from each node: to a node, or to a codeword.
    tree: Vec<[u16; 4]>,
}

/// Appends the stream of `symbols` to `out`.
pub(super) fn encode(symbols: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) {
    scratch.with::<Encoder, _>(|encoder, _| encoder.encode(symbols, out));
}

impl Encoder {
    fn encode(&mut self, symbols: &[u8], out: &mut Vec<u8>) {
        let frequencies = frequencies(self.counter.count(symbols, ternary::WIDTH));
        let fits = self.code.fit(frequencies);
        debug_assert!(fits.is_ok(), "frequencies of an array are those of three symbols");
        if self.frequencies != frequencies {
            self.frequencies = frequencies;
            self.grow();
        }
        ternary::encode(symbols, frequencies, out, |out| {
            ternary::put_tiles(symbols, out, |tile, out| encode_tile(&self.tree, tile, out));
        });
    }

    fn grow(&mut self) {
        self.tree.clear();
        self.tree.push([0; 4]);
        for (codeword, word) in self.code.words().enumerate() {
            let Some((&last, path)) = word.split_last() else { continue };
            let mut node = 0;
            for &symbol in path {
                let mut next = usize::from(self.tree[node][usize::from(symbol)]);
                if next == 0 {
                    next = self.tree.len();
                    self.tree[node][usize::from(symbol)] = next as u16;
                    self.tree.push([0; 4]);
                }
                node = next;
            }
            self.tree[node][usize::from(last)] = LEAF | codeword as u16;
        }
    }
}

fn encode_tile(tree: &[[u16; 4]], tile: &[u8], out: &mut Vec<u8>) {
    let (mut word, mut filled) = (0u64, 0);
    let mut put = |codeword: u16| {
        word |= u64::from(codeword) << filled;
        filled += CODEWORD_BITS;
        if filled >= 32 {
            out.extend_from_slice(&(word as u32).to_le_bytes());
            word >>= 32;
            filled -= 32;
        }
    };
    let mut node = 0;
    for &symbol in tile {
        node = tree[usize::from(node)][usize::from(symbol % 4)];
        if node & LEAF != 0 {
            put(node ^ LEAF);
            node = 0;
        }
    }
    // The last word is filled up by zeros.
    while node != 0 && node & LEAF == 0 {
        node = tree[usize::from(node)][0];
    }
    if node != 0 {
        put(node ^ LEAF);
    }
    out.extend_from_slice(&word.to_le_bytes()[..(filled as usize).div_ceil(8)]);
}
