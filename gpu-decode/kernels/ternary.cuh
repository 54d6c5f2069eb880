// Streams of ternary symbols: see the pages of tunstall, dictionary and trits. A warp decodes a tile into its *window*, two bits a
// symbol in shared memory, and joins the symbols from there.
//
// Of a code of words each lane looks up a codeword and puts its symbols where the words of the lanes below end: by OR, as words share
// 32-bit words of the window. Words are mostly zeros, which need no OR at all. A `Code` has
//
//   BITS                bits of a codeword
//   word(words, j)      codeword j of a tile
//
// Rejected, counted on paper: each lane a run of consecutive codewords, which needs one prefix sum instead of one for every 32
// codewords, but looks every codeword up twice.
#pragma once
#include "join.cuh"

constexpr uint32_t TERNARY_TILE_LOG = 13;
// 32-bit words of a tile in the window.
constexpr uint32_t WINDOW_WORDS = (1u << TERNARY_TILE_LOG) / 16;

// The symbols of a codeword, the first one lowest, and zeros behind them; and their number, 0 if it stands for nothing.
struct Word {
    uint2 symbols;
    uint32_t count;
};

// Puts the symbols at symbol `at` of the window, where there are zeros.
DEVICE void put_word(uint32_t *window, uint32_t at, uint2 symbols) {
    const uint32_t shift = 2 * (at & 15);
    uint32_t *const to = window + (at >> 4);
    const uint32_t low = symbols.x << shift, middle = __funnelshift_l(symbols.x, symbols.y, shift);
    const uint32_t high = __funnelshift_l(symbols.y, 0, shift);
    if (low != 0) atomicOr(to, low);
    if (middle != 0) atomicOr(to + 1, middle);
    if (high != 0) atomicOr(to + 2, high);
}

// Decodes the codewords of a tile into its window.
template <class Code> DEVICE uint32_t fill_window(const Code &code, const Tile &tile, uint32_t lane, uint32_t *window) {
    // phase: start, 1
#pragma unroll
    for (uint32_t i = 0; i < WINDOW_WORDS; i += 128) *(uint4 *)(window + i + 4 * lane) = make_uint4(0, 0, 0, 0);
    __syncwarp();
    const uint32_t codewords = (uint32_t)((uint64_t)tile.count * 32 / Code::BITS);
    uint32_t done = 0, used = 0, unused = 0, behind = 0;
    // phase: codewords, 17
#pragma unroll 1
    for (uint32_t first = 0; first < codewords && done < tile.elements; first += 32) {
        const uint32_t j = first + lane;
        Word word = {make_uint2(0, 0), 0};
        if (j < codewords) word = code.word(tile.words, j);
        uint32_t total;
        const uint32_t at = done + exclusive_sum(word.count, total);
        const bool inside = at < tile.elements && j < codewords;
        if (inside) {
            const uint32_t room = tile.elements - at;
            if (room < word.count) {
                // phase: last word, 0, 0
                // At most 31 symbols are left.
                const uint32_t low = room < 16 ? (1u << 2 * room) - 1 : ~0u, high = room > 16 ? (1u << (2 * room & 31)) - 1 : 0;
                behind |= (word.symbols.x & ~low) | (word.symbols.y & ~high);
                word.symbols = make_uint2(word.symbols.x & low, word.symbols.y & high);
                // phase: codewords, 17
            }
            unused |= word.count == 0;
            put_word(window, at, word.symbols);
        }
        used += __popc(__ballot_sync(FULL_WARP, inside));
        done += total;
    }
    // phase: checks, 1
    __syncwarp();
    if (__any_sync(FULL_WARP, unused != 0)) return BAD_SYMBOL;
    // The codewords end in the last word of the tile, and zeros follow.
    const uint32_t bits = used * Code::BITS;
    if (done < tile.elements || (bits + 31) / 32 != tile.count) return BAD_LENGTH;
    const bool padded = (bits & 31) != 0 && __ldg(tile.words + tile.count - 1) >> (bits & 31) != 0;
    return __any_sync(FULL_WARP, behind != 0) || padded ? BAD_PADDING : OK;
    // phase: end
}

// Codewords of 10 bits.
struct Tunstall {
    static constexpr uint32_t BITS = 10, CODEWORDS = 1u << BITS;
    // Of shared memory: the words, and their lengths.
    const uint2 *words;
    const uint8_t *lengths;

