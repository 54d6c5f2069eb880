// What the host tells the kernels: the same structures as in gpu-decode/src/job.rs.
//
// A *job* decodes one array: the elements of a block, or one component of them into scratch memory. A warp decodes one
// *tile* of it; a thread block of 8 warps decodes 8 consecutive tiles, of the job and from the tile that its *span* names.
// All bytes that kernels read lie in the *image* (jobs, spans, tables, streams; see gpu-decode/src/block.rs) or in scratch memory.
#pragma once
#include "device.cuh"
#include <stddef.h>

constexpr uint32_t WARPS = 8;
constexpr uint32_t THREADS = 32 * WARPS;
// Elements that one lane decodes and joins at a time.
constexpr uint32_t GRANULE = 8;
// Granules of a warp, side by side.
constexpr uint32_t GROUP = 32 * GRANULE;

// Where bytes lie.
enum Place : uint8_t { IN_IMAGE = 0, IN_SCRATCH = 1, IN_OUTPUT = 2 };

// A component whose symbols can be read at any index. Starts on a multiple of 8 bytes, of 4 where it is packed; the 4-byte words that hold its bytes may be read.
struct Plane {
    uint64_t offset;    // in bytes, from its place
    uint8_t place;      // Place
    uint8_t stride;     // bits from one symbol to the next: 8 or 16 (raw), the width (packed), 0 (all are `constant`)
    uint16_t constant;
    uint32_t length;    // in bytes
};

// How elements are put together from components: see the pages of the encodings.
enum JoinKind : uint8_t {
    JOIN_BYTES = 0,
    JOIN_BF16 = 1,
    JOIN_F32 = 2,
    JOIN_F16 = 3,
    JOIN_F8_E5M2 = 4,
    JOIN_F8_E4M3 = 5,
    JOINT_BF16 = 6,
    JOINT_F32 = 7,
    JOINT_F16 = 8,
    // `ternary`, of each FloatKind: the other components are minima and maxima, a brain float for each group.
    JOIN_TERNARY_F16 = 9,
    JOIN_TERNARY_BF16 = 10,
    JOIN_TERNARY_F32 = 11,
};

// Rectangles of elements, counted from the array's and from each row's beginning. As on the host: job.rs.
struct Groups {
    uint64_t by_row, by_rows, by_columns; // for `divide`
    uint32_t row;                         // elements of a row
    uint32_t rows;                        // of a group
    uint32_t columns;                     // of a group
    uint32_t of_row;                      // groups of a row
};

// What JOIN_TERNARY_F16 to _F32 are told besides.
struct Ternary {
    Groups groups;
    uint32_t count; // of groups
    uint32_t spare;
};

struct Job {
    Plane first;            // the component that the kernel decodes: a stream, or a plane for cmz_direct
    Plane others[3];        // the components that are joined with it
    uint64_t out;           // element 0, in bytes, added to the address of its place (modulo 2^64)
    uint64_t table;         // in the image, in bytes, a multiple of 4
    uint32_t table_len;     // entries of 4 bytes
    uint32_t tiles_at;      // end[0] of the stream, in bytes from its start
    uint32_t payload_words; // of 4 bytes, behind the ends
    uint32_t elements;
    uint32_t begin;         // elements begin .. end are written
    uint32_t end;
    uint8_t out_place;      // Place
    uint8_t join;           // JoinKind
    uint8_t width;          // of the first component's symbols, in bits
    uint8_t tile_log;       // a tile has 2^tile_log elements
    uint32_t status;        // index of the status word
    Ternary ternary;
};

struct Span {
    uint32_t job;
    uint32_t tile;
};

// What every kernel takes.
struct Launch {
    const uint8_t *image;
    uint8_t *scratch;
    uint8_t *output;
    const Job *jobs;
    const Span *spans;
    uint32_t *status;
};

static_assert(sizeof(Plane) == 16 && sizeof(Job) == 160 && sizeof(Ternary) == 48 && sizeof(Span) == 8 && sizeof(Launch) == 48, "as on the host");
static_assert(offsetof(Plane, place) == 8 && offsetof(Plane, stride) == 9 && offsetof(Plane, constant) == 10 &&
                  offsetof(Plane, length) == 12,
              "as on the host");
