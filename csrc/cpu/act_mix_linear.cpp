// The linearisation of act_mix at the recorded codes, and its adjoint: the derivatives of act_mix and conv_mix.
//     jvp  y = mix(f * z[winner])          vjp  z[winner] += f * unmix(y),   f = code negative ? neg : pos
// Without a pool every element is its own window, and group_mix does it.
#include "act_mix_vjp.h"

namespace facemix::FACEMIX_ISA {

void group_mix(const GroupMixArgs&);

namespace {

constexpr int64_t kPerItem = 8192;  // elements of one image in an item of the jvp, about

template <class E>
struct ActMixJvp {
    using T = Compute<E>;
    const ActMixLinearArgs& a;
    Lines lines{a.channels_last, a.C, a.H, a.W, a.PH, a.PW, a.pool};
    Winners winners{lines};
    int64_t block = max64(1, kPerItem / max64(1, lines.length()));  // lines an item
    int64_t blocks = ceil_div(lines.count(), block);

    struct Scratch {
        T *c, *t;
        const T** in;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        const int64_t S = a.key.size;
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.t = carver.take<T>(S * kTile);
        s.in = carver.take<const T*>(S);
        s.bytes = carver.used();
        return s;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ActMixJvp& self = *static_cast<const ActMixJvp*>(ctx);
        const Lines& lines = self.lines;
        const int64_t g = index / self.blocks, first = index % self.blocks * self.block;
        const Scratch s = self.carve(scratch);
        const Coefficients<T> coeffs(self.a.key, g, false, s.c);
        for (int64_t line = first; line < min64(lines.count(), first + self.block); ++line)
            for (int64_t e0 = 0; e0 < lines.length(); e0 += kTile)
                self.mix(s, coeffs.get(), g, line, e0, min64(kTile, lines.length() - e0));
    }
    // Picks the winners of elements [e0, e0 + n) of a line, and mixes them.
    void mix(const Scratch& s, const T* c, int64_t g, int64_t line, int64_t e0, int64_t n) const {
        const int64_t S = a.key.size, step = lines.element_step(), at = line * lines.length() + e0;
        for (int64_t j = 0; j < S; ++j) {
            const uint8_t* codes = a.codes + (g * S + j) * lines.pooled_plane() + at;
            const E* z = static_cast<const E*>(a.z) + (g * S + j) * lines.plane() + lines.origin(line, e0);
            T* t = s.t + j * kTile;
            for (int64_t e = 0; e < n; ++e)
                t[e] = T(codes[e] & kCodeNegative ? a.neg : a.pos) * widen<T>(z[e * step + winners[codes[e]]]);
            s.in[j] = t;
        }
        E* y = static_cast<E*>(a.y) + at;
        mix_tile<T>(s.in, c, S, 0, n, [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
            store_as<T>(y + a.key.order[g * S + i] * lines.pooled_plane() + e, v, lanes);
        });
    }

    void run() const {
        const int64_t rows = a.key.groups * a.key.size;
        prefer_large_pages(a.y, rows * lines.pooled_plane() * bytes_of(a.dtype));
        parallel_for(a.key.groups * blocks, a.threads, carve(nullptr).bytes, item, this);
    }
};

// Without a pool: element by element.
void flat(const ActMixLinearArgs& a, bool adjoint) {
    GroupMixArgs flat{adjoint ? a.y : a.z, adjoint ? a.z : a.y, a.dtype, a.C * a.H * a.W, adjoint, a.key, a.threads};
    flat.codes = a.codes, flat.pos = a.pos, flat.neg = a.neg;
    group_mix(flat);
}

}  // namespace

void act_mix_jvp(const ActMixLinearArgs& a) {
    if (a.pool.identity()) return flat(a, false);
    with_dtype(a.dtype, [&](auto tag) { ActMixJvp<typename decltype(tag)::type>{a}.run(); });
}

void act_mix_vjp(const ActMixLinearArgs& a) {
    if (a.pool.identity()) return flat(a, true);
    prefer_large_pages(a.z, a.key.groups * a.key.size * a.C * a.H * a.W * bytes_of(a.dtype));
    if (!a.channels_last)
        with_dtype(a.dtype, [&](auto tag) { ActMixVjpPlanes<typename decltype(tag)::type>{a}.run(); });
    else if (a.dtype == Dtype::f64) ActMixVjpRows<double>{a}.run();
    else ActMixVjpRows<float>{a}.run();
}

}  // namespace facemix::FACEMIX_ISA
