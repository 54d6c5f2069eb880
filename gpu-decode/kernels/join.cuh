// Joins: elements from their components. One `Join` for each kind, with
//
//   WIDE                    whether symbols of the first component have more than 8 bits
//   granule(g, a, b)        writes elements 8 g .. 8 g + 7, from eight symbols: bytes, lowest first (WIDE: four words of two)
//   element(i, symbol)      writes one element
//
// The elements are those of the pages of float_planes, float_joint, plain and ternary.
#pragma once
#include "groups.cuh"

// The other components of a join: symbols of W bits, packed or one to a byte, or all the same.
template <int W> struct Symbols {
    const uint8_t *data;
    uint32_t stride, constant;

    DEVICE Symbols(const Launch &launch, const Plane &plane)
        : data(address(launch, plane)), stride(plane.stride), constant(plane.constant) {}

    // Eight symbols as bytes.
    DEVICE uint2 granule(uint32_t g) const {
        if (stride == 8) return __ldg((const uint2 *)data + g);
        if (stride == 0) return make_uint2(constant * 0x01010101u, constant * 0x01010101u);
        return unpack(g);
    }

    DEVICE uint2 unpack(uint32_t g) const {
        // Eight symbols are W bytes, at most two words: W is 3, 4 or 6.
        const uint32_t at = g * W, shift = 8 * (at & 3);
        const uint32_t *words = (const uint32_t *)data + (at >> 2);
        const uint32_t w0 = __ldg(words), w1 = shift + 8 * W > 32 ? __ldg(words + 1) : 0;
        const uint32_t low = __funnelshift_r(w0, w1, shift), high = w1 >> shift;
        uint32_t bytes[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int bit = i * W;
            const uint32_t symbol = bit >= 32 ? high >> (bit - 32) : __funnelshift_r(low, high, bit);
            bytes[i / 4] |= (symbol & ((1u << W) - 1)) << 8 * (i % 4);
        }
        return make_uint2(bytes[0], bytes[1]);
    }

    DEVICE uint32_t element(uint32_t i) const {
        if (stride == 8) return data[i];
        if (stride == 0) return constant;
        const uint32_t bit = i * W, at = bit >> 3;
        const uint32_t high = (bit & 7) + W > 8 ? data[at + 1] : 0;
        return ((data[at] | high << 8) >> (bit & 7)) & ((1u << W) - 1);
    }
};

// Symbols of 8 bits are always bytes: the host sees to that, as pointers alone leave the joins enough registers.
template <> struct Symbols<8> {
    const uint8_t *data;

    DEVICE Symbols(const Launch &launch, const Plane &plane) : data(address(launch, plane)) {}
    DEVICE uint2 granule(uint32_t g) const { return __ldg((const uint2 *)data + g); }
    DEVICE uint32_t element(uint32_t i) const { return data[i]; }
};

// Bytes to pairs of 16-bit numbers.
DEVICE uint32_t low_pair(uint32_t bytes) { return byte_select(bytes, 0, 0x4140); }
DEVICE uint32_t high_pair(uint32_t bytes) { return byte_select(bytes, 0, 0x4342); }

// Four exponents and four sign-and-mantissa bytes trade their top bits: two pairs of BF16.
DEVICE void trade(uint32_t exponent, uint32_t sign_mantissa, uint32_t &pair0, uint32_t &pair1) {
    const uint32_t high = bit_select(exponent, sign_mantissa, 0x80808080u);
    const uint32_t low = bit_select(sign_mantissa, exponent, 0x80808080u);
    pair0 = byte_select(low, high, 0x5140);
    pair1 = byte_select(low, high, 0x7362);
}

// Collects bits above the width of the first component's symbols, where they have less than 8 bits.
struct Narrow {
    uint32_t spare, found;
    DEVICE Narrow(const Job &job) : spare((0xffu << job.width & 0xffu) * 0x01010101u), found(0) {}
    DEVICE void check(uint32_t symbols) { found |= symbols & spare; }
};

struct JoinBytes : Narrow {
    static constexpr bool WIDE = false;
    uint8_t *out;
    DEVICE JoinBytes(const Launch &launch, const Job &job) : Narrow(job), out(out_address(launch, job)) {}
    DEVICE void granule(uint32_t g, uint32_t a, uint32_t b) {
        check(a | b);
        __stcs((uint2 *)out + g, make_uint2(a, b));
    }
    DEVICE void element(uint32_t i, uint32_t symbol) {
        check(symbol);
        out[i] = (uint8_t)symbol;
    }
};

