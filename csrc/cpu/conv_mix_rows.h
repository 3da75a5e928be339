// From tiles of the S images of a group to its rows of y: mixed, in the dtype of y, each element written once.
#pragma once

#include "mixing.h"

namespace facemix::FACEMIX_ISA {
namespace {

// Calls f(Tag<element type>) for the dtypes that y may have where sums are of type T.
template <class T, class F>
inline void with_wire_dtype(Dtype dtype, F&& f) {
    if constexpr (!kSame<T, double>)
        if (dtype == Dtype::i8) return f(Tag<int8_t>{});
    with_dtype_of<T>(dtype, f);
}

template <class T>
struct ConvMixRows {
    static constexpr int W = kLanes<T>;
    const ConvMixArgs& a;
    const T** in;  // [S]: the tiles
    const T* c;    // the group's Coefficients
    int64_t g;
    bool streaming;  // past the caches
    int64_t S = a.key.size, plane = a.PH * a.PW, row_size = a.OC * plane;

    int64_t sent(int64_t i) const { return a.key.order[g * S + i] * row_size; }

    // Mixes `rows` rows of `vectors` vectors each to elements `at + r * step` of the rows of y, of which `lanes` exist.
    void write(int64_t at, int64_t rows, int64_t step, int64_t vectors, int64_t lanes) const {
        with_wire_dtype<T>(a.y_dtype, [&](auto tag) {
            auto* base = static_cast<typename decltype(tag)::type*>(a.y) + at;
            mix_to([&](int64_t i) { return base + sent(i); }, rows, step, vectors, lanes, streaming);
        });
    }
    // The same to out(i) + r * step for each i.
    template <class Out>
    void mix_to(Out&& out, int64_t rows, int64_t step, int64_t vectors, int64_t lanes, bool past_caches) const {
        for_row_blocks(S, [&](auto block, int64_t i0) {
            constexpr int I = decltype(block)::count;
            decltype(out(0)) y[I];
            for (int i = 0; i < I; ++i) y[i] = out(i0 + i);
            if (past_caches) mix_rows<I, true>(y, i0, rows, step, vectors, lanes);
            else mix_rows<I, false>(y, i0, rows, step, vectors, lanes);
        });
    }

    // Mixes n elements to element `at` and those behind it, past the caches where lines of the cache are whole. Not
    // int8.
    void write_run(int64_t at, int64_t n) const {
        with_dtype_of<T>(a.y_dtype, [&](auto tag) {
            using O = typename decltype(tag)::type;
            constexpr int64_t kLine = max64(W, 64 / int64_t(sizeof(O)));
            O* y = static_cast<O*>(a.y) + at;
            const int64_t over = int64_t(reinterpret_cast<uintptr_t>(y) / sizeof(O) % kLine);
            const int64_t head = over ? min64(n, kLine - over) : 0, whole = (n - head) / kLine * kLine;
            const auto part = [&](int64_t first, int64_t count) {
                mix_tile<T>(in, c, S, first, count, [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
                    store_as<T>(y + sent(i) + e, v, lanes);
                });
            };
            part(0, head);
            mix_tile<T>(in, c, S, head, whole,
                        [&](int64_t i, int64_t e, Vec<T> v, int64_t) { stream_as<T>(y + sent(i) + e, v); });
            part(head + whole, n - head - whole);
        });
    }

    // S mixed tiles [n pixels][width channels], tile_step apart, to pixels `pixel` and channels `oc` on of the rows of
    // y.
    void write_mixed(const T* tiles, int64_t tile_step, int64_t oc, int64_t width, int64_t pixel, int64_t n) const {
        with_wire_dtype<T>(a.y_dtype, [&](auto tag) {
            auto* y = static_cast<typename decltype(tag)::type*>(a.y);
            for (int64_t i = 0; i < S; ++i) place(tiles + i * tile_step, y + sent(i), oc, width, pixel, n);
        });
    }
    // One such tile to an image of the layout of y.
    template <class O>
    void place(const T* tile, O* image, int64_t oc, int64_t width, int64_t pixel, int64_t n) const {
        const int64_t real = min64(width, a.OC - oc);
        if (a.channels_last) {
            for (int64_t k = 0; k < n; ++k)
                for (int64_t c = 0; c < real; c += W)
                    store_as<T>(image + (pixel + k) * a.OC + oc + c, load(tile + k * width + c), real - c);
            return;
        }
        for (int64_t c = 0; c < real; c += W)
            for (int64_t k = 0; k < n; k += W) {
                Vec<T> v[W];
                for (int l = 0; l < W; ++l) v[l] = load(tile + min64(k + l, n - 1) * width + c);
                transpose<T>(v);
                for (int64_t l = 0; l < min64(W, real - c); ++l)
                    store_as<T>(image + (oc + c + l) * plane + pixel + k, v[l], n - k);
            }
    }

  private:
    template <int I, bool Streaming, class O>
    void mix_rows(O* const (&y)[I], int64_t i0, int64_t rows, int64_t step, int64_t vectors, int64_t lanes) const {
        for (int64_t r = 0; r < rows; ++r) {
            int64_t v = 0;
            for (; v + kMixVectors <= vectors; v += kMixVectors)
                mix_vectors<I, kMixVectors, Streaming>(y, i0, (r * vectors + v) * W, r * step + v * W, lanes - v * W);
            for (; v < vectors; ++v)
                mix_vectors<I, 1, Streaming>(y, i0, (r * vectors + v) * W, r * step + v * W, lanes - v * W);
        }
    }
    template <int I, int V, bool Streaming, class O>
    __attribute__((always_inline)) inline void mix_vectors(O* const (&y)[I], int64_t i0, int64_t e, int64_t at,
                                                           int64_t lanes) const {
        Vec<T> sums[I][V];
        mix_sums<T>(sums, in, c, S, i0, e, W);
        FACEMIX_UNROLL
        for (int q = 0; q < I * V; ++q) {
            const int i = q / V, v = q % V;
            O* to = y[i] + at + v * W;
            if (lanes >= V * W) {
                if constexpr (Streaming) stream_as<T>(to, sums[i][v]);
                else store_as<T>(to, sums[i][v], W);
            } else if (lanes > v * W) {
                store_as<T>(to, sums[i][v], lanes - v * W);
            }
        }
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
