// act_mix_vjp of a few rows of the S images of a group, in cache and in the order [pixel][channel] whatever the layout
// of y. conv_mix_vjp multiplies with them; in NHWC they go to memory as they are.
#pragma once

#include "mixing.h"
#include "window.h"

namespace facemix::FACEMIX_ISA {
namespace {

template <class T>
struct UnmixedRows {
    static constexpr int W = kLanes<T>;
    static constexpr int64_t kFewVectors = kRegisters == 32 ? 4 : 2;
    static constexpr int64_t kPiece = 2048;  // elements of a pooled row that are un-mixed at once, about
    const ActMixLinearArgs& a;
    const int64_t rows;  // of z, at most
    const int64_t S = a.key.size, plane = a.PH * a.PW, row_size = a.C * plane;
    const bool transposed = !a.channels_last && a.pool.identity();
    // Channels at once, and from one pixel to the next. In NCHW they are few, so that there is room for more rows: long
    // runs of memory. A vector at the last channels may reach into the next pixel.
    const int64_t width = a.channels_last ? a.C : min64(ceil_div(a.C, W), kFewVectors) * W;
    const int64_t image_step = (rows * a.W * width + 2 * W) / W * W;
    // Of un-mixed values that are not in their places yet: W lines of all pixels, or a piece of a pooled row.
    const int64_t piece = a.channels_last ? max64(1, kPiece / a.C) : a.PW;  // pooled pixels
    const int64_t line_step = ceil_div(rows * a.W, W) * W + W;
    const int64_t waiting_step = transposed          ? W * line_step
                                 : a.pool.identity() ? 0
                                                     : piece * (a.channels_last ? a.C : 1);
    const int64_t winners = a.pool.kh * a.pool.kw;  // elements of a window

    struct Scratch {
        T *u, *waiting;         // u: S images, and one row more
        int64_t* places;        // [S][winners]: see spread_windows
        const void** in;        // [S]: rows of y, const E**
        const uint8_t** codes;  // [S]: rows of the codes
    };
    Scratch carve(Carver& carver) const {
        Scratch s;
        s.u = carver.take<T>(S * image_step + (a.pool.identity() ? 0 : a.W * width));
        s.waiting = carver.take<T>(S * waiting_step);
        s.places = carver.take<int64_t>(S * winners);
        s.in = carver.take<const void*>(S);
        s.codes = carver.take<const uint8_t*>(S);
        return s;
    }

    // Channels [oc, oc + width), as many as there are, of rows [h, h + n) of group g, un-mixed with its
    // coefficients c.
    void fill(const Scratch& s, const T* c, int64_t g, int64_t oc, int64_t h, int64_t n) const {
        with_dtype_of<T>(a.dtype, [&](auto tag) {
            using E = typename decltype(tag)::type;
            if (transposed) transpose_lines<E>(s, c, g, oc, h * a.W, n * a.W);
            else if (a.pool.identity())
                unmix<E>(s, c, g, h * a.W * a.C, n * a.W * a.C, [&](int64_t j, int64_t e, Vec<T> v, int64_t lanes) {
                    store_as<T>(s.u + j * image_step + e, v, lanes);
                });
            else spread_windows<E>(s, c, g, oc, h, n);
        });
    }

  private:
    // sink(j, e, v, lanes) takes image j's values, times their codes' factors, of elements [at, at + n).
    template <class E, class Sink>
    void unmix(const Scratch& s, const T* c, int64_t g, int64_t at, int64_t n, Sink&& sink) const {
        const E** in = reinterpret_cast<const E**>(s.in);
        for (int64_t i = 0; i < S; ++i) {
            in[i] = static_cast<const E*>(a.y) + a.key.order[g * S + i] * row_size + at;
            if (a.codes) s.codes[i] = a.codes + (g * S + i) * row_size + at;
        }
        if (!a.codes) return mix_tile<T>(in, c, S, 0, n, sink);
        const T pos = T(a.pos), neg = T(a.neg);
        mix_tile<T>(in, c, S, 0, n, [&](int64_t j, int64_t e, Vec<T> v, int64_t lanes) {
            sink(j, e, v * code_factors<T>(s.codes[j] + e, lanes, pos, neg), lanes);
        });
    }