struct JoinBf16 {
    static constexpr bool WIDE = false;
    static constexpr uint32_t found = 0;
    Symbols<8> sign_mantissa;
    uint8_t *out;
    DEVICE JoinBf16(const Launch &launch, const Job &job)
        : sign_mantissa(launch, job.others[0]), out(out_address(launch, job)) {}
    DEVICE void granule(uint32_t g, uint32_t a, uint32_t b) {
        const uint2 sm = sign_mantissa.granule(g);
        uint4 pairs;
        trade(a, sm.x, pairs.x, pairs.y);
        trade(b, sm.y, pairs.z, pairs.w);
        __stcs((uint4 *)out + g, pairs);
    }
    DEVICE void element(uint32_t i, uint32_t symbol) {
        const uint32_t sm = sign_mantissa.element(i);
        out[2 * i] = (uint8_t)bit_select(sm, symbol, 0x80);
        out[2 * i + 1] = (uint8_t)bit_select(symbol, sm, 0x80);
    }
};

// The two low bytes of F32, and how they get below the two high ones.
struct LowBytes {
    Symbols<8> mantissa_1, mantissa_0;
    uint8_t *out;
    DEVICE LowBytes(const Launch &launch, const Job &job)
        : mantissa_1(launch, job.others[1]), mantissa_0(launch, job.others[2]), out(out_address(launch, job)) {}
    DEVICE void granule(uint32_t g, uint4 pairs) {
        const uint2 m1 = mantissa_1.granule(g), m0 = mantissa_0.granule(g);
        const uint32_t low0 = byte_select(m0.x, m1.x, 0x5140), low1 = byte_select(m0.x, m1.x, 0x7362);
        const uint32_t low2 = byte_select(m0.y, m1.y, 0x5140), low3 = byte_select(m0.y, m1.y, 0x7362);
        uint4 *words = (uint4 *)out + 2 * g;
        __stcs(words, make_uint4(byte_select(low0, pairs.x, 0x5410), byte_select(low0, pairs.x, 0x7632),
                                 byte_select(low1, pairs.y, 0x5410), byte_select(low1, pairs.y, 0x7632)));
        __stcs(words + 1, make_uint4(byte_select(low2, pairs.z, 0x5410), byte_select(low2, pairs.z, 0x7632),
                                     byte_select(low3, pairs.w, 0x5410), byte_select(low3, pairs.w, 0x7632)));
    }
    DEVICE void element(uint32_t i, uint32_t high) {
        out[4 * i] = (uint8_t)mantissa_0.element(i);
        out[4 * i + 1] = (uint8_t)mantissa_1.element(i);
        out[4 * i + 2] = (uint8_t)high;
        out[4 * i + 3] = (uint8_t)(high >> 8);
    }
};

struct JoinF32 {
    static constexpr bool WIDE = false;
    static constexpr uint32_t found = 0;
    Symbols<8> sign_mantissa;
    LowBytes low;
    DEVICE JoinF32(const Launch &launch, const Job &job) : sign_mantissa(launch, job.others[0]), low(launch, job) {}
    DEVICE void granule(uint32_t g, uint32_t a, uint32_t b) {
        const uint2 sm = sign_mantissa.granule(g);
        uint4 pairs;
        trade(a, sm.x, pairs.x, pairs.y);
        trade(b, sm.y, pairs.z, pairs.w);
        low.granule(g, pairs);
    }
    DEVICE void element(uint32_t i, uint32_t symbol) {
        const uint32_t sm = sign_mantissa.element(i);
        low.element(i, bit_select(sm, symbol, 0x80) | bit_select(symbol, sm, 0x80) << 8);
    }
};

