// Streams of ternary symbols: see the pages of tunstall, dictionary and trits. A warp takes a tile. To decode it, it puts the symbols into its
// *window*, two bits a symbol in shared memory, and joins them from there; a product takes them as they come.
//
// Of a code of words each lane looks up four codewords, and a prefix sum says where their symbols lie. A window gets them by OR, as words share
// 32-bit words of it. Words are mostly zeros, which need no OR at all. A `Code` has
//
//   Form                what symbols of a word look like
//   BITS                bits of a codeword
//   bits(payload, j, count) -> Bits          codewords j to j + 3, of which so many words of the payload may be read
//   word(Bits, i)       codeword j + i
//
// Rejected, counted on paper: each lane a run of all its codewords, which needs one prefix sum a tile, but looks every codeword up
// twice.
#pragma once
#include "join.cuh"

constexpr uint32_t TERNARY_TILE_LOG = 13;
// 32-bit words of a tile in the window.
constexpr uint32_t WINDOW_WORDS = (1u << TERNARY_TILE_LOG) / 16;
// Codewords of a lane in a step, and of a warp.
constexpr uint32_t LANE_WORDS = 4, STEP_WORDS = 32 * LANE_WORDS;

// The symbols of a codeword, and their number, 0 if it stands for nothing.
struct Word {
    uint2 symbols;
    uint32_t count;
};

// Two bits a symbol, the first one lowest, 32 at most.
struct PairForm {
    static DEVICE void put(uint2 &symbols, uint32_t at, uint32_t symbol) {
        if (at < 16) symbols.x |= symbol << 2 * at;
        else symbols.y |= symbol << 2 * (at & 15);
    }
    // Those before number `to`.
    static DEVICE uint2 before(uint2 symbols, uint32_t to) {
        const uint32_t low = to < 16 ? (1u << 2 * to) - 1 : ~0u, high = to < 32 ? (1u << (2 * to & 31)) - 1 : ~0u;
        return make_uint2(symbols.x & low, to > 16 ? symbols.y & high : 0);
    }
    static DEVICE uint2 of_pairs(uint2 pairs) { return pairs; }
};

