// Nested bit planes, one warp a tile of 4096 elements. See SPEC.md.
//
// Tiers are counted from the top down, which gives the place of every part of the tile, and decoded from the bottom up. Tier 0 stays in
// registers and the tiers below in shared memory. Eight elements are decoded at once: their two plane bits are looked up in a table of selectors, with
// which one byte select takes both the named symbols and the escaped ones.
#include "join.cuh"

constexpr uint32_t TILE = 4096;
// What a tile of the fast path has at most: elements of tier 1, of tier 2, and bytes behind tier 0. Others take slow_tile.
constexpr uint32_t MOST_TIER_1 = 2560;
constexpr uint32_t MOST_TIER_2 = 768;
constexpr uint32_t MOST_TAIL = 1024;

// Shared memory of a warp, in bytes: first the decoded bytes of tier 1 (before: of tier 3), then either the tail and the decoded bytes of
// tier 2, or the group words. Windows of bytes are read as whole words, hence the slack.
constexpr uint32_t SLACK = 16;
constexpr uint32_t LOWER = MOST_TIER_1 + SLACK;
// Group words of one step of the main loop: 32, and 4 so that stores of 16 bytes do not meet in a bank.
constexpr uint32_t STEP_WORDS = 36;
constexpr uint32_t UPPER = 16 * STEP_WORDS * 4;
constexpr uint32_t TIER_2 = MOST_TAIL + SLACK;
constexpr uint32_t SELECTORS = WARPS * (LOWER + UPPER) / 4; // in words
static_assert(TIER_2 + MOST_TIER_2 + SLACK <= UPPER && LOWER % 16 == 0 && UPPER % 16 == 0, "the parts fit");
static_assert(WARPS * LOWER < 65536, "addresses of escapes fit half a word");

// For four low plane bits and four high ones: a selector of bytes (0 to 2: a symbol, 4 on: the next escape), and above it eight
// times the number of escapes.
struct SelectorTable {
    uint32_t of[256];
    constexpr SelectorTable() : of() {
        for (uint32_t planes = 0; planes < 256; planes++) {
            uint32_t selector = 0, escapes = 0;
            for (uint32_t i = 0; i < 4; i++) {
                const uint32_t code = (planes >> i & 1) | (planes >> (i + 3) & 2);
                selector |= (code == 3 ? 4 + escapes++ : code) << 4 * i;
            }
            of[planes] = selector | escapes << 19;
        }
    }
};
__device__ const SelectorTable selector_table;

// A group is eight elements; its key has the planes of elements 0 to 3 in the low byte, of 4 to 7 in the high one.
DEVICE uint32_t group_key(uint32_t low, uint32_t high) {
    return bit_select(low, high << 4, 0xf0u) | bit_select(low >> 4, high, 0xf0u) << 8;
}

struct Selectors {
    uint32_t a, b;  // of elements 0 to 3, 4 to 7
    uint32_t bits;  // of escapes among elements 0 to 3
    uint32_t count; // of escapes among all eight
};

DEVICE Selectors select(const uint32_t *shared, uint32_t key) {
    const uint32_t a = shared[SELECTORS + (key & 255)], b = shared[SELECTORS + (key >> 8 & 255)];
    return {a, b, a >> 16, ((a >> 16) + (b >> 16)) >> 3};
}

// Eight elements; the first escape is at byte `at & MASK` of shared memory.
template <uint32_t MASK>
DEVICE uint2 expand(const uint32_t *shared, uint32_t at, uint32_t names, const Selectors &selectors) {
    const uint32_t *window = (const uint32_t *)((const char *)shared + (at & (MASK & ~3u)));
    const uint32_t w0 = window[0], w1 = window[1], w2 = window[2], shift = at * 8u; // funnel shifts take it modulo 32
    const uint32_t low = __funnelshift_r(w0, w1, shift), high = __funnelshift_r(w1, w2, shift);
    return make_uint2(byte_select(names, low, selectors.a),
                      byte_select(names, __funnelshift_rc(low, high, selectors.bits), selectors.b));
}

DEVICE uint32_t shared_byte(const uint32_t *shared, uint32_t at) { return ((const uint8_t *)shared)[at]; }

// A tier below the top: its planes begin at byte `at`. Each lane has a run of the groups.
struct Tier {
    uint32_t at, groups;

    DEVICE Tier(uint32_t at, uint32_t elements) : at(at), groups((elements + 7) >> 3) {}
    DEVICE uint32_t behind() const { return at + 2 * groups; }
    DEVICE uint32_t begin(uint32_t lane) const { return min(lane * ((groups + 31) >> 5), groups); }

