// rANS with 32 states: one lane each. See SPEC.md; the table that the host makes of the stream's has the symbols of a letter, as a power
// of two, and then one word for each used letter, ascending: the letter in the low half, where its interval starts in the high half.
#include "join.cuh"

constexpr uint32_t SCALE_LOG = 12;
constexpr uint32_t SCALE = 1u << SCALE_LOG;
constexpr uint32_t LEAST_STATE = 1u << 16;
constexpr uint32_t STATE_WORDS = 32;
// The 16-bit words of a tile pass through a ring of two chunks; a group takes at most one chunk.
constexpr uint32_t CHUNK = GROUP;
constexpr uint32_t RING = 2 * CHUNK;

// A slot: letter or rank in 8 bits, frequency and place in the interval in 12 each.
DEVICE uint32_t make_slot(uint32_t name, uint32_t frequency, uint32_t place) { return name | frequency << 8 | place << 20; }

DEVICE const uint32_t *table_of(const Launch &launch, const Job &job) { return (const uint32_t *)(launch.image + job.table); }

// Fills the slots from the table: 16 consecutive ones a thread. WIDE letters are named by their rank.
DEVICE void build_slots(const Launch &launch, const Job &job, bool wide, uint32_t *slots, uint16_t *symbols) {
    // phase: table, 16
    const uint32_t *table = table_of(launch, job) + 1;
    const uint32_t count = min(job.table_len - 1, 256u);
    if (wide && threadIdx.x < count) symbols[threadIdx.x] = (uint16_t)__ldg(table + threadIdx.x);
    constexpr uint32_t SHARE = SCALE / THREADS;
    const uint32_t first = threadIdx.x * SHARE;
    uint32_t rank = 0;
    for (uint32_t step = 128; step != 0; step >>= 1) {
        if (rank + step < count && __ldg(table + rank + step) >> 16 <= first) rank += step;
    }
    uint32_t entry = __ldg(table + rank), next = rank + 1 < count ? __ldg(table + rank + 1) : SCALE << 16;
    for (uint32_t i = 0; i < SHARE; i++) {
        const uint32_t slot = first + i;
        while (rank + 1 < count && next >> 16 <= slot) {
            rank++;
            entry = next;
            next = rank + 1 < count ? __ldg(table + rank + 1) : SCALE << 16;
        }
        const uint32_t start = entry >> 16;
        slots[slot] = make_slot(wide ? rank : entry & 0xff, ((next >> 16) - start) & (SCALE - 1),
                                (slot - start) & (SCALE - 1));
    }
}

// phase: end

// The words of a tile, a chunk ahead of where they are used.
struct Words {
    const uint32_t *data; // pairs of words
    uint32_t pairs;
    uint32_t *ring;       // of this warp, as pairs
    uint32_t lane, loaded;
    uint32_t ahead[4];

    // Loads the next chunk into registers: 128 pairs. Behind the end there are zeros.
    DEVICE void load() {
        const uint32_t first = loaded * (CHUNK / 2) + lane;
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) ahead[i] = first + 32 * i < pairs ? __ldg(data + first + 32 * i) : 0;
    }
    DEVICE void store() {
        // phase: words, 64/6
        uint32_t *chunk = ring + (loaded & 1) * (CHUNK / 2) + lane;
        __syncwarp();
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) chunk[32 * i] = ahead[i];
        loaded++;
        __syncwarp();
        load();
        // phase: end
    }
    // Makes CHUNK words from `at` on readable.
    DEVICE void reach(uint32_t at) {
        if (loaded < at / CHUNK + 2) store();
    }
};

// What the letters are.
enum Letters : uint32_t { SYMBOLS, PACKED };
// The joins whose symbols have 4 bits or less, so that letters may be packed.
template <class Join> constexpr bool MAY_BE_PACKED = false;
template <> constexpr bool MAY_BE_PACKED<JoinBytes> = true;
template <> constexpr bool MAY_BE_PACKED<JoinF8<3>> = true;
template <uint8_t KIND> constexpr bool MAY_BE_PACKED<JoinTernary<KIND>> = true;