struct JoinF16 : Narrow {
    static constexpr bool WIDE = false;
    Symbols<3> sign_mantissa;
    Symbols<8> mantissa_0;
    uint8_t *out;
    DEVICE JoinF16(const Launch &launch, const Job &job)
        : Narrow(job), sign_mantissa(launch, job.others[0]), mantissa_0(launch, job.others[1]),
          out(out_address(launch, job)) {}
    static DEVICE uint32_t join(uint32_t exponent, uint32_t sm, uint32_t m0) {
        return exponent << 10 | (sm & 0x00040004u) << 13 | (sm & 0x00030003u) << 8 | m0;
    }
    DEVICE void granule(uint32_t g, uint32_t a, uint32_t b) {
        check(a | b);
        const uint2 sm = sign_mantissa.granule(g), m0 = mantissa_0.granule(g);
        __stcs((uint4 *)out + g, make_uint4(join(low_pair(a), low_pair(sm.x), low_pair(m0.x)),
                                            join(high_pair(a), high_pair(sm.x), high_pair(m0.x)),
                                            join(low_pair(b), low_pair(sm.y), low_pair(m0.y)),
                                            join(high_pair(b), high_pair(sm.y), high_pair(m0.y))));
    }
    DEVICE void element(uint32_t i, uint32_t symbol) {
        check(symbol);
        const uint32_t v = join(symbol, sign_mantissa.element(i), mantissa_0.element(i));
        out[2 * i] = (uint8_t)v;
        out[2 * i + 1] = (uint8_t)(v >> 8);
    }
};

// F8 with M bits of mantissa: 2 or 3.
template <int M> struct JoinF8 : Narrow {
    static constexpr bool WIDE = false;
    Symbols<M + 1> sign_mantissa;
    uint8_t *out;
    DEVICE JoinF8(const Launch &launch, const Job &job)
        : Narrow(job), sign_mantissa(launch, job.others[0]), out(out_address(launch, job)) {}
    static DEVICE uint32_t join(uint32_t exponent, uint32_t sm) {
        constexpr uint32_t MANTISSA = ((1u << M) - 1) * 0x01010101u, SIGN = (1u << M) * 0x01010101u;
        return (sm & SIGN) << (7 - M) | (exponent << M & ~MANTISSA & 0x7f7f7f7fu) | (sm & MANTISSA);
    }
    DEVICE void granule(uint32_t g, uint32_t a, uint32_t b) {
        check(a | b);
        const uint2 sm = sign_mantissa.granule(g);
        __stcs((uint2 *)out + g, make_uint2(join(a, sm.x), join(b, sm.y)));
    }
    DEVICE void element(uint32_t i, uint32_t symbol) {
        check(symbol);
        out[i] = (uint8_t)join(symbol, sign_mantissa.element(i));
    }
};

// Pairs of the two high bytes, from pairs of 10 bits and six-bit bytes.
DEVICE uint32_t joint_pair(uint32_t exponent_mantissa, uint32_t sm) {
    return exponent_mantissa << 5 | (sm & 0x00200020u) << 10 | (sm & 0x001f001fu);
}

DEVICE uint4 joint_pairs(uint4 exponent_mantissa, uint2 sm) {
    return make_uint4(joint_pair(exponent_mantissa.x, low_pair(sm.x)), joint_pair(exponent_mantissa.y, high_pair(sm.x)),
                      joint_pair(exponent_mantissa.z, low_pair(sm.y)), joint_pair(exponent_mantissa.w, high_pair(sm.y)));
}

struct JointBf16 {
    static constexpr bool WIDE = true;
    static constexpr uint32_t found = 0;
    Symbols<6> sign_mantissa;
    uint8_t *out;
    DEVICE JointBf16(const Launch &launch, const Job &job)
        : sign_mantissa(launch, job.others[0]), out(out_address(launch, job)) {}
    DEVICE void granule(uint32_t g, uint4 symbols) {
        __stcs((uint4 *)out + g, joint_pairs(symbols, sign_mantissa.granule(g)));
    }
    DEVICE void element(uint32_t i, uint32_t symbol) {
        const uint32_t v = joint_pair(symbol, sign_mantissa.element(i));
        out[2 * i] = (uint8_t)v;
        out[2 * i + 1] = (uint8_t)(v >> 8);
    }
};

struct JointF32 {
    static constexpr bool WIDE = true;
    static constexpr uint32_t found = 0;
    Symbols<6> sign_mantissa;
    LowBytes low;
    DEVICE JointF32(const Launch &launch, const Job &job) : sign_mantissa(launch, job.others[0]), low(launch, job) {}
    DEVICE void granule(uint32_t g, uint4 symbols) { low.granule(g, joint_pairs(symbols, sign_mantissa.granule(g))); }
    DEVICE void element(uint32_t i, uint32_t symbol) { low.element(i, joint_pair(symbol, sign_mantissa.element(i))); }
};

