// Max-pooling of convolved rows in two steps: each row along its width as it is made, then the rows of a window.
// Pixels lie N channels apart; N is a multiple of the vector.
#pragma once

#include "window.h"

namespace facemix::FACEMIX_ISA {
namespace {

// best[q] = the maximum of act(z) in window q of a convolved row, code[q] what won (kernels.h), its kh left at 0.
template <class T, bool WithCodes>
void reduce_row(const ConvMixArgs& a, const T* z, int64_t N, Activation activation, T* best, T* code) {
    constexpr int W = kLanes<T>;
    const Pool& p = a.pool;
    for (int64_t q = 0; q < a.PW; ++q) {
        const Span span = clip_window(q, p.kw, p.sw, p.pad_w, a.OW);
        const T* row = z + (q * p.sw - p.pad_w) * N;
        for (int64_t c = 0; c < N; c += W) {
            WindowMax<T, WithCodes> window;
            window.start(load(row + span.begin * N + c), span.begin, activation, T(a.slope));
            for (int64_t kw = span.begin + 1; kw < span.end; ++kw)
                window.add(load(row + kw * N + c), kw, activation, T(a.slope));
            store(best + q * N + c, window.best);
            if constexpr (WithCodes) store(code + q * N + c, window.code);
        }
    }
}

// best and code, n elements each, of row kh of a window, into those of the rows above it; `first` starts the window.
template <class T, bool WithCodes>
void reduce_column(const T* row, const T* row_code, int64_t n, bool first, int64_t k, T* best, T* code) {
    for (int64_t e = 0; e < n; e += kLanes<T>) {
        WindowMax<T, WithCodes> window;
        if (!first) {
            window.best = load(best + e);
            if constexpr (WithCodes) window.code = load(code + e);
        }
        if constexpr (WithCodes) window.take(load(row + e), load(row_code + e) + T(k), first);
        else window.take(load(row + e), Vec<T>{}, first);
        store(best + e, window.best);
        if constexpr (WithCodes) store(code + e, window.code);
    }
}

}  // namespace
}  // namespace facemix::FACEMIX_ISA
