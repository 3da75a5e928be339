// Max-pooling windows and the codes that the backward pass needs of them.
#pragma once

#include "element.h"

namespace facemix::FACEMIX_ISA {
namespace {

// The part of a window that lies inside the image.
struct Span {
    int64_t begin, end;
};
inline Span clip_window(int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t size) {
    const int64_t origin = out * stride - pad;
    return {max64(0, -origin), min64(kernel, size - origin)};
}

// The running maximum of a window, with PyTorch's rules: the first of equals wins, a NaN wins over all.
template <class T, bool WithCodes>
struct WindowMax {
    Vec<T> best = {}, code = {};

    // z: values before the activation; k: the element's index in the window. `start` takes the first element.
    inline void start(Vec<T> z, int64_t k, Activation activation, T slope) { add(z, k, activation, slope, true); }
    inline void add(Vec<T> z, int64_t k, Activation activation, T slope, bool first = false) {
        const Vec<T> zero = {};
        Vec<T> here = {};
        if constexpr (WithCodes) here = z > zero ? zero + T(k) : zero + T(k + kCodeNegative);
        take(activate(z, activation, slope), here, first);
    }
    // The same with the activated value and its code.
    inline void take(Vec<T> a, Vec<T> here, bool first) {
        if (first) {
            best = a, code = here;
            return;
        }
        const auto better = (a > best) | (a != a);
        best = better ? a : best;
        if constexpr (WithCodes) code = better ? here : code;
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