// A bit a symbol, the first one lowest, 32 at most: those that are not 0, and of these the ones that are 2.
struct MaskForm {
    static DEVICE void put(uint2 &symbols, uint32_t at, uint32_t symbol) {
        symbols.x |= 1u << at;
        symbols.y |= (symbol >> 1) << at;
    }
    static DEVICE uint2 before(uint2 symbols, uint32_t to) {
        const uint32_t inside = to < 32 ? (1u << to) - 1 : ~0u;
        return make_uint2(symbols.x & inside, symbols.y & inside);
    }
    static DEVICE uint2 of_pairs(uint2 pairs) {
        const uint32_t ones = evens(pairs.x) | evens(pairs.y) << 16, twos = evens(pairs.x >> 1) | evens(pairs.y >> 1) << 16;
        return make_uint2(ones | twos, twos);
    }
    // Bits 0, 2, 4 to 30, side by side.
    static DEVICE uint32_t evens(uint32_t bits) {
        bits &= 0x55555555u;
        bits = (bits | bits >> 1) & 0x33333333u;
        bits = (bits | bits >> 2) & 0x0f0f0f0fu;
        bits = (bits | bits >> 4) & 0x00ff00ffu;
        return (bits | bits >> 8) & 0xffff;
    }
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

// Calls visit(at, symbols, first, last) with some codewords for each lane, until symbol `stop` of the tile is reached: the words of the lane
// begin at symbols `at`, those of all lanes together are symbols first..last. What lies behind `stop` is not looked at.
template <class Code, class Visit>
DEVICE uint32_t each_word(const Code &code, const Tile &tile, uint32_t lane, uint32_t stop, const Visit &visit) {
    // phase: start, 1
    const uint32_t codewords = (uint32_t)((uint64_t)tile.count * 32 / Code::BITS);
    uint32_t done = 0, used = 0, least = 1, behind = 0;
    // phase: codewords, 4.25
#pragma unroll 1
    for (uint32_t first = 0; first < codewords && done < stop; first += STEP_WORDS) {
        const uint32_t j = first + lane * LANE_WORDS;
        const auto bits = code.bits(tile.words, j, tile.count);
        uint2 symbols[LANE_WORDS];
        uint32_t counts[LANE_WORDS], at[LANE_WORDS], sum = 0, total;
#pragma unroll
        for (uint32_t i = 0; i < LANE_WORDS; i++) {
            const Word word = code.word(bits, i);
            symbols[i] = word.symbols;
            counts[i] = word.count;
        }
        const bool all = first + STEP_WORDS <= codewords;
        // phase: last words, 1
        if (!all) {
#pragma unroll
            for (uint32_t i = 0; i < LANE_WORDS; i++) {
                if (j + i >= codewords) counts[i] = 0;
            }
        }
        // phase: codewords, 4.25
#pragma unroll
        for (uint32_t i = 0; i < LANE_WORDS; i++) sum += counts[i];
        at[0] = done + exclusive_sum(sum, total);
#pragma unroll
        for (uint32_t i = 1; i < LANE_WORDS; i++) at[i] = at[i - 1] + counts[i - 1];
        if (all && done + total <= tile.elements) {
#pragma unroll
            for (uint32_t i = 0; i < LANE_WORDS; i++) least = min(least, counts[i]);
            used += LANE_WORDS;
        } else {
            // phase: last words, 1
#pragma unroll
            for (uint32_t i = 0; i < LANE_WORDS; i++) {
                const bool inside = at[i] < tile.elements && j + i < codewords;
                const uint32_t room = inside ? tile.elements - at[i] : 0;
                const uint2 kept = Code::Form::before(symbols[i], room);
                if (inside) {
                    behind |= (symbols[i].x ^ kept.x) | (symbols[i].y ^ kept.y);
                    least = min(least, counts[i]);
                    used++;
                }
                symbols[i] = kept;
            }
            // phase: codewords, 4.25
        }
        visit(at, symbols, done, min(done + total, tile.elements));
        done += total;
    }
    // phase: checks, 1
    __syncwarp();
    if (__any_sync(FULL_WARP, least == 0)) return BAD_SYMBOL;
    if (done < stop) return BAD_LENGTH;
    if (stop < tile.elements) return OK;
    // The codewords end in the last word of the tile, and zeros follow.
    exclusive_sum(used, used);
    const uint32_t bits = used * Code::BITS;
    if ((bits + 31) / 32 != tile.count) return BAD_LENGTH;
    const bool padded = (bits & 31) != 0 && __ldg(tile.words + tile.count - 1) >> (bits & 31) != 0;
    return __any_sync(FULL_WARP, behind != 0) || padded ? BAD_PADDING : OK;
    // phase: end
}

// Decodes the codewords of a tile into its window.
template <class Code> DEVICE uint32_t fill_window(const Code &code, const Tile &tile, uint32_t lane, uint32_t *window) {
    // phase: start, 1
#pragma unroll
    for (uint32_t i = 0; i < WINDOW_WORDS; i += 128) *(uint4 *)(window + i + 4 * lane) = make_uint4(0, 0, 0, 0);
    __syncwarp();
    // phase: end
    return each_word(code, tile, lane, tile.elements, [=](const auto &at, const auto &symbols, uint32_t, uint32_t) {
        // phase: codewords, 4.25
#pragma unroll
        for (uint32_t i = 0; i < LANE_WORDS; i++) put_word(window, at[i], symbols[i]);
        // phase: end
    });
}

// As each_word, of symbols that are found by their index, eight to a lane.
template <class Symbols, class Visit>
DEVICE uint32_t each_granule(Symbols &symbols, uint32_t first, uint32_t elements, uint32_t lane, uint32_t stop, const Visit &visit) {
    // phase: granules, 32
#pragma unroll 1
    for (uint32_t begin = 0; begin < stop; begin += GROUP) {
        const uint32_t at[1] = {begin + lane * GRANULE};
        const uint32_t found = at[0] < elements ? symbols.granule(first + at[0], min(elements - at[0], GRANULE)) : 0;
        const uint2 pairs[1] = {make_uint2(found, 0)};
        visit(at, pairs, begin, min(begin + GROUP, elements));
    }
    __syncwarp();
    return symbols.status();
    // phase: end
}

// The table of a stream of codewords of 10 bits.
struct TunstallTable {
    static constexpr uint32_t BITS = 10, CODEWORDS = 1u << BITS;
    // Words of the table in shared memory.
    static constexpr uint32_t WORDS = CODEWORDS / 4 + CODEWORDS / 4;

    // Copies the job's table: the splits (which word, and its length then in the bits from 10 on, 16 bits for each) and the lengths of all
    // words in the end, a byte each. The caller synchronises.
    static DEVICE void load(const Launch &launch, const Job &job, uint32_t *table) {
        // phase: table, 2
        const uint32_t *from = (const uint32_t *)(launch.image + job.table);
        for (uint32_t i = threadIdx.x; i < min(WORDS, job.table_len); i += THREADS) table[i] = __ldg(from + i);
        // phase: end
    }
    // Makes the words: codeword i >= 1 came with split k = (i - 1) / 2 of another one, with a symbol 1 or 2 at its end, and has had only
    // zeros since. The caller synchronises before and after.
    template <class Form> static DEVICE void make_words(const uint32_t *table, uint2 *words) {
        // phase: words, 4
        const uint16_t *splits = (const uint16_t *)table;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < CODEWORDS; i += THREADS) {
            uint2 symbols = make_uint2(0, 0);
            // phase: splits of words, 10
            for (uint32_t k = i; k != 0;) {
                const uint32_t split = splits[(k - 1) / 2];
                Form::put(symbols, split >> BITS, 2 - (k & 1));
                // A word comes after the one that it was made of.
                k = min(split & (CODEWORDS - 1), k - 1);
            }
            // phase: words, 4
            words[i] = symbols;
        }
        // phase: end
    }
};