    DEVICE uint32_t escapes(const uint32_t *shared, uint32_t lane) const {
        uint32_t count = 0;
#pragma unroll 1
        for (uint32_t g = begin(lane), end = begin(lane + 1); g < end; g++) {
            count += __popc(shared_byte(shared, at + g) & shared_byte(shared, at + groups + g));
        }
        return count;
    }
    // Whether the bits behind the last element are zero.
    DEVICE bool padded(const uint32_t *shared, uint32_t elements) const {
        if ((elements & 7) == 0) return true;
        return (shared_byte(shared, at + groups - 1) | shared_byte(shared, at + 2 * groups - 1)) >> (elements & 7) == 0;
    }
    // Writes this lane's groups to `out`; its first escape is at byte `escape`.
    DEVICE void decode(uint32_t *shared, uint32_t names, uint32_t escape, uint32_t out, uint32_t lane) const {
#pragma unroll 1
        for (uint32_t g = begin(lane), end = begin(lane + 1); g < end; g++) {
            const uint32_t key = group_key(shared_byte(shared, at + g), shared_byte(shared, at + groups + g));
            const Selectors selectors = select(shared, key);
            *(uint2 *)((char *)shared + out + 8 * g) = expand<~0u>(shared, escape, names, selectors);
            escape += selectors.count;
        }
    }
};

// The group words of a lane's 128 elements: key in the high half, address of the first escape in the low one.
DEVICE void write_groups(const uint32_t *low, const uint32_t *high, uint32_t escape, uint4 *out) {
#pragma unroll
    for (int w = 0; w < 4; w++) {
        const uint32_t escapes = low[w] & high[w];
        const uint32_t a = bit_select(low[w], high[w] << 4, 0xf0f0f0f0u), b = bit_select(low[w] >> 4, high[w], 0xf0f0f0f0u);
        const uint32_t keys01 = byte_select(a, b, 0x5140), keys23 = byte_select(a, b, 0x7362);
        const uint32_t escape1 = escape + __popc(escapes & 0xffu), escape2 = escape + __popc(escapes & 0xffffu),
                       escape3 = escape + __popc(escapes & 0xffffffu);
        out[w] = make_uint4(byte_select(escape, keys01, 0x5410), byte_select(escape1, keys01, 0x7610),
                            byte_select(escape2, keys23, 0x5410), byte_select(escape3, keys23, 0x7610));
        escape += __popc(escapes);
    }
}

// The elements of a whole tile, from the group words.
template <class Join>
DEVICE uint32_t join_tile(const Launch &launch, const Job &job, const Tile &tile, const uint32_t *shared, const uint32_t *groups,
                          uint32_t names, uint32_t lane) {
    Join join(launch, job);
    const uint32_t first = tile.first / GRANULE + lane;
    // phase: main, 16/2
#pragma unroll 2
    for (uint32_t step = 0; step < TILE / GROUP; step++) {
        const uint32_t group = groups[STEP_WORDS * step + lane];
        const uint2 symbols = expand<0xffffu>(shared, group, names, select(shared, group >> 16));
        join.granule(first + 32 * step, symbols.x, symbols.y);
    }
    // phase: end
    return __any_sync(FULL_WARP, join.found != 0) ? BAD_SYMBOL : OK;
}

// Code of element i of a tier of so many groups.
DEVICE uint32_t plane_code(const uint8_t *planes, uint32_t groups, uint32_t i) {
    return (planes[i >> 3] >> (i & 7) & 1) | (planes[groups + (i >> 3)] >> (i & 7) & 1) << 1;
}

// Where a tier of a tile begins, and how many elements it has; the last one is the rest. In shared memory, where a warp has them once.
struct Extent {
    uint32_t at, elements;
};

DEVICE uint32_t find_tiers(const Tile &tile, Extent *tiers, uint32_t lane) {
    const uint8_t *bytes = (const uint8_t *)tile.words;
    const uint32_t len = tile.count * 4;
    uint32_t at = 0, elements = tile.elements;
#pragma unroll 1
    for (int t = 0; t < 4; t++) {
        const uint32_t groups = (elements + 7) >> 3;
        if (len - at < 2 * groups) return BAD_LENGTH;
        uint32_t escapes = 0, spare = 0, total;
        for (uint32_t i = lane; i < groups * 8; i += 32) {
            const uint32_t code = plane_code(bytes + at, groups, i);
            escapes += code == 3;
            if (i >= elements) spare |= code;
        }
        if (__any_sync(FULL_WARP, spare != 0)) return BAD_PADDING;
        exclusive_sum(escapes, total);
        if (lane == 0) tiers[t] = {at, elements};
        at += 2 * groups;
        elements = total;
    }
    if (lane == 0) tiers[4] = {at, elements};
    __syncwarp();
    if ((at + elements + 3) / 4 != tile.count) return BAD_LENGTH;
    const uint32_t behind = at + elements + lane;
    return __any_sync(FULL_WARP, behind < len && bytes[behind] != 0) ? BAD_PADDING : OK;
}

