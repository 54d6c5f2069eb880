//! Decoder of the `tunstall` codec: a look-up for each codeword, and a store of as many symbols as a word can have.

use super::code::Code;
use super::{CODEWORD_BITS, CODEWORDS, LONGEST};
use crate::Scratch;
use crate::stream::StreamError;
use crate::stream::ternary::{self, Form, TILE, Tiles};

/// Codewords that are looked up for one check of the room: as many as end on a byte.
const AT_ONCE: usize = 4;
const AT_ONCE_LEN: usize = AT_ONCE * CODEWORD_BITS as usize / 8;

/// Decodes `stream` into `symbols`.
pub(super) fn decode(stream: &[u8], scratch: &mut Scratch, symbols: &mut [u8]) -> Result<(), StreamError> {
    match Form::of(stream)? {
        Form::Packed(code) => ternary::unpack(code, symbols),
        Form::Coded(frequencies, code) => scratch.with::<Code, _>(|table, _| {
            table.fit(frequencies)?;
            let tiles = Tiles::of(code, symbols.len())?;
            let Some((words, lengths)) = table.tables() else { return Err(StreamError::Length) };
            let tables = Tables { words, lengths };
            symbols.chunks_mut(TILE).enumerate().try_for_each(|(t, tile)| tables.decode_tile(tiles.tile(t)?, tile))
        }),
    }
}

/// The tables, with their lengths known.
struct Tables<'a> {
    words: &'a [[u8; LONGEST]; CODEWORDS],
    lengths: &'a [u8; CODEWORDS],
}

impl Tables<'_> {
    fn decode_tile(&self, tile: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
        let (mut read, mut done) = (0, 0);
        // Sums of codeword + 1: the bit above the codewords says whether one of them is the unused one.
        let mut used = 0;
        while let (Some(bytes), Some(room)) =
            (tile[read..].first_chunk::<8>(), symbols[done..].first_chunk_mut::<{ AT_ONCE * LONGEST }>())
        {
            let bits = u64::from_le_bytes(*bytes);
            let mut at = 0;
            for i in 0..AT_ONCE {
                let codeword = (bits >> (CODEWORD_BITS as usize * i)) as usize % CODEWORDS;
                used |= codeword + 1;
                // What is stored behind the word is written over by the next one.
                room[at..at + LONGEST].copy_from_slice(&self.words[codeword]);
                at += usize::from(self.lengths[codeword]);
            }
            done += at;
            read += AT_ONCE_LEN;
        }
        if used & CODEWORDS != 0 {
            return Err(super::UNUSED);
        }
        self.decode_end(&tile[read..], &mut symbols[done..])
    }

    fn decode_end(&self, bytes: &[u8], symbols: &mut [u8]) -> Result<(), StreamError> {
        let (mut bits, mut loaded, mut read) = (0u32, 0, 0);
        let mut done = 0;
        while done < symbols.len() {
            while loaded < CODEWORD_BITS {
                bits |= u32::from(*bytes.get(read).ok_or(StreamError::Length)?) << loaded;
                loaded += 8;
                read += 1;
            }
            let codeword = bits as usize % CODEWORDS;
            bits >>= CODEWORD_BITS;
            loaded -= CODEWORD_BITS;
            let word = &self.words[codeword][..usize::from(self.lengths[codeword])];
            if word.is_empty() {
                return Err(super::UNUSED);
            }
            done += ternary::copy_end(word, &mut symbols[done..])?;
        }
        if bits != 0 {
            return Err(StreamError::Invalid("padding is not zero"));
        }
        ternary::check_padding(&bytes[read..])
    }
}