struct JointF16 {
    static constexpr bool WIDE = false;
    static constexpr uint32_t found = 0;
    Symbols<8> sign_mantissa;
    uint8_t *out;
    DEVICE JointF16(const Launch &launch, const Job &job)
        : sign_mantissa(launch, job.others[0]), out(out_address(launch, job)) {}
    static DEVICE uint32_t join(uint32_t exponent_mantissa, uint32_t sm) {
        return exponent_mantissa << 7 | (sm & 0x00800080u) << 8 | (sm & 0x007f007fu);
    }
    DEVICE void granule(uint32_t g, uint32_t a, uint32_t b) {
        const uint2 sm = sign_mantissa.granule(g);
        __stcs((uint4 *)out + g,
               make_uint4(join(low_pair(a), low_pair(sm.x)), join(high_pair(a), high_pair(sm.x)),
                          join(low_pair(b), low_pair(sm.y)), join(high_pair(b), high_pair(sm.y))));
    }
    DEVICE void element(uint32_t i, uint32_t symbol) {
        const uint32_t v = join(symbol, sign_mantissa.element(i));
        out[2 * i] = (uint8_t)v;
        out[2 * i + 1] = (uint8_t)(v >> 8);
    }
};

// Eight symbols of two bits to a byte each.
DEVICE uint2 spread_pairs(uint32_t symbols) {
    const uint32_t low = (symbols | symbols << 12) & 0x000f000fu, high = (symbols >> 8 | symbols << 4) & 0x000f000fu;
    return make_uint2((low | low << 6) & 0x03030303u, (high | high << 6) & 0x03030303u);
}

// Four ternary symbols, a byte each, as selectors of `byte_select` with a pair of 16-bit numbers: 0, the low one, the high one. The
// lower half of the selectors is of the first two symbols.
DEVICE uint32_t ternary_selectors(uint32_t symbols) {
    return ((symbols << 1) + 0x06060606u & 0x07070707u) * 0x11 + 0x10101010u;
}

// 0 and the two numbers of a group, as elements of type KIND.
template <uint8_t KIND> struct JoinTernary {
    static constexpr bool WIDE = false;
    const Job &job;
    const uint16_t *minima, *maxima;
    uint8_t *out;
    uint32_t found;        // symbols that are not ternary
    uint32_t end, numbers; // of the group of the last granule, up to the end of its row: a lane's granules ascend

    DEVICE JoinTernary(const Launch &launch, const Job &job)
        : job(job), minima((const uint16_t *)address(launch, job.others[0])),
          maxima((const uint16_t *)address(launch, job.others[1])), out(out_address(launch, job)), found(0), end(0), numbers(0) {}

    // The high 16 bits of a number in the elements' type, the others being 0.
    DEVICE uint32_t number(const uint16_t *numbers, uint32_t group) const {
        const uint32_t bits = __ldg(numbers + group);
        return KIND == FLOAT_F16 ? float_bits(__uint_as_float(bits << 16), FLOAT_F16) : bits;
    }
    DEVICE uint32_t pair(uint32_t group) const { return number(minima, group) | number(maxima, group) << 16; }

    DEVICE void put(uint32_t i, uint32_t symbol, uint32_t group) const {
        const uint32_t bits = symbol == 0 ? 0 : number(symbol == 1 ? minima : maxima, group);
        if (KIND == FLOAT_F32) *((uint32_t *)out + i) = bits << 16;
        else *((uint16_t *)out + i) = (uint16_t)bits;
    }
    DEVICE void granule(uint32_t g, uint32_t a, uint32_t b) {
        found |= ((a | b) & 0xfcfcfcfcu) | (a & a >> 1 & 0x01010101u) | (b & b >> 1 & 0x01010101u);
        const uint32_t first = g * GRANULE;
        if (first + GRANULE > end) {
            // phase: other groups, 3
            const Groups &groups = job.ternary.groups;
            GroupWalk walk(groups, first);
            if (!walk.granule_in_group()) {
                // phase: parts of groups, 0, 0
#pragma unroll 1
                for (uint32_t j = 0; j < GRANULE; j++) {
                    put(first + j, (j < 4 ? a : b) >> 8 * (j & 3) & 0xff, walk.group);
                    if (j + 1 < GRANULE) walk.next();
                }
                return;
                // phase: other groups, 3
            }
            end = first + min(groups.row - walk.column, groups.columns - walk.in_group);
            numbers = pair(walk.group);
            // phase: end
        }
        const uint32_t low = ternary_selectors(a), high = ternary_selectors(b);
        const uint4 pairs = make_uint4(byte_select(numbers, 0, low), byte_select(numbers, 0, low >> 16),
                                       byte_select(numbers, 0, high), byte_select(numbers, 0, high >> 16));
        if (KIND == FLOAT_F32) {
            uint4 *words = (uint4 *)out + 2 * (uint64_t)g;
            __stcs(words, make_uint4(pairs.x << 16, pairs.x & 0xffff0000u, pairs.y << 16, pairs.y & 0xffff0000u));
            __stcs(words + 1, make_uint4(pairs.z << 16, pairs.z & 0xffff0000u, pairs.w << 16, pairs.w & 0xffff0000u));
        } else {
            __stcs((uint4 *)out + g, pairs);
        }
    }
    // The output may lie anywhere: byte by byte.
    DEVICE void element(uint32_t i, uint32_t symbol) {
        found |= symbol > 2;
        const GroupWalk walk(job.ternary.groups, i);
        const uint32_t bits = symbol == 0 ? 0 : number(symbol == 1 ? minima : maxima, walk.group);
        constexpr bool wide = KIND == FLOAT_F32;
        uint8_t *const to = out + (wide ? 4 : 2) * (uint64_t)i;
        if (wide) to[0] = to[1] = 0;
        to[wide ? 2 : 0] = (uint8_t)bits;
        to[wide ? 3 : 1] = (uint8_t)(bits >> 8);
    }
};