// Elements whose symbols are in shared memory.
struct StagedElements {
    const Launch &launch;
    const Job &job;
    const Tile &tile;
    const uint8_t *symbols;
    uint32_t first, elements, lane;
    template <class Join> DEVICE uint32_t run() const {
        Join join(launch, job);
#pragma unroll 1
        for (uint32_t i = lane; i < elements; i += 32) {
            if (first + i >= job.begin && first + i < job.end) join.element(first + i, symbols[i]);
        }
        return __any_sync(FULL_WARP, join.found != 0) ? BAD_SYMBOL : OK;
    }
};

// Any tile, however many escapes and elements it has: 32 elements at a time through all tiers, with a place in each.
DEVICE uint32_t slow_tile(const Launch &launch, const Job &job, const Tile &tile, const uint32_t *names, uint32_t *shared, uint32_t warp,
                          uint32_t lane) {
    constexpr uint32_t STAGED = 1024;
    static_assert(STAGED <= LOWER && 5 * sizeof(Extent) <= UPPER, "fits the memory of a warp");
    uint8_t *symbols = (uint8_t *)shared + warp * LOWER;
    Extent *tiers = (Extent *)((uint8_t *)shared + WARPS * LOWER + warp * UPPER);
    uint32_t status = find_tiers(tile, tiers, lane);
    const uint8_t *bytes = (const uint8_t *)tile.words;
    const uint32_t below = (1u << lane) - 1;
    uint32_t place = 0; // lane t: in tier t + 1
#pragma unroll 1
    for (uint32_t begin = 0; status == OK && begin < tile.elements; begin += STAGED) {
        const uint32_t count = min(tile.elements - begin, STAGED);
#pragma unroll 1
        for (uint32_t i = lane; i < STAGED; i += 32) {
            uint32_t symbol = 0, index = begin + i;
            bool escaped = i < count;
#pragma unroll 1
            for (uint32_t t = 0; t < 5; t++) {
                if (t > 0) {
                    const uint32_t escapes = __ballot_sync(FULL_WARP, escaped);
                    index = __shfl_sync(FULL_WARP, place, t - 1) + __popc(escapes & below);
                    if (lane == t - 1) place += __popc(escapes);
                }
                if (!escaped) continue;
                if (t == 4) {
                    symbol = bytes[tiers[4].at + index];
                } else {
                    const uint32_t code = plane_code(bytes + tiers[t].at, (tiers[t].elements + 7) >> 3, index);
                    escaped = code == 3;
                    if (!escaped) symbol = __ldg(names + t) >> 8 * code & 0xff;
                }
            }
            symbols[i] = (uint8_t)symbol;
        }
        __syncwarp();
        status = with_join(job.join, StagedElements{launch, job, tile, symbols, tile.first + begin, count, lane});
        __syncwarp();
    }
    return status;
}

struct FastTile {
    const Launch &launch;
    const Job &job;
    const Tile &tile;
    const uint32_t *shared, *groups;
    uint32_t names, lane;
    template <class Join> DEVICE uint32_t run() const {
        if constexpr (Join::WIDE) return BAD_SYMBOL;
        else return join_tile<Join>(launch, job, tile, shared, groups, names, lane);
    }
};

constexpr uint32_t NOT_FAST = ~0u;