// Eight symbols of a granule of packed letters, as bytes: those from number 8 `part` on, of 1, 2 or 4 bits.
DEVICE uint2 unpack_letters(uint4 letters, uint32_t part, uint32_t width) {
    const uint32_t at = 8 * part * width, bits = (at < 32 ? letters.x : letters.y) >> (at & 31);
    if (width == 2) return spread_pairs(bits & 0xffff);
    if (width == 1) return make_uint2((bits & 0xf) * 0x00204081u & 0x01010101u, (bits >> 4 & 0xf) * 0x00204081u & 0x01010101u);
    const uint32_t low = byte_select(bits, 0, 0x4140), high = byte_select(bits, 0, 0x4342);
    return make_uint2((low | low << 4) & 0x0f0f0f0fu, (high | high << 4) & 0x0f0f0f0fu);
}

struct RansTile {
    const Launch &launch;
    const Job &job;
    Tile tile;
    uint32_t lane;
    const uint32_t *slots;
    const uint16_t *symbols;
    uint32_t *ring;

    // Decodes a granule of every lane; of the tile's last one, the letters that are there.
    template <bool WIDE, bool FULL> DEVICE uint4 decode_group(uint32_t &state, uint32_t &at, uint32_t count) const {
        const uint16_t *words = (const uint16_t *)ring;
        const uint32_t below = (1u << lane) - 1;
        uint32_t out[4] = {0, 0, 0, 0};
#pragma unroll
        for (uint32_t j = 0; j < GRANULE; j++) {
            const bool there = FULL || j < count;
            const uint32_t slot = slots[state & (SCALE - 1)], name = slot & 0xff;
            if (WIDE) out[j / 2] |= (uint32_t)symbols[name] << 16 * (j % 2);
            else out[j / 4] |= name << 8 * (j % 4);
            if (there) state = (slot >> 8 & (SCALE - 1)) * (state >> SCALE_LOG) + (slot >> 20);
            const bool takes = there && state < LEAST_STATE;
            const uint32_t takers = __ballot_sync(FULL_WARP, takes);
            if (takes) state = state << 16 | words[(at + __popc(takers & below)) & (RING - 1)];
            at += __popc(takers);
        }
        return make_uint4(out[0], out[1], out[2], out[3]);
    }

    template <class Join> DEVICE uint32_t run() const {
        // phase: start
        if (tile.count < STATE_WORDS) return BAD_LENGTH;
        uint32_t state = __ldg(tile.words + lane), at = 0;
        if (__any_sync(FULL_WARP, state < LEAST_STATE)) return BAD_STATE;
        Words words = {tile.words + STATE_WORDS, tile.count - STATE_WORDS, ring, lane, 0, {0, 0, 0, 0}};
        words.load();
        words.store();
        Join join(launch, job);
        const bool vector = whole(launch, job, tile);
        const uint32_t log = MAY_BE_PACKED<Join> ? __ldg(table_of(launch, job)) : 0;
        uint32_t status = OK;
        switch (log == 0 ? SYMBOLS : PACKED) {
        case SYMBOLS: decode_symbols(join, words, state, at, vector); break;
        case PACKED: status = decode_packed(join, words, state, at, vector, log & 3); break;
        }
        // phase: checks
        if (status != OK) return status;
        return __any_sync(FULL_WARP, join.found != 0) ? BAD_SYMBOL : end_status(words, state, at);
        // phase: end
    }

    template <class Join>
    DEVICE void decode_symbols(Join &join, Words &words, uint32_t &state, uint32_t &at, bool vector) const {
        uint32_t i = 0;
        // phase: main, 64
#pragma unroll 1
        for (; i + GROUP <= tile.elements; i += GROUP) {
            words.reach(at);
            const uint4 granule = decode_group<Join::WIDE, true>(state, at, GRANULE);
            const uint32_t g = (tile.first + i) / GRANULE + lane;
            if (vector) put_granule(join, g, granule);
            // phase: part of a granule, 0, 0
            else put_elements(join, job, g, granule, GRANULE);
        }
        if (i < tile.elements) {
            words.reach(at);
            const uint32_t before = i + lane * GRANULE;
            const uint32_t count = before < tile.elements ? min(tile.elements - before, GRANULE) : 0;
            const uint4 granule = decode_group<Join::WIDE, false>(state, at, count);
            put_elements(join, job, (tile.first + i) / GRANULE + lane, granule, count);
        }
        // phase: end
    }

