// act_mix_vjp under a pool, for each layout in the way that keeps its sums in cache.
#pragma once

#include "lines.h"
#include "unmixed_rows.h"

namespace facemix::FACEMIX_ISA {
namespace {

// In NCHW an item is a channel of a group: windows overlap, so that all that may write one element of z lies in one
// item, in a fixed order.
template <class E>
struct ActMixVjpPlanes {
    using T = Compute<E>;
    // Overlapping windows are summed in T and rounded once: into scratch memory where z is of another type.
    static constexpr bool kDirect = kSame<T, E>;
    const ActMixLinearArgs& a;
    Lines lines{false, a.C, a.H, a.W, a.PH, a.PW, a.pool};
    Winners winners{lines};
    int64_t S = a.key.size, pixels = a.H * a.W;

    struct Scratch {
        T *c, *t, *sums;
        const E** in;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.t = carver.take<T>(S * kTile);
        s.sums = carver.take<T>(kDirect ? 0 : S * pixels);
        s.in = carver.take<const E*>(S);
        s.bytes = carver.used();
        return s;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ActMixVjpPlanes& self = *static_cast<const ActMixVjpPlanes*>(ctx);
        self.channel(index / self.a.C, index % self.a.C, self.carve(scratch));
    }
    void channel(int64_t g, int64_t c, const Scratch& s) const {
        const Coefficients<T> coeffs(a.key, g, true, s.c);
        E* z = static_cast<E*>(a.z) + (g * S * a.C + c) * pixels;
        T* sums = s.sums;
        int64_t step = pixels;  // to the next image
        if constexpr (kDirect) sums = z, step = lines.plane();
        for (int64_t j = 0; j < S; ++j) memset(sums + j * step, 0, size_t(pixels) * sizeof(T));
        for (int64_t ph = 0; ph < a.PH; ++ph)
            for (int64_t q = 0; q < a.PW; q += kTile)
                spread(s, coeffs.get(), g, c * a.PH + ph, q, min64(kTile, a.PW - q),
                       sums + lines.origin(c * a.PH + ph, q) - c * pixels, step);
        if constexpr (!kDirect)
            for (int64_t j = 0; j < S; ++j)
                for (int64_t e = 0; e < pixels; e += kLanes<T>)
                    store_as<T>(z + j * lines.plane() + e, load_as<T>(sums + j * step + e, pixels - e), pixels - e);
    }
    // Un-mixes elements [e0, e0 + n) of a line, and adds each to its winner.
    void spread(const Scratch& s, const T* c, int64_t g, int64_t line, int64_t e0, int64_t n, T* sums,
                int64_t step) const {
        const int64_t at = line * lines.length() + e0;
        for (int64_t i = 0; i < S; ++i)
            s.in[i] = static_cast<const E*>(a.y) + a.key.order[g * S + i] * lines.pooled_plane() + at;
        mix_tile<T>(s.in, c, S, 0, n,
                    [&](int64_t j, int64_t e, Vec<T> v, int64_t lanes) { store_as<T>(s.t + j * kTile + e, v, lanes); });
        for (int64_t j = 0; j < S; ++j) {
            const uint8_t* codes = a.codes + (g * S + j) * lines.pooled_plane() + at;
            for (int64_t e = 0; e < n; ++e)
                sums[j * step + e * lines.element_step() + winners[codes[e]]] +=
                    T(codes[e] & kCodeNegative ? a.neg : a.pos) * s.t[j * kTile + e];
        }
    }

    void run() const { parallel_for(a.key.groups * a.C, a.threads, carve(nullptr).bytes, item, this); }
};

constexpr int64_t kRowBytes = 512 << 10;  // of z in an item: they stay in L2

// In NHWC an item is a few rows of a group. Windows that reach into two items are un-mixed for both.
template <class T>
struct ActMixVjpRows {
    const ActMixLinearArgs& a;
    int64_t S = a.key.size, row = a.W * a.C;
    int64_t block = max64(1, min64(a.H, kRowBytes / (S * row * int64_t(sizeof(T)))));  // rows an item
    int64_t blocks = ceil_div(a.H, block);
    UnmixedRows<T> unmixed{a, block};
    bool streaming = a.key.groups * S * a.H * row * bytes_of(a.dtype) >= kStreamBytes;

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ActMixVjpRows& self = *static_cast<const ActMixVjpRows*>(ctx);
        self.rows(index / self.blocks, index % self.blocks * self.block, self.unmixed.carve(Carver(scratch)));
    }
    void rows(int64_t g, int64_t h, const typename UnmixedRows<T>::Scratch& s) const {
        const Coefficients<T> coeffs(a.key, g, true, s.c);
        const int64_t count = min64(block, a.H - h);
        unmixed.fill(s, coeffs.get(), g, 0, h, count);
        with_dtype_of<T>(a.dtype, [&](auto tag) {
            auto* z = static_cast<typename decltype(tag)::type*>(a.z) + (g * S * a.H + h) * row;
            for (int64_t j = 0; j < S; ++j)
                write_run<T>(z + j * a.H * row, s.u + j * unmixed.image_step, count * row, streaming);
        });
        finish_streaming();
    }

    void run() const {
        parallel_for(a.key.groups * blocks, a.threads, unmixed.carve(Carver(nullptr)).bytes, item, this);
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
