// The linearisation of act_mix at the recorded codes, and its adjoint: the derivatives of act_mix and conv_mix.
//     jvp  y = mix(f * z[winner])          vjp  z[winner] += f * unmix(y),   f = code negative ? neg : pos
// Without a pool every element is its own window, and group_mix does it.
#include "lines.h"
#include "mixing.h"

namespace facemix::FACEMIX_ISA {

void group_mix(const GroupMixArgs&);

namespace {

// An item is a group and a run of channels: windows overlap, so that all that may write one element of z lies in one
// item, in a fixed order.
template <class E, bool Adjoint>
struct ActMixLinear {
    using T = Compute<E>;
    // Overlapping windows are summed in T and rounded once: into scratch memory where z is of another type.
    static constexpr bool kDirect = kSame<T, E>;

    const ActMixLinearArgs& a;
    Lines lines;
    int64_t channels, blocks;         // channels of one item, items of one group
    int64_t offset[kCodeWindow + 1];  // of a window's elements from its origin

    explicit ActMixLinear(const ActMixLinearArgs& args)
        : a(args), lines(a.channels_last, a.C, a.H, a.W, a.PH, a.PW, a.pool) {
        channels = a.channels_last ? 32 : 1;
        blocks = ceil_div(a.C, channels);
        for (int64_t k = 0; k <= kCodeWindow; ++k)
            offset[k] = k / a.pool.kw * lines.row_step() + k % a.pool.kw * lines.pixel_step();
    }

    struct Scratch {
        T *c, *t, *sum;
        const T** in;
        const E** rows;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        const int64_t S = a.key.size;
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.t = carver.take<T>(S * kTile);
        s.sum = carver.take<T>(Adjoint && !kDirect ? S * lines.plane() : 0);
        s.in = carver.take<const T*>(S);
        s.rows = carver.take<const E*>(S);
        s.bytes = carver.used();
        return s;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ActMixLinear& self = *static_cast<const ActMixLinear*>(ctx);
        const ActMixLinearArgs& a = self.a;
        const Lines& lines = self.lines;
        const int64_t g = index / self.blocks, block = index % self.blocks, S = a.key.size;
        const Scratch s = self.carve(scratch);
        Coefficients<T> coeffs(a.key, g, Adjoint, s.c);
        T* sums = nullptr;
        if constexpr (Adjoint) {
            if constexpr (kDirect) sums = static_cast<T*>(a.z) + g * S * lines.plane();
            else sums = s.sum;
            self.each_run(block, S, [&](int64_t at, int64_t n) { memset(sums + at, 0, size_t(n) * sizeof(T)); });
        }
        const int64_t first = a.channels_last ? 0 : block * lines.PH;
        const int64_t last = a.channels_last ? lines.count() : first + lines.PH;
        const int64_t begin = a.channels_last ? block * self.channels : 0;
        const int64_t end = a.channels_last ? min64(a.C, begin + self.channels) : lines.length();
        for (int64_t line = first; line < last; ++line)
            for (int64_t e0 = begin; e0 < end; e0 += kTile) {
                const int64_t n = min64(kTile, end - e0);
                if constexpr (Adjoint) self.spread(s, coeffs.get(), sums, g, line, e0, n);
                else self.collect(s, coeffs.get(), g, line, e0, n);
            }
        if constexpr (Adjoint && !kDirect) {
            E* z = static_cast<E*>(a.z) + g * S * lines.plane();
            self.each_run(block, S, [&](int64_t at, int64_t n) {
                for (int64_t e = 0; e < n; e += kLanes<T>)
                    store_as<T>(z + at + e, load_as<T>(sums + at + e, n - e), n - e);
            });
        }
    }

    // f(offset, length) of every run of elements of an item in the S images of its group.
    template <class F>
    void each_run(int64_t block, int64_t S, F&& f) const {
        for (int64_t j = 0; j < S; ++j) {
            const int64_t image = j * lines.plane(), c = block * channels;
            if (!a.channels_last) f(image + c * lines.H * lines.W, lines.H * lines.W);
            else
                for (int64_t p = 0; p < lines.H * lines.W; ++p) f(image + p * a.C + c, min64(channels, a.C - c));
        }
    }

