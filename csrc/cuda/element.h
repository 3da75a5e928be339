// Elements in memory (float, double, bfloat16, half; int8 to write) against the type T that a kernel computes in,
// several at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstring>

#include "../kernels.h"

namespace facemix::cuda {

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

constexpr int kAccess = 16;  // bytes that a thread reads or writes at once, at most

// One access of as many bytes: the compiler splits those of other types by elements, and does not always join the parts
// again.
template <int kBytes>
struct WordOf;
template <>
struct WordOf<1> {
    using type = unsigned char;
};
template <>
struct WordOf<2> {
    using type = unsigned short;
};
template <>
struct WordOf<4> {
    using type = unsigned;
};
template <>
struct WordOf<8> {
    using type = uint2;
};
template <>
struct WordOf<16> {
    using type = uint4;
};

// V elements as they lie in memory: one word, or several of 16 bytes.
template <class E, int V>
struct Pack {
    static constexpr int kBytes = V * int(sizeof(E)), kWords = kBytes < kAccess ? 1 : kBytes / kAccess;
    using Word = typename WordOf<kBytes / kWords>::type;

    E e[V];

    __device__ __forceinline__ void read(const E* from) {
        Word words[kWords];
#pragma unroll
        for (int i = 0; i < kWords; ++i) words[i] = reinterpret_cast<const Word*>(from)[i];
        memcpy(static_cast<void*>(e), words, kBytes);
    }
    __device__ __forceinline__ void write(E* to) const {
        Word words[kWords];
        memcpy(words, static_cast<const void*>(e), kBytes);
#pragma unroll
        for (int i = 0; i < kWords; ++i) __stcg(reinterpret_cast<Word*>(to) + i, words[i]);
    }
};

template <int V, class T, class E>
__device__ __forceinline__ void load(T (&to)[V], const E* from) {
    Pack<E, V> pack;
    pack.read(from);
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = T(pack.e[v]);
}

template <class E, class T>
__device__ __forceinline__ E narrow(T t) {
    return E(t);
}
template <>
__device__ __forceinline__ int8_t narrow<int8_t, float>(float t) {
    const int nearest = __float2int_rn(t);  // of a NaN 0, of what is too large the largest
    return int8_t(nearest > 127 ? 127 : nearest < -127 ? -127 : nearest);
}

template <int V, class E, class T>
__device__ __forceinline__ void store(E* to, const T (&from)[V]) {
    Pack<E, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.e[v] = narrow<E>(from[v]);
    pack.write(to);
}

// In elements of a dtype that the computation in T may write (double only itself, float all the others), from element
// `at` on.
template <int V, class T>
__device__ __forceinline__ void store_as(Dtype dtype, void* to, int64_t at, const T (&from)[V]) {
    if constexpr (sizeof(T) == 8) {
        store(static_cast<double*>(to) + at, from);
    } else {
        if (dtype == Dtype::f32) store(static_cast<float*>(to) + at, from);
        else if (dtype == Dtype::bf16) store(static_cast<__nv_bfloat16*>(to) + at, from);
        else store(static_cast<__half*>(to) + at, from);
    }
}

// The same with int8.
template <int V, class T>
__device__ __forceinline__ void store_wire(Dtype dtype, void* to, int64_t at, const T (&from)[V]) {
    if constexpr (sizeof(T) == 4)
        if (dtype == Dtype::i8) return store(static_cast<int8_t*>(to) + at, from);
    store_as(dtype, to, at, from);
}

// The first `count` of N values to `to` on, in one access where that is aligned.
template <int N, class E, class T>
__device__ __forceinline__ void store_run(E* to, const T (&values)[N], int count) {
    constexpr int access = N * int(sizeof(E)) < kAccess ? N * int(sizeof(E)) : kAccess;
    if (count >= N && (reinterpret_cast<uintptr_t>(to) & uintptr_t(access - 1)) == 0) return store(to, values);
#pragma unroll
    for (int k = 0; k < N; ++k)
        if (k < count) store<1>(to + k, {values[k]});
}
// To y from element `at` on.
template <int N>
__device__ __forceinline__ void store_run(void* y, Dtype dtype, int64_t at, const float (&values)[N], int count) {
    if (dtype == Dtype::f32) store_run(static_cast<float*>(y) + at, values, count);
    else if (dtype == Dtype::bf16) store_run(static_cast<__nv_bfloat16*>(y) + at, values, count);
    else if (dtype == Dtype::f16) store_run(static_cast<__half*>(y) + at, values, count);
    else store_run(static_cast<int8_t*>(y) + at, values, count);
}

// Whether rows of n elements, from p on, can be read or written V elements at a time. A null p stands for no rows.
inline bool packs(const void* p, int64_t element, int64_t n, int V) {
    const int64_t bytes = element * V < kAccess ? element * V : kAccess;
    return n % V == 0 && reinterpret_cast<uintptr_t>(p) % uintptr_t(bytes) == 0;
}

template <class E>
struct Tag {
    using type = E;
};

// Calls f(Tag<element type>) for a dtype.
template <class F>
void with_dtype(Dtype dtype, F&& f) {
    switch (dtype) {
        case Dtype::f32: return f(Tag<float>{});
        case Dtype::f64: return f(Tag<double>{});
        case Dtype::bf16: return f(Tag<__nv_bfloat16>{});
        case Dtype::f16: return f(Tag<__half>{});
        case Dtype::i8: return;  // no op reads it
    }
}

}  // namespace facemix::cuda
