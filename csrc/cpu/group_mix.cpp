// group_mix and group_unmix: one pass over [B, n] rows, each read and written once.
//     mix    y[order[g*S+i]] = sum_j A[g,i,j] x[g*S+j]        its adjoint (and inverse) is unmix, and the reverse
#include "mixing.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kTileBytes = 256 << 10;  // S pieces of a row: they stay in L2, and memory likes long runs

template <class E>
struct GroupMix {
    using T = Compute<E>;
    const GroupMixArgs& a;
    int64_t S = a.key.size;
    int64_t chunk = max64(64, kTileBytes / int64_t(sizeof(T)) / S / 64 * 64);  // elements of a row in one item
    int64_t chunks = ceil_div(a.n, chunk);
    bool streaming = a.key.groups * S * a.n * int64_t(sizeof(E)) >= kStreamBytes;

    struct Scratch {
        T *c, *t;
        const E** in;
        const T** scaled;
        E** out;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.t = carver.take<T>(S * chunk);
        s.in = carver.take<const E*>(S);
        s.scaled = carver.take<const T*>(S);
        s.out = carver.take<E*>(S);
        s.bytes = carver.used();
        return s;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const GroupMix& self = *static_cast<const GroupMix*>(ctx);
        self.mix(index / self.chunks, index % self.chunks * self.chunk, self.carve(scratch));
    }
    void mix(int64_t g, int64_t e0, const Scratch& s) const {
        const Coefficients<T> coeffs(a.key, g, a.transpose, s.c);
        const int64_t n = min64(chunk, a.n - e0);
        for (int64_t i = 0; i < S; ++i) {
            const int64_t plain = g * S + i, sent = a.key.order[plain];
            s.in[i] = static_cast<const E*>(a.x) + (a.transpose ? sent : plain) * a.n + e0;
            s.out[i] = static_cast<E*>(a.y) + (a.transpose ? plain : sent) * a.n + e0;
        }
        const auto store_out = [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
            store_as<T>(s.out[i] + e, v, lanes);
        };
        if (a.codes && !a.transpose) {
            for (int64_t j = 0; j < S; ++j) {
                s.scaled[j] = s.t + j * chunk;
                scale(s.in[j], g * S + j, e0, n, s.t + j * chunk);
            }
            mix_tile<T>(s.scaled, coeffs.get(), S, 0, n, store_out);
        } else if (a.codes || streaming) {
            // Memory likes one long run after the other better than S at once.
            mix_tile<T>(s.in, coeffs.get(), S, 0, n, [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
                store_as<T>(s.t + i * chunk + e, v, lanes);
            });
            for (int64_t i = 0; i < S; ++i) {
                if (a.codes) scale(s.t + i * chunk, g * S + i, e0, n, s.t + i * chunk);
                write_run<T>(s.out[i], s.t + i * chunk, n, streaming);
            }
            finish_streaming();
        } else {
            mix_tile<T>(s.in, coeffs.get(), S, 0, n, store_out);
        }
    }
    // to = the factors of row b's codes, from element e0 on, times from.
    template <class From>
    void scale(const From* from, int64_t b, int64_t e0, int64_t n, T* to) const {
        const uint8_t* codes = a.codes + b * a.n + e0;
        for (int64_t e = 0; e < n; e += kLanes<T>)
            store_as<T>(to + e, code_factors<T>(codes + e, n - e, T(a.pos), T(a.neg)) * load_as<T>(from + e, n - e),
                        n - e);
    }

    void run() const {
        prefer_large_pages(a.y, a.key.groups * S * a.n * bytes_of(a.dtype));
        parallel_for(a.key.groups * chunks, a.threads, carve(nullptr).bytes, item, this);
    }
};

}  // namespace

void group_mix(const GroupMixArgs& a) {
    with_dtype(a.dtype, [&](auto tag) { GroupMix<typename decltype(tag)::type>{a}.run(); });
}

}  // namespace facemix::FACEMIX_ISA