static_assert(offsetof(Job, others) == 16 && offsetof(Job, out) == 64 && offsetof(Job, table) == 72 &&
                  offsetof(Job, table_len) == 80 && offsetof(Job, tiles_at) == 84 && offsetof(Job, payload_words) == 88 &&
                  offsetof(Job, elements) == 92 && offsetof(Job, begin) == 96 && offsetof(Job, end) == 100 &&
                  offsetof(Job, out_place) == 104 && offsetof(Job, join) == 105 && offsetof(Job, width) == 106 &&
                  offsetof(Job, tile_log) == 107 && offsetof(Job, status) == 108 &&
                  offsetof(Job, ternary) == 112,
              "as on the host");

// Why a job failed. What it wrote then is unspecified.
enum Status : uint32_t {
    OK = 0,
    BAD_OFFSET = 1,  // a tile lies outside the stream
    BAD_LENGTH = 2,  // a tile is shorter or longer than its symbols
    BAD_PADDING = 3, // bits that must be zero are not
    BAD_SYMBOL = 4,  // a symbol has bits above its width
    BAD_STATE = 5,   // a state of rANS is not what it must be
    BAD_CHECKSUM = 6, // the decoded bytes have another CRC-32
    BAD_PLACE = 7,    // a value is outside of its row, or not behind the one before it
};

// Copies the job of this thread block to shared memory, where it takes no registers; the caller synchronises.
DEVICE Span load_job(const Launch &launch, Job *job) {
    const Span span = launch.spans[blockIdx.x];
    constexpr uint32_t WORDS = sizeof(Job) / 4;
    if (threadIdx.x < WORDS) ((uint32_t *)job)[threadIdx.x] = __ldg((const uint32_t *)(launch.jobs + span.job) + threadIdx.x);
    return span;
}

DEVICE void report(const Launch &launch, const Job &job, uint32_t status) {
    if (status != OK) atomicMax(&launch.status[job.status], status);
}

// Whether every plane is as long as its elements need: lane by lane, as the first four have one each. A stream has no stride.
DEVICE bool planes_fit(const Job &job, uint32_t lane) {
    const uint32_t i = lane & 3;
    const Plane &plane = i == 0 ? job.first : job.others[i - 1];
    const uint32_t elements = i != 0 && job.join >= JOIN_TERNARY_F16 ? job.ternary.count : job.elements;
    return __all_sync(FULL_WARP, (uint64_t)elements * plane.stride <= (uint64_t)plane.length * 8);
}

DEVICE const uint8_t *address(const Launch &launch, const Plane &plane) {
    return (plane.place == IN_SCRATCH ? launch.scratch : launch.image) + plane.offset;
}

DEVICE uint8_t *out_address(const Launch &launch, const Job &job) {
    return (job.out_place == IN_SCRATCH ? launch.scratch : launch.output) + job.out;
}

// One tile of a stream.
struct Tile {
    const uint32_t *words; // of its payload
    uint32_t count;        // of words
    uint32_t first;        // element
    uint32_t elements;
    uint32_t status;
};

// Finds a tile by the stream's list of ends, and checks that it lies in the payload.
DEVICE Tile find_tile(const Launch &launch, const Job &job, uint32_t tile) {
    const uint32_t *ends = (const uint32_t *)(address(launch, job.first) + job.tiles_at);
    const uint32_t tiles = (uint32_t)(((uint64_t)job.elements + (1u << job.tile_log) - 1) >> job.tile_log);
    const uint32_t begin = __ldg(ends + tile), end = __ldg(ends + tile + 1);
    const uint32_t first = tile << job.tile_log, left = job.elements - first, full = 1u << job.tile_log;
    const bool inside = begin <= end && end <= job.payload_words;
    return {ends + tiles + 1 + (inside ? begin : 0), inside ? end - begin : 0, first, left < full ? left : full,
            inside ? OK : BAD_OFFSET};
}