    // Makes the words of the job's table: codeword i >= 1 came with split k = (i - 1) / 2 of another one, with a symbol 1 or 2 at its
    // end, and has had only zeros since. The table is the splits (which word, and its length then in the bits from 10 on, 16 bits for each) and
    // the lengths of all words in the end, a byte each. `table` has room for it. The caller synchronises before and after.
    static constexpr uint32_t TABLE_WORDS = CODEWORDS / 4 + CODEWORDS / 4;
    static DEVICE void load_table(const Launch &launch, const Job &job, uint32_t *table) {
        // phase: table, 2
        const uint32_t *from = (const uint32_t *)(launch.image + job.table);
        for (uint32_t i = threadIdx.x; i < min(TABLE_WORDS, job.table_len); i += THREADS) table[i] = __ldg(from + i);
        // phase: end
    }
    static DEVICE void make_words(const uint32_t *table, uint2 *words) {
        // phase: words, 4
        const uint16_t *splits = (const uint16_t *)table;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < CODEWORDS; i += THREADS) {
            uint2 symbols = make_uint2(0, 0);
            // phase: splits of words, 10
            for (uint32_t k = i; k != 0;) {
                const uint32_t split = splits[(k - 1) / 2], at = 2 * (split >> BITS), symbol = 2 - (k & 1);
                if (at < 32) symbols.x |= symbol << at;
                else symbols.y |= symbol << (at & 31);
                // A word comes after the one that it was made of.
                k = min(split & (CODEWORDS - 1), k - 1);
            }
            // phase: words, 4
            words[i] = symbols;
        }
        // phase: end
    }

    DEVICE Word word(const uint32_t *payload, uint32_t j) const {
        const uint32_t bit = BITS * j, shift = bit & 31;
        const uint32_t *const at = payload + (bit >> 5);
        const uint32_t low = __ldg(at), high = shift > 32 - BITS ? __ldg(at + 1) : 0;
        const uint32_t codeword = __funnelshift_r(low, high, shift) & (CODEWORDS - 1);
        return {words[codeword], lengths[codeword]};
    }
};

// Codewords of 16 bits, of the one dictionary: of each the number of pairs in the lowest byte, and the symbols from there on.
struct Dictionary {
    static constexpr uint32_t BITS = 16;
    const uint2 *entries;

    DEVICE Word word(const uint32_t *payload, uint32_t j) const {
        const uint2 entry = __ldg(entries + __ldg((const uint16_t *)payload + j));
        return {make_uint2(__funnelshift_r(entry.x, entry.y, 8), entry.y >> 8), 2 * (entry.x & 15)};
    }
};

// Five symbols to a byte, which are found by index.
struct Trits {
    static constexpr uint32_t DIGITS = 5, BYTES = 243;

    // The digits of a byte, two bits each.
    static DEVICE uint32_t digits(uint32_t byte) {
        uint32_t symbols = 0;
#pragma unroll
        for (uint32_t i = 0; i < DIGITS; i++) {
            symbols |= byte % 3 << 2 * i;
            byte /= 3;
        }
        return symbols;
    }
    // `table` has the digits of all bytes.
    static DEVICE uint32_t fill_window(const Launch &launch, const Job &job, const Tile &tile, const uint16_t *table, uint32_t lane,
                                       uint32_t *window) {
        // phase: bytes, 32
        const uint8_t *const bytes = address(launch, job.first) + job.tiles_at;
        const uint32_t length = job.first.length - job.tiles_at;
        uint32_t greatest = 0;
        if (job.first.length < job.tiles_at || (uint64_t)length * DIGITS < job.elements) return BAD_LENGTH;
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < tile.elements; i += GROUP) {
            const uint32_t element = tile.first + i, first = element / DIGITS;
            uint32_t symbols = 0;
            // Eight symbols are in at most three bytes.
#pragma unroll
            for (uint32_t k = 0; k < 3; k++) {
                const uint32_t byte = first + k < length ? __ldg(bytes + first + k) : 0;
                greatest = max(greatest, byte);
                symbols |= (uint32_t)table[byte] << 10 * k;
            }
            ((uint16_t *)window)[i / GRANULE] = (uint16_t)(symbols >> 2 * (element - first * DIGITS));
        }
        __syncwarp();
        return __any_sync(FULL_WARP, greatest >= BYTES) ? BAD_SYMBOL : OK;
        // phase: end
    }
};

// Joins the symbols of a window.
struct WindowTile {
    const Launch &launch;
    const Job &job;
    Tile tile;
    uint32_t lane;
    const uint32_t *window;

    template <class Join> DEVICE uint32_t run() const {
        Join join(launch, job);
        const bool vector = whole(launch, job, tile);
        // phase: join, 32
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < tile.elements; i += GROUP) {
            const uint32_t g = (tile.first + i) / GRANULE, count = min(tile.elements - i, GRANULE);
            const uint2 symbols = spread_pairs(((const uint16_t *)window)[i / GRANULE]);
            if (vector && count == GRANULE) join.granule(g, symbols.x, symbols.y);
            // phase: part of a granule, 0, 0
            else put_elements(join, job, g, make_uint4(symbols.x, symbols.y, 0, 0), count);
            // phase: join, 32
        }
        // phase: end
        return __any_sync(FULL_WARP, join.found != 0) ? BAD_SYMBOL : OK;
    }
    // Two-bit symbols are joined by these alone.
    DEVICE uint32_t join() const {
        switch (job.join) {
        case JOIN_BYTES: return run<JoinBytes>();
        case JOIN_TERNARY_F16: return run<JoinTernary<FLOAT_F16>>();
        case JOIN_TERNARY_BF16: return run<JoinTernary<FLOAT_BF16>>();
        case JOIN_TERNARY_F32: return run<JoinTernary<FLOAT_F32>>();
        default: return BAD_LENGTH;
        }
    }
};