// A whole tile with few escapes: everything but the last join. NOT_FAST if it has too many.
DEVICE uint32_t fast_tile(const Job &job, const Tile &tile, const uint32_t *names, uint32_t *shared, uint32_t warp, uint32_t lane) {
    const uint32_t lower = warp * LOWER, upper = WARPS * LOWER + warp * UPPER;
    // phase: planes
    uint32_t low[4], high[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        low[i] = __ldg(tile.words + 4 * lane + i);
        high[i] = __ldg(tile.words + TILE / 32 + 4 * lane + i);
    }
    // phase: tail
    const uint32_t *tail = tile.words + TILE / 16;
    const uint32_t tail_words = tile.count - TILE / 16;
#pragma unroll
    for (uint32_t i = lane; i < 128; i += 32) {
        if (i < tail_words) shared[upper / 4 + i] = __ldg(tail + i);
    }
    // phase: long tail, 0
#pragma unroll 1
    for (uint32_t i = lane + 128; i < tail_words; i += 32) shared[upper / 4 + i] = __ldg(tail + i);
    // phase: count 0
    uint32_t escapes = 0, elements;
#pragma unroll
    for (int i = 0; i < 4; i++) escapes += __popc(low[i] & high[i]);
    const uint32_t rank1 = exclusive_sum(escapes, elements);
    __syncwarp();
    if (elements > MOST_TIER_1) return NOT_FAST;
    const uint32_t end = upper + tail_words * 4;
    // phase: count 1, 5.1
    const Tier tier1(upper, elements);
    if (tier1.behind() > end) return BAD_LENGTH;
    bool padded = tier1.padded(shared, elements);
    const uint32_t rank2 = exclusive_sum(tier1.escapes(shared, lane), elements);
    if (elements > MOST_TIER_2) return NOT_FAST;
    // phase: count 2, 1.2
    const Tier tier2(tier1.behind(), elements);
    if (tier2.behind() > end) return BAD_LENGTH;
    padded &= tier2.padded(shared, elements);
    const uint32_t rank3 = exclusive_sum(tier2.escapes(shared, lane), elements);
    // phase: count 3, 1.0
    const Tier tier3(tier2.behind(), elements);
    if (tier3.behind() > end) return BAD_LENGTH;
    padded &= tier3.padded(shared, elements);
    const uint32_t rank4 = exclusive_sum(tier3.escapes(shared, lane), elements), rest = tier3.behind();
    // phase: checks
    if ((rest - upper + elements + 3) / 4 != tail_words) return BAD_LENGTH;
    const uint32_t behind = rest + elements + lane;
    if (__any_sync(FULL_WARP, !padded || (behind < end && shared_byte(shared, behind) != 0))) return BAD_PADDING;
    // phase: tier 3, 1.0
    tier3.decode(shared, __ldg(names + 3), rest + rank4, lower, lane);
    __syncwarp();
    // phase: tier 2, 1.2
    tier2.decode(shared, __ldg(names + 2), lower + rank3, upper + TIER_2, lane);
    __syncwarp();
    // phase: tier 1, 5.1
    tier1.decode(shared, __ldg(names + 1), upper + TIER_2 + rank2, lower, lane);
    __syncwarp();
    // phase: groups
    write_groups(low, high, lower + rank1, (uint4 *)(shared + upper / 4 + (lane >> 1) * STEP_WORDS + (lane & 1) * 16));
    __syncwarp();
    // phase: end
    return OK;
}

// CTAs on a multiprocessor. The shared memory of sm_90 has room for five, but with 48 registers a thread sm_75 to sm_89 would spill.
constexpr uint32_t CTAS = 4;

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) cmz_tiered(const Launch launch) {
    CMZ_SHARED_ARRAY(uint32_t, shared, SELECTORS + 256);
    // elements: 4096
    // cases: JOIN_BF16
    // phase: setup
    shared[SELECTORS + threadIdx.x] = selector_table.of[threadIdx.x];
    CMZ_SHARED_ARRAY(Job, jobs, 1);
    const Span span = load_job(launch, jobs);
    const Job &job = *jobs;
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5, number = span.tile + warp;
    if (number * TILE >= job.elements) return;
    const Tile tile = find_tile(launch, job, number);
    uint32_t status = planes_fit(job, lane) ? tile.status : BAD_LENGTH;
    if (status == OK) {
        const uint32_t *names = (const uint32_t *)(launch.image + job.table); // of each tier three symbols, lowest byte first
        status = NOT_FAST;
        if (tile.elements == TILE && tile.count >= TILE / 16 && tile.count * 4 <= TILE / 4 + MOST_TAIL && whole(launch, job, tile)) {
            status = fast_tile(job, tile, names, shared, warp, lane);
            if (status == OK) {
                const uint32_t *groups = shared + (WARPS * LOWER + warp * UPPER) / 4;
                status = with_join(job.join, FastTile{launch, job, tile, shared, groups, __ldg(names), lane});
            }
        }
        // phase: slow, 0, 0
        if (status == NOT_FAST) {
            // What the fast path has read is written again.
            __syncwarp();
            status = slow_tile(launch, job, tile, names, shared, warp, lane);
        }
    }
    // phase: end
    if (lane == 0) report(launch, job, status);
}
