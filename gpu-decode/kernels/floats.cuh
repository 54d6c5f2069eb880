// Floating-point numbers of 16 bits: conversions and arithmetic as IEEE 754 has them, rounded to nearest, ties to even, with subnormal
// numbers; and arithmetic in single precision that the compiler does not contract.
#pragma once
#include "device.cuh"

// As on the host: DeviceFloat.
enum FloatKind : uint8_t { FLOAT_F16 = 0, FLOAT_BF16 = 1, FLOAT_F32 = 2 };

DEVICE uint32_t float_bytes(uint8_t kind) { return kind == FLOAT_F32 ? 4 : 2; }

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