// Codewords of 10 bits: four of them begin with a byte.
template <class FORM> struct Tunstall {
    using Form = FORM;
    static constexpr uint32_t BITS = TunstallTable::BITS, CODEWORDS = TunstallTable::CODEWORDS;
    // Of shared memory.
    const uint2 *words;
    const uint8_t *lengths;

    DEVICE Tunstall(const uint2 *words, const uint32_t *table) : words(words), lengths((const uint8_t *)(table + CODEWORDS / 4)) {}
    DEVICE uint2 bits(const uint32_t *payload, uint32_t j, uint32_t count) const {
        const uint32_t bit = BITS * j, shift = bit & 31, at = bit >> 5;
        const uint32_t low = at < count ? __ldg(payload + at) : 0, high = at + 1 < count ? __ldg(payload + at + 1) : 0;
        return make_uint2(__funnelshift_r(low, high, shift), high >> shift);
    }
    DEVICE Word word(uint2 bits, uint32_t i) const {
        const uint32_t shift = BITS * i, moved = shift + BITS <= 32 ? bits.x >> shift : __funnelshift_r(bits.x, bits.y, shift);
        const uint32_t codeword = moved & (CODEWORDS - 1);
        return {words[codeword], lengths[codeword]};
    }
};

// Codewords of 16 bits, of the one dictionary: of each the number of pairs in the lowest byte, and the symbols from there on.
template <class FORM> struct Dictionary {
    using Form = FORM;
    static constexpr uint32_t BITS = 16;
    const uint2 *entries;

    DEVICE uint2 bits(const uint32_t *payload, uint32_t j, uint32_t count) const {
        const uint32_t at = j / 2;
        return make_uint2(at < count ? __ldg(payload + at) : 0, at + 1 < count ? __ldg(payload + at + 1) : 0);
    }
    DEVICE Word word(uint2 bits, uint32_t i) const {
        const uint2 entry = __ldg(entries + ((i < 2 ? bits.x : bits.y) >> 16 * (i & 1) & 0xffff));
        const uint2 symbols = make_uint2(__funnelshift_r(entry.x, entry.y, 8), entry.y >> 8);
        return {Form::of_pairs(symbols), 2 * (entry.x & 15)};
    }
};

// Symbols of two bits, packed, or one to a byte, or all the same.
struct Pairs {
    const Codes codes;
    uint32_t found = 0;

    DEVICE Pairs(const Launch &launch, const Job &job) : codes(launch, job.first) {}
    // `count` symbols from a multiple of eight on, two bits each.
    DEVICE uint32_t granule(uint32_t element, uint32_t count) {
        // phase: granules, 32
        uint2 symbols = codes.granule(element / GRANULE, count);
        const uint32_t mask = codes.mask();
        uint32_t packed = 0;
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) {
            const uint32_t symbol = j < count ? symbols.x & mask : 0;
            found |= symbol > 2;
            packed |= (symbol & 3) << 2 * j;
            codes.next(symbols);
        }
        return packed;
        // phase: end
    }
    DEVICE uint32_t status() const { return __any_sync(FULL_WARP, found != 0) ? BAD_SYMBOL : OK; }
};

// Five symbols to a byte.
struct Trits {
    static constexpr uint32_t DIGITS = 5, BYTES = 243;
    const uint8_t *bytes;
    uint32_t length, elements;
    const uint16_t *table; // the digits of all bytes
    uint32_t greatest = 0;

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
    DEVICE Trits(const Launch &launch, const Job &job, const uint16_t *table)
        : bytes(address(launch, job.first) + job.tiles_at), length(job.first.length < job.tiles_at ? 0 : job.first.length - job.tiles_at),
          elements(job.elements), table(table) {}
    // As of Pairs.
    DEVICE uint32_t granule(uint32_t element, uint32_t count) {
        // phase: granules, 32
        const uint32_t first = element / DIGITS;
        uint32_t symbols = 0;
        // Eight symbols are in at most three bytes.
#pragma unroll
        for (uint32_t k = 0; k < 3; k++) {
            const uint32_t byte = first + k < length ? __ldg(bytes + first + k) : 0;
            greatest = max(greatest, byte);
            symbols |= (uint32_t)table[byte] << 10 * k;
        }
        return symbols >> 2 * (element - first * DIGITS) & ((1u << 2 * count) - 1);
        // phase: end
    }
    DEVICE uint32_t status() const {
        if ((uint64_t)length * DIGITS < elements) return BAD_LENGTH;
        return __any_sync(FULL_WARP, greatest >= BYTES) ? BAD_SYMBOL : OK;
    }
    DEVICE uint32_t fill_window(const Tile &tile, uint32_t lane, uint32_t *window) {
        return each_granule(*this, tile.first, tile.elements, lane, tile.elements, [=](const auto &at, const auto &pairs, uint32_t, uint32_t) {
            // phase: granules, 32
            if (at[0] < tile.elements) ((uint16_t *)window)[at[0] / GRANULE] = (uint16_t)pairs[0].x;
            // phase: end
        });
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
