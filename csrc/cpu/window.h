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
    bool empty = true;

    // z: values before the activation; k: the element's index in the window.
    inline void add(Vec<T> z, int64_t k, Activation activation, T slope) {
        const Vec<T> a = activate(z, activation, slope);
        if constexpr (WithCodes) {
            const Vec<T> zero = {};
            const Vec<T> positive = zero + T(k), negative = zero + T(k + kCodeNegative);
            const Vec<T> here = z > zero ? positive : negative;
            if (empty) {
                best = a, code = here;
            } else {
                const auto better = (a > best) | (a != a);
                best = better ? a : best;
                code = better ? here : code;
            }
        } else {
            best = empty ? a : (((a > best) | (a != a)) ? a : best);
        }
        empty = false;
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