    // NCHW without a pool: n pixels of W channels at a time, turned into W channels of n pixels.
    template <class E>
    void transpose_lines(const Scratch& s, const T* c, int64_t g, int64_t oc, int64_t pixel, int64_t n) const {
        for (int64_t first = 0; first < min64(width, a.C - oc); first += W) {
            for (int64_t l = 0; l < min64(W, a.C - oc - first); ++l)
                unmix<E>(s, c, g, (oc + first + l) * plane + pixel, n, [&](int64_t j, int64_t e, Vec<T> v, int64_t) {
                    store(s.waiting + j * waiting_step + l * line_step + e, v);
                });
            for (int64_t j = 0; j < S; ++j)
                for (int64_t p = 0; p < n; p += W) {
                    Vec<T> v[W];
                    for (int l = 0; l < W; ++l) v[l] = load(s.waiting + j * waiting_step + l * line_step + p);
                    transpose<T>(v);
                    for (int64_t l = 0; l < min64(W, n - p); ++l)
                        store(s.u + j * image_step + (p + l) * width + first, v[l]);
                }
        }
    }

    // With a pool: zeros, and each un-mixed value added to the winner of its window where that lies in these rows.
    template <class E>
    void spread_windows(const Scratch& s, const T* c, int64_t g, int64_t oc, int64_t h, int64_t n) const {
        const Pool& p = a.pool;
        for (int64_t j = 0; j < S; ++j) memset(s.u + j * image_step, 0, size_t(n * a.W * width) * sizeof(T));
        const int64_t before = h + p.pad_h - p.kh, end = min64(a.PH, (h + n - 1 + p.pad_h) / p.sh + 1);
        const int64_t lines = a.channels_last ? 1 : min64(width, a.C - oc), channels = a.channels_last ? a.C : 1;
        for (int64_t ph = before < 0 ? 0 : before / p.sh + 1; ph < end; ++ph) {
            // Where a winner lies in u, from the window's first column on. Rows beside these n go to the one behind all
            // images: a branch would be guessed wrong too often.
            const int64_t first = ph * p.sh - p.pad_h - h;
            for (int64_t i = 0; i < S * winners; ++i) {
                const int64_t j = i / winners, row = first + i % winners / p.kw;
                const int64_t begin = row < 0 || row >= n ? S * image_step : j * image_step + row * a.W * width;
                s.places[i] = begin + i % p.kw * width;
            }
            for (int64_t line = 0; line < lines; ++line)
                for (int64_t q = 0; q < a.PW; q += piece)
                    spread<E>(s, c, g, (oc + line) * plane + (ph * a.PW + q) * channels, min64(piece, a.PW - q),
                              s.u + (q * p.sw - p.pad_w) * width + line);
        }
    }
    // `count` pixels from element `at` on; `to`: the first column of the first window in a row of u.
    template <class E>
    void spread(const Scratch& s, const T* c, int64_t g, int64_t at, int64_t count, T* to) const {
        const int64_t channels = a.channels_last ? a.C : 1;
        unmix<E>(s, c, g, at, count * channels, [&](int64_t j, int64_t e, Vec<T> v, int64_t lanes) {
            store_as<T>(s.waiting + j * waiting_step + e, v, lanes);
        });
        for (int64_t j = 0; j < S; ++j) {
            const T* value = s.waiting + j * waiting_step;
            const uint8_t* code = s.codes[j];
            const int64_t* place = s.places + j * winners;
            for (int64_t k = 0; k < count; ++k)
                for (int64_t l = 0; l < channels; ++l, ++value, ++code)
                    to[k * a.pool.sw * width + l + place[*code & kCodeWindow]] += *value;
        }
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
