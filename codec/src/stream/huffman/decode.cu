// Canonical codes of at most 11 bits, 32 bit streams side by side: one lane each. See SPEC.md; the table that the host makes of
// the stream's has one word for each used symbol, in the order of the codes: symbol in 8 bits, length of the code in 8,
// the first of the 2048 words of 11 bits that begin with the code in 16.
#include "join.cuh"

constexpr uint32_t LONGEST = 11;
constexpr uint32_t ENTRIES = 1u << LONGEST;
constexpr uint32_t LENGTH_BITS = 10;
constexpr uint32_t LENGTHS_LEN = 40;

// What 11 bits begin with, the first bit lowest: one symbol, and a second one if its code is there too. Symbols in 8 bits each, the
// length of the first code in 4, of both in 4; the latter is 0 if there is no second symbol.
DEVICE void build_entries(const Launch &launch, const Job &job, uint16_t *single, uint32_t *entries) {
    // phase: table, 8
    const uint32_t *table = (const uint32_t *)(launch.image + job.table);
    const uint32_t count = min(job.table_len, 256u);
    constexpr uint32_t SHARE = ENTRIES / THREADS;
    const uint32_t first = threadIdx.x * SHARE;
    uint32_t rank = 0;
    for (uint32_t step = 128; step != 0; step >>= 1) {
        if (rank + step < count && __ldg(table + rank + step) >> 16 <= first) rank += step;
    }
    for (uint32_t word = first; word < first + SHARE; word++) {
        while (rank + 1 < count && __ldg(table + rank + 1) >> 16 <= word) rank++;
        single[__brev(word) >> (32 - LONGEST)] = (uint16_t)__ldg(table + rank);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < ENTRIES; i += THREADS) {
        const uint32_t one = single[i], length = one >> 8 & 15;
        const uint32_t two = single[i >> length], both = length + (two >> 8 & 15);
        entries[i] = (one & 0xff) | length << 16 | (both <= LONGEST ? (two & 0xff) << 8 | both << 20 : 0);
    }
}

// phase: end

// The bits of one lane.
struct Bits {
    const uint32_t *words;
    uint32_t at, last;  // the next word, and the last one that may be read
    uint64_t buffer;
    uint32_t left;      // in the buffer
    uint32_t used;      // since the start

    DEVICE Bits(const uint32_t *words, uint32_t last, uint32_t byte)
        : words(words), at(byte / 4 + 1), last(last), buffer(__ldg(words + min(byte / 4, last)) >> 8 * (byte & 3)),
          left(32 - 8 * (byte & 3)), used(0) {}
    DEVICE void refill() {
        if (left > 32) return;
        buffer |= (uint64_t)__ldg(words + min(at, last)) << left;
        at++;
        left += 32;
    }
    DEVICE void drop(uint32_t bits) {
        buffer >>= bits;
        left -= bits;
        used += bits;
    }
};

struct HuffmanTile {
    const Launch &launch;
    const Job &job;
    Tile tile;
    uint32_t lane;
    const uint32_t *entries;

    DEVICE uint2 decode_granule(Bits &bits, uint32_t count) const {
        // phase: look-ups, 269, 64
        uint64_t symbols = 0;
#pragma unroll 1
        for (uint32_t j = 0; j < count;) {
            bits.refill();
            const uint32_t entry = entries[(uint32_t)bits.buffer & (ENTRIES - 1)], both = entry >> 20;
            const bool pair = both != 0 && j + 1 < count;
            symbols |= (uint64_t)(entry & (pair ? 0xffff : 0xff)) << 8 * j;
            bits.drop(pair ? both : entry >> 16 & 15);
            j += pair ? 2 : 1;
        }
        return make_uint2((uint32_t)symbols, (uint32_t)(symbols >> 32));
        // phase: end
    }

    template <class Join> DEVICE uint32_t run() const {
        if constexpr (Join::WIDE) return BAD_SYMBOL;
        else return decode<Join>();
    }

    template <class Join> DEVICE uint32_t decode() const {
        // phase: start
        const uint8_t *bytes = (const uint8_t *)tile.words;
        if (tile.count * 4 < LENGTHS_LEN) return BAD_LENGTH;
        const uint32_t bit = lane * LENGTH_BITS;
        const uint32_t length = (bytes[bit / 8] | bytes[bit / 8 + 1] << 8) >> bit % 8 & ((1u << LENGTH_BITS) - 1);
        uint32_t total;
        const uint32_t start = LENGTHS_LEN + exclusive_sum(length, total), end = LENGTHS_LEN + total;
        if ((end + 3) / 4 != tile.count) return BAD_LENGTH;
        if (__any_sync(FULL_WARP, end + lane < tile.count * 4 && bytes[end + lane] != 0)) return BAD_PADDING;

        Join join(launch, job);
        Bits bits(tile.words, tile.count - 1, start);
        const bool vector = whole(launch, job, tile);
        // phase: main, 64
#pragma unroll 1
        for (uint32_t i = lane * GRANULE; i < tile.elements; i += GROUP) {
            const uint32_t g = (tile.first + i) / GRANULE, count = min(tile.elements - i, GRANULE);
            const uint2 symbols = decode_granule(bits, count);
            if (vector && count == GRANULE) join.granule(g, symbols.x, symbols.y);
            // phase: part of a granule, 0, 0
            else put_elements(join, job, g, make_uint4(symbols.x, symbols.y, 0, 0), count);
        }
        // phase: checks
        if (__any_sync(FULL_WARP, join.found != 0)) return BAD_SYMBOL;
        if (__any_sync(FULL_WARP, (bits.used + 7) / 8 != length)) return BAD_LENGTH;
        bits.refill();
        const uint32_t spare = (8 - bits.used % 8) % 8;
        return __any_sync(FULL_WARP, ((uint32_t)bits.buffer & ((1u << spare) - 1)) != 0) ? BAD_PADDING : OK;
        // phase: end
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 3) cmz_huffman(const Launch launch) {
    CMZ_SHARED_ARRAY(uint16_t, single, ENTRIES);
    CMZ_SHARED_ARRAY(uint32_t, entries, ENTRIES);
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    // elements: 16384
    // cases: JOIN_BF16
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    build_entries(launch, job, single, entries);
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, number = span.tile + (threadIdx.x >> 5);
    if (number << job.tile_log >= job.elements) return;
    const Tile tile = find_tile(launch, job, number);
    uint32_t status = planes_fit(job, lane) ? tile.status : BAD_LENGTH;
    if (status == OK) status = with_join(job.join, HuffmanTile{launch, job, tile, lane, entries});
    if (lane == 0) report(launch, job, status);
    // phase: end
}
