// Elements in memory (float, double, bfloat16, float16; int8 to write; bytes of codes) to and from the type T that a
// kernel computes in, one by one and by vectors.
#pragma once

#include "vec.h"

namespace facemix::FACEMIX_ISA {
namespace {

struct Bf16 {
    uint16_t bits;
};
#if defined(__aarch64__)
typedef __fp16 F16;  // GCC 12 has _Float16 on x86 only
#else
typedef _Float16 F16;
#endif

template <class T, class E>
inline T widen(E e) {
    return T(e);
}
template <>
inline float widen<float, Bf16>(Bf16 e) {
    const uint32_t u = uint32_t(e.bits) << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

template <class E, class T>
inline E narrow(T t) {
    return E(t);
}
template <>
inline Bf16 narrow<Bf16, float>(float t) {
    uint32_t u;
    memcpy(&u, &t, sizeof u);
#if defined(__AVX512BF16__)
    if (!(u & 0x7f800000u)) return Bf16{uint16_t(u >> 16 & 0x8000u)};  // as the instruction of narrow_vector
#endif
    // Round to nearest even; a NaN keeps its sign and stays a NaN.
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return Bf16{uint16_t((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded)};
}

// Of a number up to kWhole in magnitude, added to kNearest, the last bits are those of the nearest whole number, the
// even one of two.
constexpr float kWhole = 127, kNearest = 0x1.8p23f;
template <>
inline int8_t narrow<int8_t, float>(float t) {
    const float near = (t > kWhole ? kWhole : t < -kWhole ? -kWhole : t) + kNearest;
    int32_t bits;
    memcpy(&bits, &near, sizeof bits);
    return t == t ? int8_t(bits) : int8_t(0);
}

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

// A vector of 16-bit elements with as many lanes as a Vec<float>.
typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
typedef uint16_t LooseHalf __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));

// As many bytes as a Vec<float> has lanes, and back: the lowest byte of each lane. Of its own, GCC takes them one by
// one.
typedef uint8_t Bytes __attribute__((vector_size(kVectorBytes / 4)));
inline Vec<int32_t> widen_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
    return Vec<int32_t>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
    return Vec<int32_t>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
    uint32_t word;
    memcpy(&word, p, sizeof word);
#if defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128(), bytes = _mm_cvtsi32_si128(int(word));
    return Vec<int32_t>(_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, zero), zero));
#else
    return reinterpret_cast<Vec<int32_t>>((Vec<uint32_t>{} + word) >> Vec<uint32_t>{0, 8, 16, 24} & 0xffu);
#endif
#endif
}
inline Bytes narrow_bytes(Vec<int32_t> v) {
#if defined(__AVX512F__)
    return reinterpret_cast<Bytes>(_mm512_cvtepi32_epi8(__m512i(v)));
#elif defined(__AVX2__)
    const __m256i halves =
        _mm256_shuffle_epi8(__m256i(v), _mm256_setr_epi32(0x0c080400, -1, -1, -1, -1, 0x0c080400, -1, -1));
    return reinterpret_cast<Bytes>(
        _mm_cvtsi128_si64(_mm_or_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1))));
#else
    return __builtin_convertvector(v, Bytes);
#endif
}

template <class T, class E>
inline Vec<T> widen_vector(const E* p) {
    if constexpr (kSame<T, E>) {
        return load(p);
    } else if constexpr (kSame<E, Bf16>) {
        const Half h = *reinterpret_cast<const LooseHalf*>(p);
        return reinterpret_cast<Vec<T>>(__builtin_convertvector(h, Vec<uint32_t>) << 16);
#if defined(__AVX512F__)
    } else if constexpr (kSame<E, F16>) {
        return Vec<T>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__AVX2__)
    } else if constexpr (kSame<E, F16>) {
        return Vec<T>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#endif
    } else if constexpr (kSame<E, uint8_t> && kSame<T, float>) {
        return __builtin_convertvector(widen_bytes(p), Vec<T>);
    } else {
        T t[kLanes<T>];
        for (int i = 0; i < kLanes<T>; ++i) t[i] = widen<T>(p[i]);
        return load(t);
    }
}

// The vector as it lies in memory in elements of type E.
template <class E, class T>
inline auto narrow_vector(Vec<T> v) {
    if constexpr (kSame<T, E>) {
        return v;
#if defined(__AVX512BF16__)
    } else if constexpr (kSame<E, Bf16>) {  // as narrow<Bf16>, but for denormals, which become zero
        return reinterpret_cast<Half>(_mm512_cvtneps_pbh(__m512(v)));
#endif
    } else if constexpr (kSame<E, Bf16>) {  // as narrow<Bf16>
        const auto u = reinterpret_cast<Vec<uint32_t>>(v);
        const Vec<uint32_t> nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = (u >> 16) | 0x40u;
        return __builtin_convertvector((u & 0x7fffffffu) > 0x7f800000u ? nan : nearest, Half);
#if defined(__AVX512F__)
    } else if constexpr (kSame<E, F16>) {
        return reinterpret_cast<Half>(_mm512_cvtps_ph(__m512(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
    } else if constexpr (kSame<E, F16>) {
        return reinterpret_cast<Half>(_mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#endif
    } else if constexpr (kSame<E, int8_t>) {  // as narrow<int8_t>
        const Vec<T> most = Vec<T>{} + kWhole, near = min(max(v, -most), most) + kNearest;
        return narrow_bytes((v == v) & reinterpret_cast<Vec<int32_t>>(near));
    } else if constexpr (kSame<E, uint8_t> && kSame<T, float>) {
        return narrow_bytes(__builtin_convertvector(v, Vec<int32_t>));
    } else {
        typedef E Out __attribute__((vector_size(kLanes<T> * sizeof(E))));
        return __builtin_convertvector(v, Out);
    }
}

}  // namespace
}  // namespace facemix::FACEMIX_ISA
