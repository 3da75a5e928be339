// group_mix and group_unmix: one pass over [B, n] rows, each read and written once.
//     mix    y[order[g*S+i]] = sum_j A[g,i,j] x[g*S+j]        its adjoint (and inverse) is unmix, and the reverse
#include "mixing.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kChunk = 1024;  // elements of a row in one item: S such pieces stay in L1 for the usual S

template <class E>
struct GroupMix {
    using T = Compute<E>;
    const GroupMixArgs& a;
    int64_t chunks = ceil_div(a.n, kChunk);
    bool streaming = a.key.groups * a.key.size * a.n * int64_t(sizeof(E)) >= kStreamBytes;

    size_t carve(char* base, T** c, T** t, const E*** in, E*** out) const {
        Carver carver(base);
        *c = carver.take<T>(a.key.size * a.key.size);
        *t = carver.take<T>(streaming ? a.key.size * kChunk : 0);
        *in = carver.take<const E*>(a.key.size);
        *out = carver.take<E*>(a.key.size);
        return carver.used();
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const GroupMix& self = *static_cast<const GroupMix*>(ctx);
        const GroupMixArgs& a = self.a;
        const int64_t S = a.key.size, g = index / self.chunks, e0 = index % self.chunks * kChunk;
        T *c, *t;
        const E** in;
        E** out;
        self.carve(scratch, &c, &t, &in, &out);
        Coefficients<T> coeffs(a.key, g, a.transpose, c);
        for (int64_t s = 0; s < S; ++s) {
            const int64_t plain = g * S + s, sent = a.key.order[plain];
            in[s] = static_cast<const E*>(a.x) + (a.transpose ? sent : plain) * a.n + e0;
            out[s] = static_cast<E*>(a.y) + (a.transpose ? plain : sent) * a.n + e0;
        }
        const int64_t n = min64(kChunk, a.n - e0);
        const auto mixed = [&](auto&& sink) { mix_tile<T>(in, coeffs.get(), S, n, sink); };
        if (!self.streaming) {
            mixed([&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) { store_as<T>(out[i] + e, v, lanes); });
            return;
        }
        // Memory likes one long run after the other better than S at once.
        mixed([&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) { store_as<T>(t + i * kChunk + e, v, lanes); });
        for (int64_t i = 0; i < S; ++i) stream_run<T>(out[i], t + i * kChunk, n);
        finish_streaming();
    }

    void run() const {
        T *c, *t;
        const E** in;
        E** out;
        prefer_large_pages(a.y, a.key.groups * a.key.size * a.n * bytes_of(a.dtype));
        parallel_for(a.key.groups * chunks, a.threads, carve(nullptr, &c, &t, &in, &out), item, this);
    }
};

}  // namespace

void group_mix(const GroupMixArgs& a) {
    with_dtype(a.dtype, [&](auto tag) { GroupMix<typename decltype(tag)::type>{a}.run(); });
}

}  // namespace facemix::FACEMIX_ISA
