// Reading and writing vectors of elements: whole ones, ends of rows, elements that lie apart, runs past the caches; and
// what depends on their type.
#pragma once

#include "convert.h"

namespace facemix::FACEMIX_ISA {
namespace {

#if defined(__AVX512F__)
inline uint32_t first(int64_t lanes) { return (uint32_t(1) << lanes) - 1; }
#elif defined(__AVX2__)
inline __m256i first(int64_t lanes) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(lanes)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// Elements that lie apart, and ends of rows without an instruction for them, go one by one. Out of line: they are
// everywhere, and rare.
template <class T, class E>
__attribute__((noinline)) Vec<T> gather(const E* p, int64_t step, int64_t lanes) {
    T t[kLanes<T>] = {};
    for (int64_t i = 0; i < lanes; ++i) t[i] = widen<T>(p[i * step]);
    return load(t);
}
template <class T, class E>
__attribute__((noinline)) void scatter(E* p, Vec<T> v, int64_t lanes) {
    T t[kLanes<T>];
    store(t, v);
    for (int64_t i = 0; i < lanes; ++i) p[i] = narrow<E>(t[i]);
}

// The end of a row: reads and writes fewer elements than there are lanes, at least one; the other lanes are zero.
template <class T, class E>
inline Vec<T> load_some(const E* p, int64_t lanes) {
#if defined(__AVX512F__)
    if constexpr (kSame<E, float>) return Vec<T>(_mm512_maskz_loadu_ps(__mmask16(first(lanes)), p));
    if constexpr (kSame<E, double>) return Vec<T>(_mm512_maskz_loadu_pd(__mmask8(first(lanes)), p));
    if constexpr (sizeof(E) == 2) {
        const __m256i bits = _mm256_maskz_loadu_epi16(__mmask16(first(lanes)), p);
        return widen_vector<T>(reinterpret_cast<const E*>(&bits));
    }
    if constexpr (sizeof(E) == 1 && kSame<T, float>) {
        const __m128i bytes = _mm_maskz_loadu_epi8(__mmask16(first(lanes)), p);
        return widen_vector<T>(reinterpret_cast<const E*>(&bytes));
    }
#elif defined(__AVX2__)
    if constexpr (kSame<E, float>) return Vec<T>(_mm256_maskload_ps(p, first(lanes)));
#endif
    return gather<T>(p, 1, lanes);
}
template <class T, class E>
inline void store_some(E* p, Vec<T> v, int64_t lanes) {
#if defined(__AVX512F__)
    if constexpr (kSame<E, float>) return _mm512_mask_storeu_ps(p, __mmask16(first(lanes)), __m512(v));
    if constexpr (kSame<E, double>) return _mm512_mask_storeu_pd(p, __mmask8(first(lanes)), __m512d(v));
    if constexpr (sizeof(E) == 2) {
        const auto n = narrow_vector<E, T>(v);
        __m256i bits;
        memcpy(&bits, &n, sizeof bits);
        return _mm256_mask_storeu_epi16(p, __mmask16(first(lanes)), bits);
    }
    if constexpr (sizeof(E) == 1 && kSame<T, float>) {
        const auto n = narrow_vector<E, T>(v);
        __m128i bits;
        memcpy(&bits, &n, sizeof bits);
        return _mm_mask_storeu_epi8(p, __mmask16(first(lanes)), bits);
    }
#elif defined(__AVX2__)
    if constexpr (kSame<E, float>) return _mm256_maskstore_ps(p, first(lanes), __m256(v));
#endif
    scatter<T>(p, v, lanes);
}

// Every other element, from the first of p to the last of as many as there are lanes.
template <class T, class E>
inline Vec<T> load_every_other(const E* p) {
    return every_other(widen_vector<T>(p), widen_vector<T>(p + kLanes<T> - 1));
}

// Reads min(lanes, kLanes<T>) elements that lie `step` apart; the other lanes are zero.
template <class T, class E>
inline Vec<T> load_strided(const E* p, int64_t step, int64_t lanes) {
    if (step == 2 && lanes >= kLanes<T>) return load_every_other<T>(p);
    if (step != 1) return gather<T>(p, step, min64(lanes, kLanes<T>));
    if (lanes < kLanes<T>) return load_some<T>(p, lanes);
    return widen_vector<T>(p);
}
template <class T, class E>
inline Vec<T> load_as(const E* p, int64_t lanes) {
    return load_strided<T>(p, 1, lanes);
}

// Writes the first min(lanes, kLanes<T>) elements of v.
template <class T, class E>
inline void store_as(E* p, Vec<T> v, int64_t lanes) {
    if (lanes < kLanes<T>) return store_some<T>(p, v, lanes);
    const auto n = narrow_vector<E, T>(v);
    memcpy(static_cast<void*>(p), &n, sizeof n);
}

// All of v, past the caches; p is aligned to as many elements.
template <class T, class E>
inline void stream_as(E* p, Vec<T> v) {
    stream(p, narrow_vector<E, T>(v));
}
// A run of n elements; `streaming`: past the caches but for the ends that are no whole vectors.
template <class T, class E>
inline void write_run(E* to, const T* from, int64_t n, bool streaming) {
    constexpr int W = kLanes<T>;
    if (!streaming) {
        for (int64_t e = 0; e < n; e += W) store_as<T>(to + e, load_as<T>(from + e, n - e), n - e);
        return;
    }
    const int64_t over = int64_t(reinterpret_cast<uintptr_t>(to) / sizeof(E) % W);
    int64_t e = over ? min64(n, W - over) : 0;
    if (e) store_some<T>(to, load_as<T>(from, e), e);
    for (; e + W <= n; e += W) stream_as<T>(to + e, load(from + e));
    if (e < n) store_some<T>(to + e, load_as<T>(from + e, n - e), n - e);
}

// The type that a kernel computes in.
template <class E>
struct ComputeOf {
    using type = float;
};
template <>
struct ComputeOf<double> {
    using type = double;
};
template <class E>
using Compute = typename ComputeOf<E>::type;

template <class E>
struct Tag {
    using type = E;
};

// Calls f(Tag<element type>) for a dtype.
template <class F>
inline void with_dtype(Dtype dtype, F&& f) {
    switch (dtype) {
        case Dtype::f32: return f(Tag<float>{});
        case Dtype::f64: return f(Tag<double>{});
        case Dtype::bf16: return f(Tag<Bf16>{});
        case Dtype::f16: return f(Tag<F16>{});
        case Dtype::i8: return;  // no op reads it
    }
}

// The same over the dtypes that a computation in T may read or write: double only itself, float all the others.
template <class T, class F>
inline void with_dtype_of(Dtype dtype, F&& f) {
    if constexpr (kSame<T, double>) {
        f(Tag<double>{});
    } else {
        switch (dtype) {
            case Dtype::bf16: return f(Tag<Bf16>{});
            case Dtype::f16: return f(Tag<F16>{});
            default: return f(Tag<float>{});
        }
    }
}

// max(z, 0) and leaky variants as PyTorch has them: NaN stays, the slope applies where z < 0.
template <class T>
inline Vec<T> relu(Vec<T> z) {
    return max(Vec<T>{}, z);
}
template <class T>
inline Vec<T> leaky(Vec<T> z, T slope) {
    const Vec<T> zero = {};
    return z < zero ? z * slope : z;
}
template <class T>
inline Vec<T> activate(Vec<T> z, Activation kind, T slope) {
    return kind == Activation::relu ? relu<T>(z) : kind == Activation::leaky ? leaky<T>(z, slope) : z;
}

}  // namespace
}  // namespace facemix::FACEMIX_ISA
