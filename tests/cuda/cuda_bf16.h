// A stand-in for CUDA's header: bfloat16 that rounds to nearest even.
#pragma once

#include <bit>
#include <cstdint>

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float value) {
        const uint32_t word = std::bit_cast<uint32_t>(value);
        bits = uint16_t(value != value ? 0x7fc0 : (word + 0x7fff + (word >> 16 & 1)) >> 16);
    }
    explicit operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