// Whether granules can be written whole: the tile's elements are all wanted, and their address allows wide stores.
DEVICE bool whole(const Launch &launch, const Job &job, const Tile &tile) {
    return tile.first >= job.begin && tile.first + tile.elements <= job.end && ((uint64_t)out_address(launch, job) & 15) == 0;
}

// Writes the elements of granule g that are wanted, one by one.
template <class Join> DEVICE void put_elements(Join &join, const Job &job, uint32_t g, uint4 symbols, uint32_t count) {
    const uint64_t low = symbols.x | (uint64_t)symbols.y << 32, high = symbols.z | (uint64_t)symbols.w << 32;
#pragma unroll 1
    for (uint32_t j = 0; j < count; j++) {
        const uint32_t i = g * GRANULE + j;
        if (i < job.begin || i >= job.end) continue;
        join.element(i, Join::WIDE ? (uint32_t)((j < 4 ? low : high) >> 16 * (j & 3)) & 0xffff
                                   : (uint32_t)(low >> 8 * j) & 0xff);
    }
}

template <class Join> DEVICE void put_granule(Join &join, uint32_t g, uint4 symbols) {
    if constexpr (Join::WIDE) join.granule(g, symbols);
    else join.granule(g, symbols.x, symbols.y);
}

// Calls `decode.template run<Join>()` for the job's join.
template <class Decode> DEVICE uint32_t with_join(uint8_t kind, Decode decode) {
    switch (kind) {
    case JOIN_BYTES: return decode.template run<JoinBytes>();
    case JOIN_BF16: return decode.template run<JoinBf16>();
    case JOIN_F32: return decode.template run<JoinF32>();
    case JOIN_F16: return decode.template run<JoinF16>();
    case JOIN_F8_E5M2: return decode.template run<JoinF8<2>>();
    case JOIN_F8_E4M3: return decode.template run<JoinF8<3>>();
    case JOINT_F16: return decode.template run<JointF16>();
    case JOINT_BF16: return decode.template run<JointBf16>();
    case JOINT_F32: return decode.template run<JointF32>();
    case JOIN_TERNARY_F16: return decode.template run<JoinTernary<FLOAT_F16>>();
    case JOIN_TERNARY_BF16: return decode.template run<JoinTernary<FLOAT_BF16>>();
    case JOIN_TERNARY_F32: return decode.template run<JoinTernary<FLOAT_F32>>();
    default: return OK;
    }
}
