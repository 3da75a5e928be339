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
    static constexpr int64_t kFewVectors = 2;
    static constexpr int64_t kPiece = 2048;  // elements that are un-mixed at once in NHWC, about
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
        T* c;             // of the group's Coefficients
        T *u, *waiting;   // u: S images, and one row more
        int64_t* places;  // [S][winners]: see spread_windows
        const void** in;  // [S]: rows of y, const E**
        size_t bytes;     // with all that was carved before
    };
    Scratch carve(Carver carver) const {
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.u = carver.take<T>(S * image_step + (a.pool.identity() ? 0 : a.W * width));
        s.waiting = carver.take<T>(S * waiting_step);
        s.places = carver.take<int64_t>(S * winners);
        s.in = carver.take<const void*>(S);
        s.bytes = carver.used();
        return s;
    }

    // Channels [oc, oc + width), as many as there are, of rows [h, h + n) of group g, un-mixed with its
    // coefficients c.
    void fill(const Scratch& s, const T* c, int64_t g, int64_t oc, int64_t h, int64_t n) const {
        if (transposed) return transpose_lines(s, c, g, oc, h * a.W, n * a.W);
        if (!a.pool.identity()) return spread_windows(s, c, g, oc, h, n);
        for (int64_t e = 0; e < n * a.W * a.C; e += kPiece)
            unmix(s, c, g, h * a.W * a.C + e, min64(kPiece, n * a.W * a.C - e), s.u + e, image_step);
    }

  private:
    // Image j's values of elements [at, at + n), times their codes' factors, to to + j * to_step.
    void unmix(const Scratch& s, const T* c, int64_t g, int64_t at, int64_t n, T* to, int64_t to_step) const {
        with_dtype_of<T>(a.dtype, [&](auto tag) {
            using E = typename decltype(tag)::type;
            const E** in = reinterpret_cast<const E**>(s.in);
            for (int64_t i = 0; i < S; ++i) in[i] = static_cast<const E*>(a.y) + a.key.order[g * S + i] * row_size + at;
            mix_tile<T>(in, c, S, 0, n, [&](int64_t j, int64_t e, Vec<T> v, int64_t lanes) {
                store_as<T>(to + j * to_step + e, v, lanes);
            });
        });
        if (!a.codes) return;
        for (int64_t j = 0; j < S; ++j) {
            const uint8_t* codes = codes_of(g * S + j) + at;
            T* t = to + j * to_step;
            for (int64_t e = 0; e < n; e += kLanes<T>)
                store_as<T>(t + e, code_factors<T>(codes + e, n - e, T(a.pos), T(a.neg)) * load_as<T>(t + e, n - e),
                            n - e);
        }
    }
    const uint8_t* codes_of(int64_t b) const { return a.codes + b * row_size; }

    // NCHW without a pool: n pixels of W channels at a time, turned into W channels of n pixels.
    void transpose_lines(const Scratch& s, const T* c, int64_t g, int64_t oc, int64_t pixel, int64_t n) const {
        for (int64_t first = 0; first < min64(width, a.C - oc); first += W) {
            for (int64_t l = 0; l < min64(W, a.C - oc - first); ++l)
                unmix(s, c, g, (oc + first + l) * plane + pixel, n, s.waiting + l * line_step, waiting_step);
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
                    spread(s, c, g, (oc + line) * plane + (ph * a.PW + q) * channels, min64(piece, a.PW - q),
                           s.u + (q * p.sw - p.pad_w) * width + line);
        }
    }
    // `count` pixels from element `at` on; `to`: the first column of the first window in a row of u.
    void spread(const Scratch& s, const T* c, int64_t g, int64_t at, int64_t count, T* to) const {
        const int64_t channels = a.channels_last ? a.C : 1;
        unmix(s, c, g, at, count * channels, s.waiting, waiting_step);
        for (int64_t j = 0; j < S; ++j) {
            const T* value = s.waiting + j * waiting_step;
            const uint8_t* code = codes_of(g * S + j) + at;
            const int64_t* place = s.places + j * winners;
            T* pixel = to;
            for (int64_t k = 0; k < count; ++k, pixel += a.pool.sw * width, value += channels, code += channels)
                for (int64_t l = 0; l < channels; ++l) pixel[l + place[code[l] & kCodeWindow]] += value[l];
        }
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