    const uint8_t* codes_of(int64_t b, int64_t line, int64_t e0) const {
        return a.codes + b * lines.pooled_plane() + line * lines.length() + e0;
    }
    T factor(uint8_t code) const { return T(code & kCodeNegative ? a.neg : a.pos); }

    // vjp of one tile: unmix, then add each value to its winner.
    void spread(const Scratch& s, const T* c, T* sums, int64_t g, int64_t line, int64_t e0, int64_t n) const {
        const int64_t S = a.key.size;
        for (int64_t i = 0; i < S; ++i)
            s.rows[i] =
                static_cast<const E*>(a.y) + a.key.order[g * S + i] * lines.pooled_plane() + line * lines.length() + e0;
        const int64_t step = lines.element_step(), origin = lines.origin(line, e0);
        mix_tile<T>(s.rows, c, S, 0, n,
                    [&](int64_t j, int64_t e, Vec<T> v, int64_t lanes) { store_as<T>(s.t + j * kTile + e, v, lanes); });
        for (int64_t j = 0; j < S; ++j) {
            const uint8_t* codes = codes_of(g * S + j, line, e0);
            T* z = sums + j * lines.plane() + origin;
            for (int64_t e = 0; e < n; ++e)
                z[e * step + offset[codes[e] & kCodeWindow]] += factor(codes[e]) * s.t[j * kTile + e];
        }
    }

    // jvp of one tile: pick the winners, then mix.
    void collect(const Scratch& s, const T* c, int64_t g, int64_t line, int64_t e0, int64_t n) const {
        const int64_t S = a.key.size, step = lines.element_step(), origin = lines.origin(line, e0);
        for (int64_t j = 0; j < S; ++j) {
            const uint8_t* codes = codes_of(g * S + j, line, e0);
            const E* z = static_cast<const E*>(a.z) + (g * S + j) * lines.plane() + origin;
            T* t = s.t + j * kTile;
            for (int64_t e = 0; e < n; ++e)
                t[e] = factor(codes[e]) * widen<T>(z[e * step + offset[codes[e] & kCodeWindow]]);
            s.in[j] = t;
        }
        E* y = static_cast<E*>(a.y) + line * lines.length() + e0;
        mix_tile<T>(s.in, c, S, 0, n, [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
            store_as<T>(y + a.key.order[g * S + i] * lines.pooled_plane() + e, v, lanes);
        });
    }

    void run() const {
        const int64_t rows = a.key.groups * a.key.size;
        if constexpr (Adjoint) prefer_large_pages(a.z, rows * lines.plane() * bytes_of(a.dtype));
        else prefer_large_pages(a.y, rows * lines.pooled_plane() * bytes_of(a.dtype));
        parallel_for(a.key.groups * blocks, a.threads, carve(nullptr).bytes, item, this);
    }
};

template <bool Adjoint>
void act_mix_linear(const ActMixLinearArgs& a) {
    if (a.pool.identity()) {  // element by element
        GroupMixArgs flat{
            Adjoint ? a.y : a.z, Adjoint ? a.z : a.y, a.dtype, a.C * a.H * a.W, Adjoint, a.key, a.threads};
        flat.codes = a.codes, flat.pos = a.pos, flat.neg = a.neg;
        return group_mix(flat);
    }
    with_dtype(a.dtype, [&](auto tag) { ActMixLinear<typename decltype(tag)::type, Adjoint>(a).run(); });
}

}  // namespace

void act_mix_jvp(const ActMixLinearArgs& a) { act_mix_linear<false>(a); }
void act_mix_vjp(const ActMixLinearArgs& a) { act_mix_linear<true>(a); }

}  // namespace facemix::FACEMIX_ISA
