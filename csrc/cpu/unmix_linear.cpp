// unmix_linear: out[g*S+j] = (sum_i A[g,i,j] y[order[g*S+i]]) W^T + bias. Both steps are linear, so the cheaper order
// is taken: the product first when it makes rows shorter.
#include "mixing.h"

namespace facemix::FACEMIX_ISA {
namespace {

// Register block of dot products, each a vector of partial sums: 4x4 of 32 registers, 4x2 of 16.
constexpr int kDotRows = 4;
constexpr int kDotOutputs = kRegisters == 32 ? 4 : 2;
static_assert(kDotRows * kDotOutputs + kDotOutputs + 1 <= kRegisters, "the dot products would spill");
// Multiply-adds below which waking other threads takes longer than the work.
constexpr int64_t kSerialWork = 2 << 20;

// sums[i] = the sum of the lanes of v[i]: as many at once as there are lanes, by a transpose.
template <class T, int count>
inline void sum_lanes(const Vec<T> (&v)[count], T (&sums)[count]) {
    constexpr int W = kLanes<T>;
    if constexpr (count % W == 0) {
        for (int i = 0; i < count; i += W) {
            Vec<T> r[W], total = {};
            for (int l = 0; l < W; ++l) r[l] = v[i + l];
            transpose<T>(r);
            for (int l = 0; l < W; ++l) total += r[l];
            store(sums + i, total);
        }
    } else {
        for (int i = 0; i < count; ++i) {
            sums[i] = T(0);
            for (int l = 0; l < W; ++l) sums[i] += v[i][l];
        }
    }
}

template <class T, int R, int N>
inline void dots(const T* const* rows, const T* w, int64_t K, T* const* out, int64_t n0) {
    Vec<T> acc[R * N] = {};
    for (int64_t k = 0; k < K; k += kLanes<T>) {
        const int64_t lanes = K - k;
        Vec<T> b[N];
        for (int n = 0; n < N; ++n) b[n] = load_as<T>(w + (n0 + n) * K + k, lanes);
        for (int r = 0; r < R; ++r) {
            const Vec<T> v = load_as<T>(rows[r] + k, lanes);
            for (int n = 0; n < N; ++n) acc[r * N + n] += v * b[n];
        }
    }
    T sums[R * N];
    sum_lanes<T>(acc, sums);
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) out[r][n0 + n] = sums[r * N + n];
}

// out[r][n] = sum_k rows[r][k] * w[n * K + k]
template <class T>
inline void product(const T* const* rows, int64_t R, const T* w, int64_t N, int64_t K, T* const* out) {
    int64_t r = 0;
    for (; r + kDotRows <= R; r += kDotRows) {
        int64_t n = 0;
        for (; n + kDotOutputs <= N; n += kDotOutputs) dots<T, kDotRows, kDotOutputs>(rows + r, w, K, out + r, n);
        for (; n < N; ++n) dots<T, kDotRows, 1>(rows + r, w, K, out + r, n);
    }
    for (; r < R; ++r)
        for (int64_t n = 0; n < N; ++n) dots<T, 1, 1>(rows + r, w, K, out + r, n);
}

template <class E>
struct UnmixLinear {
    using T = Compute<E>;
    const UnmixLinearArgs& a;
    const T* weight;

    explicit UnmixLinear(const UnmixLinearArgs& args) : a(args) {
        if constexpr (kSame<T, E>) {
            weight = static_cast<const T*>(a.weight);
        } else {  // widened once, for all rows
            T* wide = reinterpret_cast<T*>(workspace(size_t(a.N * a.K) * sizeof(T)));
            for (int64_t k = 0; k < a.N * a.K; ++k) wide[k] = widen<T>(static_cast<const E*>(a.weight)[k]);
            weight = wide;
        }
    }

    struct Scratch {
        T *c, *rows, *products;
        const T** in;
        T** out;
        const E** sent;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        const int64_t S = a.key.size;
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.rows = carver.take<T>(S * a.K);
        s.products = carver.take<T>(S * a.N);
        s.in = carver.take<const T*>(S);
        s.out = carver.take<T*>(S);
        s.sent = carver.take<const E*>(S);
        s.bytes = carver.used();
        return s;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const UnmixLinear& self = *static_cast<const UnmixLinear*>(ctx);
        const UnmixLinearArgs& a = self.a;
        const int64_t S = a.key.size, g = index / a.M, m = index % a.M, K = a.K, N = a.N;
        const Scratch s = self.carve(scratch);
        Coefficients<T> coeffs(a.key, g, true, s.c);
        for (int64_t i = 0; i < S; ++i) {
            s.sent[i] = static_cast<const E*>(a.y) + (a.key.order[g * S + i] * a.M + m) * K;
            s.in[i] = s.rows + i * K;
            s.out[i] = s.products + i * N;
        }
        if (N < K) {
            for (int64_t i = 0; i < S; ++i)
                for (int64_t k = 0; k < K; k += kLanes<T>)
                    store_as<T>(s.rows + i * K + k, load_as<T>(s.sent[i] + k, K - k), K - k);
            product<T>(s.in, S, self.weight, N, K, s.out);
            mix_tile<T>(const_cast<const T* const*>(s.out), coeffs.get(), S, N,
                        [&](int64_t j, int64_t n, Vec<T> v, int64_t lanes) { self.finish(g, j, m, n, v, lanes); });
        } else {
            mix_tile<T>(s.sent, coeffs.get(), S, K, [&](int64_t j, int64_t k, Vec<T> v, int64_t lanes) {
                store_as<T>(s.rows + j * K + k, v, lanes);
            });
            product<T>(s.in, S, self.weight, N, K, s.out);
            for (int64_t j = 0; j < S; ++j)
                for (int64_t n = 0; n < N; n += kLanes<T>)
                    self.finish(g, j, m, n, load_as<T>(s.out[j] + n, N - n), N - n);
        }
    }

    void finish(int64_t g, int64_t j, int64_t m, int64_t n, Vec<T> v, int64_t lanes) const {
        if (a.bias) v += load_as<T>(static_cast<const E*>(a.bias) + n, min64(lanes, a.N - n));
        store_as<T>(static_cast<E*>(a.out) + ((g * a.key.size + j) * a.M + m) * a.N + n, v, lanes);
    }

    void run() const {
        const int64_t items = a.key.groups * a.M;
        const bool serial = items * a.key.size * a.K * a.N < kSerialWork;
        parallel_for(items, serial ? 1 : a.threads, carve(nullptr).bytes, item, this);
    }
};

}  // namespace

void unmix_linear(const UnmixLinearArgs& a) {
    with_dtype(a.dtype, [&](auto tag) { UnmixLinear<typename decltype(tag)::type>(a).run(); });
}

}  // namespace facemix::FACEMIX_ISA
