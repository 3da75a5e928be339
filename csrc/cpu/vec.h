// Width-agnostic vectors: GCC/Clang vector extensions, as wide as the instruction set that this file is compiled for.
// FACEMIX_ISA (baseline, avx2, avx512, avx512_bf16, neon) names the namespace; everything here has internal linkage, so
// that one instruction set's copy can never serve another.
#pragma once

#include <cstdint>
#include <cstring>

#include "../kernels.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// Before loops over a register block: not unrolled, the block would live on the stack.
#if defined(__clang__)
#define FACEMIX_UNROLL _Pragma("unroll")
#else
#define FACEMIX_UNROLL _Pragma("GCC unroll 32")
#endif

namespace facemix::FACEMIX_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class T>
struct VecOf {
    typedef T type __attribute__((vector_size(kVectorBytes)));
    typedef T loose __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename VecOf<T>::loose*>(p);
}
template <class T>
inline void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename VecOf<T>::loose*>(p) = v;
}
// Has the compiler keep v in a register: it would read it from memory again for every product, where an instruction
// can.
template <class V>
inline void keep(V& v) {
#if defined(__SSE2__)
    asm("" : "+v"(v));
#else
    (void)v;
#endif
}
// Writes past the caches: for results too large to be read from there again, it
// saves reading each line first. p is aligned to the vector. finish_streaming() comes before anyone else may read.
template <class V>
inline void stream(void* p, V v) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64) return _mm512_stream_si512(static_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(V) == 32) return _mm256_stream_si256(static_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#endif
#if defined(__SSE2__)
    if constexpr (sizeof(V) == 16) return _mm_stream_si128(static_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#endif
    memcpy(p, &v, sizeof v);
}
inline void finish_streaming() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}
// Results of fewer bytes are likely to be read from the caches.
constexpr int64_t kStreamBytes = 4 << 20;

// The larger lanes; b where they are equal or one is NaN. Compilers make comparison and selection of the plain form.
inline Vec<float> max(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
    return Vec<float>(_mm512_max_ps(__m512(a), __m512(b)));
#elif defined(__AVX2__)
    return Vec<float>(_mm256_max_ps(__m256(a), __m256(b)));
#elif defined(__SSE2__)
    return Vec<float>(_mm_max_ps(__m128(a), __m128(b)));
#else
    return a > b ? a : b;
#endif
}
inline Vec<double> max(Vec<double> a, Vec<double> b) { return a > b ? a : b; }
inline Vec<float> min(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
    return Vec<float>(_mm512_min_ps(__m512(a), __m512(b)));
#elif defined(__AVX2__)
    return Vec<float>(_mm256_min_ps(__m256(a), __m256(b)));
#elif defined(__SSE2__)
    return Vec<float>(_mm_min_ps(__m128(a), __m128(b)));
#else
    return a < b ? a : b;
#endif
}

// interleave<0>: a0 b0 a1 b1 ... of the lower halves; interleave<1>: of the upper halves.
#if defined(__AVX512F__)
template <int half>
inline Vec<float> interleave(Vec<float> a, Vec<float> b) {
    if constexpr (half == 0)
        return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    else return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
template <int half>
inline Vec<double> interleave(Vec<double> a, Vec<double> b) {
    if constexpr (half == 0) return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    else return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#elif defined(__AVX2__)
template <int half>
inline Vec<float> interleave(Vec<float> a, Vec<float> b) {
    if constexpr (half == 0) return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    else return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
template <int half>
inline Vec<double> interleave(Vec<double> a, Vec<double> b) {
    if constexpr (half == 0) return __builtin_shufflevector(a, b, 0, 4, 1, 5);
    else return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
#else
template <int half>
inline Vec<float> interleave(Vec<float> a, Vec<float> b) {
    if constexpr (half == 0) return __builtin_shufflevector(a, b, 0, 4, 1, 5);
    else return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
template <int half>
inline Vec<double> interleave(Vec<double> a, Vec<double> b) {
    if constexpr (half == 0) return __builtin_shufflevector(a, b, 0, 2);
    else return __builtin_shufflevector(a, b, 1, 3);
}
#endif

// a0 a2 a4 ..., then b1 b3 b5 ...
inline Vec<float> every_other(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 9, 11, 13, 15);
#else
    return __builtin_shufflevector(a, b, 0, 2, 5, 7);
#endif
}
inline Vec<double> every_other(Vec<double> a, Vec<double> b) {
#if defined(__AVX512F__)
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 9, 11, 13, 15);
#elif defined(__AVX2__)
    return __builtin_shufflevector(a, b, 0, 2, 5, 7);
#else
    return __builtin_shufflevector(a, b, 0, 3);
#endif
}

// Transposes a square of vectors: log2(lanes) perfect shuffles of the rows.
template <class T>
inline void transpose(Vec<T> (&r)[kLanes<T>]) {
    constexpr int W = kLanes<T>;
    for (int round = 1; round < W; round *= 2) {
        Vec<T> t[W];
        for (int i = 0; i < W / 2; ++i) {
            t[2 * i] = interleave<0>(r[i], r[i + W / 2]);
            t[2 * i + 1] = interleave<1>(r[i], r[i + W / 2]);
        }
        for (int i = 0; i < W; ++i) r[i] = t[i];
    }
}

constexpr int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Carves typed pieces out of one block of scratch memory; with base == nullptr it only counts the bytes.
class Carver {
  public:
    explicit Carver(char* base) : base_(base) {}
    template <class T>
    T* take(int64_t count) {
        T* p = reinterpret_cast<T*>(base_ + used_);
        used_ += (size_t(count) * sizeof(T) + 63) / 64 * 64;
        return p;
    }
    size_t used() const { return used_; }

  private:
    char* base_;
    size_t used_ = 0;
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
