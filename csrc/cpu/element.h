// Elements in memory (float, double, bfloat16, float16) against the type T that a kernel computes in.
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
    // Round to nearest even; a NaN keeps its sign and stays a NaN.
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return Bf16{uint16_t((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded)};
}

template <class A, class B>
constexpr bool kSame = false;
template <class A>
constexpr bool kSame<A, A> = true;

// Vectors at the end of a row, and elements that lie apart, go one by one. Out of line: they are everywhere, and rare.
template <class T, class E>
__attribute__((noinline)) Vec<T> gather(const E* p, int64_t step, int64_t lanes) {
    T t[kLanes<T>] = {};
    for (int64_t i = 0; i < lanes; ++i) t[i] = widen<T>(p[i * step]);
    return load(t);
}
template <class T, class E>
__attribute__((noinline)) void store_some(E* p, Vec<T> v, int64_t lanes) {
    T t[kLanes<T>];
    store(t, v);
    for (int64_t i = 0; i < lanes; ++i) p[i] = narrow<E>(t[i]);
}

// Reads min(lanes, kLanes<T>) elements that lie `step` apart; the other lanes are zero.
template <class T, class E>
inline Vec<T> load_strided(const E* p, int64_t step, int64_t lanes) {
    constexpr int W = kLanes<T>;
    if (step != 1 || lanes < W) return gather<T>(p, step, min64(lanes, W));
    if constexpr (kSame<T, E>) {
        return load(p);
    } else {
        T t[W];
        for (int i = 0; i < W; ++i) t[i] = widen<T>(p[i]);
        return load(t);
    }
}
template <class T, class E>
inline Vec<T> load_as(const E* p, int64_t lanes) {
    return load_strided<T>(p, 1, lanes);
}

// Writes the first min(lanes, kLanes<T>) elements of v.
template <class T, class E>
inline void store_as(E* p, Vec<T> v, int64_t lanes) {
    constexpr int W = kLanes<T>;
    if (lanes < W) return store_some<T>(p, v, lanes);
    if constexpr (kSame<T, E>) {
        store(p, v);
    } else {
        T t[W];
        store(t, v);
        for (int i = 0; i < W; ++i) p[i] = narrow<E>(t[i]);
    }
}

// store_as, past the caches where `streaming` and the types allow it.
template <class T, class E>
inline void write_as(E* p, Vec<T> v, int64_t lanes, bool streaming) {
    if constexpr (kSame<T, E>) {
        if (streaming && lanes >= kLanes<T>) return stream(p, v);
    }
    store_as<T>(p, v, lanes);
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
inline Vec<T> activate(Vec<T> z, Activation kind, T slope) {
    const Vec<T> zero = {};
    switch (kind) {
        case Activation::relu: return z < zero ? zero : z;
        case Activation::leaky: return z < zero ? z * slope : z;
        default: return z;
    }
}

}  // namespace
}  // namespace facemix::FACEMIX_ISA
