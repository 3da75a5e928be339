// Activations, max-pooling windows, and the codes that the backward pass needs of them.
#pragma once

#include "element.h"

namespace facemix::cuda {

// What the negative side of the activation multiplies with.
template <class T, class Args>
__device__ __forceinline__ T negative_slope(const Args& a) {
    if (a.activation == Activation::none) return T(1);
    if (a.activation == Activation::relu) return T(0);
    return a.slope_at ? T(*a.slope_at) : T(a.slope);
}

// NaN stays, and minus infinity becomes zero where the slope is.
template <class T>
__device__ __forceinline__ T activate(T z, T slope) {
    return z < T(0) ? slope == T(0) ? T(0) : slope * z : z;
}

// The part of a window that lies inside the image.
struct Span {
    int begin, end;
};
__host__ __device__ inline Span clip_window(int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t size) {
    const int64_t origin = out * stride - pad, left = size - origin;
    return {origin < 0 ? int(-origin) : 0, int(left < kernel ? left : kernel)};
}

// The running maximum with PyTorch's rules: the first of equals wins, a NaN wins over all.
//
// It has a constructor of its own because nvcc 13.0 leaves zeros in all but the first row of an array of arrays whose
// elements have initializers alone.
template <class T>
struct WindowMax {
    T best = T(0);
    int code = -1;  // nothing yet

    __device__ __forceinline__ WindowMax() {}

    // z: before the activation; k: the element's index in the window.
    __device__ __forceinline__ void add(T z, int k, T slope) {
        const T a = activate(z, slope);
        if (code < 0 || a > best || a != a) best = a, code = z > T(0) ? k : k + kCodeNegative;
    }
};

// What a derivative multiplies with, by the code of a value.
template <class T>
struct Factors {
    T pos, neg;

    template <class Args>
    __device__ explicit Factors(const Args& a) : pos(T(a.pos)), neg(a.neg_at ? T(*a.neg_at) : T(a.neg)) {}
    __device__ T of(uint8_t code) const { return code & kCodeNegative ? neg : pos; }

    // values *= the factors of the V codes that begin at `codes`.
    template <int V>
    __device__ __forceinline__ void scale(T (&values)[V], const uint8_t* codes) const {
        int code[V];
        load(code, codes);
#pragma unroll
        for (int v = 0; v < V; ++v) values[v] *= of(uint8_t(code[v]));
    }
};

}  // namespace facemix::cuda
