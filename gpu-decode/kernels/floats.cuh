// Floating-point numbers of 16 bits: conversions and arithmetic as IEEE 754 has them, rounded to nearest, ties to even, with subnormal
// numbers; and arithmetic in single precision that the compiler does not contract.
#pragma once
#include "device.cuh"

// As on the host: DeviceFloat.
enum FloatKind : uint8_t { FLOAT_F16 = 0, FLOAT_BF16 = 1, FLOAT_F32 = 2, FLOAT_E4M3 = 3, FLOAT_E5M2 = 4, FLOAT_E8M0 = 5 };

DEVICE uint32_t float_bytes(uint8_t kind) { return kind == FLOAT_F32 ? 4 : kind >= FLOAT_E4M3 ? 1 : 2; }

#ifdef CMZ_EMU
DEVICE float from_half(uint32_t bits) {
    const uint32_t sign = (bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest < 0x400) return __uint_as_float(sign | __float_as_uint((float)rest * 0x1p-24f));
    return __uint_as_float(sign | ((rest << 13) + (rest < 0x7c00 ? 112u << 23 : 224u << 23)));
}
// The nearest half.
DEVICE uint32_t to_half(float x) {
    const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return 0x7fff;
    if (rest >= 0x477ff000) return sign | 0x7c00; // 65520 and above
    if (rest < 0x38800000) return sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3f000000);
    return sign | ((rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
}
DEVICE float multiply_rounded(float a, float b) { return a * b; }
DEVICE float add_rounded(float a, float b) { return a + b; }
DEVICE float divide_rounded(float a, float b) { return a / b; }
#else
DEVICE float from_half(uint32_t bits) {
    float x;
    asm("{ .reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h; }" : "=f"(x) : "r"(bits));
    return x;
}
DEVICE uint32_t to_half(float x) {
    uint32_t bits;
    asm("{ .reg .b16 h; cvt.rn.f16.f32 h, %1; cvt.u32.u16 %0, h; }" : "=r"(bits) : "f"(x));
    return bits;
}
DEVICE float multiply_rounded(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add_rounded(float a, float b) { return __fadd_rn(a, b); }
DEVICE float divide_rounded(float a, float b) { return __fdiv_rn(a, b); }
#endif

// To half precision: of a sum or a product of two halves the same as if it had never been rounded to single precision (S. Figueroa,
// When is double rounding innocuous?, SIGNUM 1995: 24 bits are at least twice 11 and 2 more).
DEVICE float round_to_half(float x) { return from_half(to_half(x)); }

DEVICE bool is_number(float x) { return (__float_as_uint(x) & 0x7fffffff) <= 0x7f800000; }
DEVICE bool is_finite(float x) { return (__float_as_uint(x) & 0x7f800000) != 0x7f800000; }

// The nearest brain float, unless x is not a number.
DEVICE uint32_t to_bf16(float x) {
    const uint32_t bits = __float_as_uint(x);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Number i of an array in memory.
DEVICE float load_float(const uint8_t *array, uint8_t kind, uint32_t i) {
    switch (kind) {
    case FLOAT_F16: return from_half(__ldg((const uint16_t *)array + i));
    case FLOAT_BF16: return __uint_as_float((uint32_t)__ldg((const uint16_t *)array + i) << 16);
    case FLOAT_F32: return __uint_as_float(__ldg((const uint32_t *)array + i));
    default: return 0;
    }
}

// The bits of x in a type, those of the page if it is not a number.
DEVICE uint32_t float_bits(float x, uint8_t kind) {
    if (!is_number(x)) return kind == FLOAT_F16 ? 0x7e00 : kind == FLOAT_BF16 ? 0x7fc0 : 0x7fc00000;
    return kind == FLOAT_F16 ? to_half(x) : kind == FLOAT_BF16 ? to_bf16(x) : __float_as_uint(x);
}

// The number of a type whose bits are the lowest of `bits`.
DEVICE float number_of(uint32_t bits, uint8_t kind) {
    switch (kind) {
    case FLOAT_F16: return from_half(bits);
    case FLOAT_BF16: return __uint_as_float(bits << 16);
    case FLOAT_F32: return __uint_as_float(bits);
    case FLOAT_E4M3: {
        // With the exponent of single precision in its place, which is greater by 120: subnormal numbers, too, come out exactly.
        const float magnitude = multiply_rounded(__uint_as_float((bits & 0x7f) << 20), 0x1p120f);
        const uint32_t rest = (bits & 0x7f) == 0x7f ? 0x7fc00000 : __float_as_uint(magnitude);
        return __uint_as_float(rest | (bits & 0x80) << 24);
    }
    case FLOAT_E5M2: return from_half(bits << 8);
    case FLOAT_E8M0: return __uint_as_float(bits == 0 ? 0x00400000 : bits == 0xff ? 0x7fc00000 : bits << 23);
    default: return 0;
    }
}

// Number i of an array in memory, of any type.
DEVICE float load_number(const uint8_t *array, uint8_t kind, uint32_t i) {
    return float_bytes(kind) == 1 ? number_of(__ldg(array + i), kind) : load_float(array, kind, i);
}

// Numbers 8 i to 8 i + 7 of an array that begins on a multiple of 8 bytes.
template <uint8_t KIND> DEVICE void load_eight(const uint8_t *array, uint32_t i, float (&x)[8]) {
    const uint2 *const at = (const uint2 *)array + (uint64_t)float_bytes(KIND) * i;
    constexpr uint32_t BITS = KIND == FLOAT_F32 ? 32 : KIND >= FLOAT_E4M3 ? 8 : 16, OF_PAIR = 64 / BITS;
#pragma unroll
    for (uint32_t pair = 0; pair < 8 / OF_PAIR; pair++) {
        const uint2 words = __ldg(at + pair);
#pragma unroll
        for (uint32_t j = 0; j < OF_PAIR; j++) {
            const uint32_t word = j * BITS < 32 ? words.x : words.y;
            x[pair * OF_PAIR + j] = number_of(word >> (j * BITS & 31) & (BITS == 32 ? ~0u : (1u << (BITS & 31)) - 1), KIND);
        }
    }
}

DEVICE void load_eight(const uint8_t *array, uint8_t kind, uint32_t i, float (&x)[8]) {
    switch (kind) {
    case FLOAT_F16: return load_eight<FLOAT_F16>(array, i, x);
    case FLOAT_BF16: return load_eight<FLOAT_BF16>(array, i, x);
    case FLOAT_F32: return load_eight<FLOAT_F32>(array, i, x);
    case FLOAT_E4M3: return load_eight<FLOAT_E4M3>(array, i, x);
    default: return load_eight<FLOAT_E5M2>(array, i, x);
    }
}

// The magnitude of x in a type with so many bits of mantissa, whose least exponent is `least` in single precision's biased form,
// rounded; what is `over` or more as that. A sum with a number whose last bit counts for a step counts steps.
DEVICE uint32_t narrow(float x, uint32_t mantissa, uint32_t least, float over) {
    const float absolute = __uint_as_float(__float_as_uint(x) & 0x7fffffff), magnitude = absolute < over ? absolute : over;
    const uint32_t exponent = max(__float_as_uint(magnitude) >> 23, least), step = (exponent + 23 - mantissa) << 23;
    return __float_as_uint(add_rounded(magnitude, __uint_as_float(step))) - step + ((exponent - least) << mantissa);
}

// As float_bits, for every type of elements.
DEVICE uint32_t number_bits(float x, uint8_t kind) {
    const uint32_t sign = __float_as_uint(x) >> 24 & 0x80;
    switch (kind) {
    case FLOAT_E4M3: {
        const uint32_t rest = is_number(x) ? narrow(x, 3, 121, 480.0f) : 0x7f;
        return rest == 0x7f ? rest : rest | sign;
    }
    case FLOAT_E5M2: return is_number(x) ? narrow(x, 2, 113, 65536.0f) | sign : 0x7e;
    default: return float_bits(x, kind);
    }
}