    // Letters of 2^log symbols.
    template <class Join>
    DEVICE uint32_t decode_packed(Join &join, Words &words, uint32_t &state, uint32_t &at, bool vector, uint32_t log) const {
        const uint32_t letters = (tile.elements + (1u << log) - 1) >> log;
        uint32_t i = 0;
        // phase: packed, 16
#pragma unroll 1
        for (; i + GROUP <= tile.elements >> log; i += GROUP) {
            words.reach(at);
            const uint4 granule = decode_group<false, true>(state, at, GRANULE);
            put_packed(join, i / GRANULE + lane, granule, log, vector, GRANULE << log);
        }
        // phase: part of a granule, 0, 0
        if (i >= letters) return OK;
        words.reach(at);
        const uint32_t before = i + lane * GRANULE;
        const uint32_t count = before < letters ? min(letters - before, GRANULE) : 0;
        const uint4 granule = decode_group<false, false>(state, at, count);
        const uint32_t elements = min(tile.elements - min(before << log, tile.elements), GRANULE << log);
        put_packed(join, before / GRANULE, granule, log, false, elements);
        // Behind its symbols the last letter has zeros.
        const uint32_t spare = (count << log) - elements;
        const uint32_t last = spare == 0 ? 0 : (count <= 4 ? granule.x : granule.y) >> (8 * (count - 1) & 31) & 0xff;
        return __any_sync(FULL_WARP, last >> (8 - spare * job.width) != 0) ? BAD_PADDING : OK;
        // phase: end
    }

    // Writes the first `count` symbols of granule g of the tile's letters.
    template <class Join>
    DEVICE void put_packed(Join &join, uint32_t g, uint4 granule, uint32_t log, bool vector, uint32_t count) const {
        const uint32_t first = tile.first / GRANULE + (g << log);
        // phase: packed, 64
#pragma unroll 1
        for (uint32_t part = 0; part * GRANULE < count; part++) {
            const uint2 bytes = unpack_letters(granule, part, job.width);
            const uint4 symbols = make_uint4(bytes.x, bytes.y, 0, 0);
            if (vector) put_granule(join, first + part, symbols);
            // phase: part of a granule, 0, 0
            else put_elements(join, job, first + part, symbols, min(count - part * GRANULE, GRANULE));
        }
        // phase: end
    }

    // All words taken, all states back where the encoder began.
    DEVICE uint32_t end_status(const Words &words, uint32_t state, uint32_t at) const {
        if (__any_sync(FULL_WARP, state != LEAST_STATE)) return BAD_STATE;
        if (at > 2 * words.pairs || (at + 1) / 2 != words.pairs) return BAD_LENGTH;
        const bool padded = at % 2 != 0 && __ldg(words.data + at / 2) >> 16 != 0;
        return padded ? BAD_PADDING : OK;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 3) cmz_rans(const Launch launch) {
    CMZ_SHARED_ARRAY(uint32_t, slots, SCALE);
    CMZ_SHARED_ARRAY(uint16_t, symbols, 256);
    CMZ_SHARED_ARRAY(uint32_t, rings, WARPS * RING / 2);
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    // elements: 16384
    // cases: JOIN_BF16, SYMBOLS
    // phase: setup
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    build_slots(launch, job, job.width > 8, slots, symbols);
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, number = span.tile + warp;
    if (number << job.tile_log >= job.elements) return;
    const Tile tile = find_tile(launch, job, number);
    uint32_t status = planes_fit(job, lane) ? tile.status : BAD_LENGTH;
    if (status == OK) status = with_join(job.join, RansTile{launch, job, tile, lane, slots, symbols, rings + warp * (RING / 2)});
    if (lane == 0) report(launch, job, status);
    // phase: end
}
