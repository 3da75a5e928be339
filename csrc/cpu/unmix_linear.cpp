// unmix_linear: out[g*S+j] = (sum_i A[g,i,j] y[order[g*S+i]]) W^T + bias. Both steps are linear, so the cheaper order
// is taken: the product first when it makes rows shorter.
#include "mixing.h"

namespace facemix::FACEMIX_ISA {
namespace {

// Register block: rows broadcast, outputs in the lanes.
constexpr int kBlockRows = kRegisters == 32 ? 8 : 4;
constexpr int kBlockVectors = 3;
static_assert(kBlockRows * kBlockVectors + kBlockVectors + 1 <= kRegisters, "the sums would spill");
// Rows below which packing the weight takes longer than it saves; they take dot products instead, each a vector of
// partial sums: 4x4 of 32 registers, 4x2 of 16.
constexpr int64_t kPackedRows = 512;
constexpr int kDotRows = 4;
constexpr int kDotOutputs = kRegisters == 32 ? 4 : 2;
static_assert(kDotRows * kDotOutputs + kDotOutputs + 1 <= kRegisters, "the dot products would spill");
// Multiply-adds below which waking other threads may take longer than the work.
constexpr int64_t kSerialWork = 2 << 20;

// out[r][0..V lanes) = sum_k rows[r][k] * panel[k][0..V lanes)
template <class T, int R, int V>
inline void block(const T* const* rows, const T* panel, int64_t K, T* const* out, int64_t n) {
    constexpr int W = kLanes<T>;
    const T* row[R];
    Vec<T> sums[R][V];
    FACEMIX_UNROLL
    for (int r = 0; r < R; ++r) {
        row[r] = rows[r];
        FACEMIX_UNROLL
        for (int v = 0; v < V; ++v) sums[r][v] = Vec<T>{};
    }
    for (int64_t k = 0; k < K; ++k, panel += V * W) {
        Vec<T> w[V];
        FACEMIX_UNROLL
        for (int v = 0; v < V; ++v) w[v] = load(panel + v * W);
        FACEMIX_UNROLL
        for (int q = 0; q < R * V; ++q) sums[q / V][q % V] += row[q / V][k] * w[q % V];
    }
    FACEMIX_UNROLL
    for (int q = 0; q < R * V; ++q) store(out[q / V] + n + q % V * W, sums[q / V][q % V]);
}

template <class T, int V>
inline void product(const T* const* rows, int64_t R, const T* panel, int64_t K, T* const* out, int64_t n) {
    int64_t r = 0;
    for (; r + kBlockRows <= R; r += kBlockRows) block<T, kBlockRows, V>(rows + r, panel, K, out + r, n);
    if constexpr (kBlockRows > 4)
        for (; r + 4 <= R; r += 4) block<T, 4, V>(rows + r, panel, K, out + r, n);
    for (; r + 2 <= R; r += 2) block<T, 2, V>(rows + r, panel, K, out + r, n);
    for (; r < R; ++r) block<T, 1, V>(rows + r, panel, K, out + r, n);
}

// sums[i] = the sum of the lanes of v[i], for one vector of sums: log2(lanes) times, two vectors become one that holds
// half as many partial sums of each.
template <class T>
inline Vec<T> sum_lanes(const Vec<T>* v) {
    constexpr int W = kLanes<T>;
    Vec<T> r[W];
    FACEMIX_UNROLL
    for (int i = 0; i < W; ++i) r[i] = v[i];
    FACEMIX_UNROLL
    for (int n = W / 2; n; n /= 2) {
        FACEMIX_UNROLL
        for (int i = 0; i < n; ++i) r[i] = interleave<0>(r[i], r[i + n]) + interleave<1>(r[i], r[i + n]);
    }
    return r[0];
}

template <class T, int R, int N>
inline void dots(const T* const* rows, const T* w, int64_t K, T* const* out, int64_t n0) {
    Vec<T> acc[R * N] = {};
    for (int64_t k = 0; k < K; k += kLanes<T>) {
        const int64_t lanes = K - k;
        Vec<T> b[N];
        for (int n = 0; n < N; ++n) b[n] = load_as<T>(w + (n0 + n) * K + k, lanes);
        for (int r = 0; r < R; ++r) {
            Vec<T> v = load_as<T>(rows[r] + k, lanes);
            keep(v);
            for (int n = 0; n < N; ++n) acc[r * N + n] += v * b[n];
        }
    }
    T sums[R * N];
    if constexpr (R * N % kLanes<T> == 0) {
        FACEMIX_UNROLL
        for (int i = 0; i < R * N; i += kLanes<T>) store(sums + i, sum_lanes<T>(acc + i));
    } else {
        for (int i = 0; i < R * N; ++i) {
            sums[i] = T(0);
            for (int l = 0; l < kLanes<T>; ++l) sums[i] += acc[i][l];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) out[r][n0 + n] = sums[r * N + n];
}

// out[r][n] = sum_k rows[r][k] * w[n * K + k], of the weight as it came. All rows meet a few rows of the weight while
// those are in L1.
template <class T, int N>
inline void dots_of_rows(const T* const* rows, int64_t R, const T* w, int64_t K, T* const* out, int64_t n) {
    int64_t r = 0;
    for (; r + kDotRows <= R; r += kDotRows) dots<T, kDotRows, N>(rows + r, w, K, out + r, n);
    for (; r < R; ++r) dots<T, 1, N>(rows + r, w, K, out + r, n);
}
template <class T>
inline void dot_products(const T* const* rows, int64_t R, const T* w, int64_t N, int64_t K, T* const* out) {
    int64_t n = 0;
    for (; n + kDotOutputs <= N; n += kDotOutputs) dots_of_rows<T, kDotOutputs>(rows, R, w, K, out, n);
    for (; n < N; ++n) dots_of_rows<T, 1>(rows, R, w, K, out, n);
}

// The outputs in panels of up to kBlockVectors vectors, all about as wide.
struct Panels {
    int64_t vectors, count;
    explicit Panels(int64_t n) : vectors(n), count(ceil_div(n, kBlockVectors)) {}
    int64_t begin(int64_t p) const { return vectors * p / count; }
    int64_t of(int64_t vector) const {
        int64_t p = 0;
        while (begin(p + 1) <= vector) ++p;
        return p;
    }
};

template <class E>
struct UnmixLinear {
    using T = Compute<E>;
    const UnmixLinearArgs& a;
    Panels panels;
    // A panel after another, each [K][lanes of its vectors]; the lanes beyond N are zero. Null: the weight as it came.
    T* packed = nullptr;

    explicit UnmixLinear(const UnmixLinearArgs& args) : a(args), panels(ceil_div(a.N, kLanes<T>)) {
        if (kSame<T, E> && a.key.groups * a.key.size * a.M < kPackedRows) return;
        packed = reinterpret_cast<T*>(workspace(size_t(panels.vectors * kLanes<T> * a.K) * sizeof(T)));
    }

    // One vector of outputs into its panel, by transposing squares.
    static void pack(const void* ctx, int64_t vector, char*) {
        constexpr int W = kLanes<T>;
        const UnmixLinear& self = *static_cast<const UnmixLinear*>(ctx);
        const int64_t K = self.a.K, p = self.panels.of(vector), first = self.panels.begin(p);
        const int64_t step = (self.panels.begin(p + 1) - first) * W, rows = min64(W, self.a.N - vector * W);
        const E* from = static_cast<const E*>(self.a.weight) + vector * W * K;
        T* to = self.packed + first * W * K + (vector - first) * W;
        for (int64_t k = 0; k < K; k += W) {
            Vec<T> square[W] = {};
            for (int64_t n = 0; n < rows; ++n) square[n] = load_as<T>(from + n * K + k, K - k);
            transpose<T>(square);
            for (int64_t i = 0; i < min64(W, K - k); ++i) store(to + (k + i) * step, square[i]);
        }
    }

    void multiply(const T* const* rows, T* const* out) const {
        constexpr int W = kLanes<T>;
        if (!packed) return dot_products<T>(rows, a.key.size, static_cast<const T*>(a.weight), a.N, a.K, out);
        for (int64_t p = 0; p < panels.count; ++p) {
            const int64_t v = panels.begin(p), width = panels.begin(p + 1) - v;
            const T* panel = packed + v * W * a.K;
            if (width == 3) product<T, 3>(rows, a.key.size, panel, a.K, out, v * W);
            else if (width == 2) product<T, 2>(rows, a.key.size, panel, a.K, out, v * W);
            else product<T, 1>(rows, a.key.size, panel, a.K, out, v * W);
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
        s.products = carver.take<T>(S * panels.vectors * kLanes<T>);
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
            s.out[i] = s.products + i * self.panels.vectors * kLanes<T>;
        }
        if (N < K) {
            if constexpr (kSame<T, E>) {
                self.multiply(s.sent, s.out);
            } else {
                for (int64_t i = 0; i < S; ++i)
                    for (int64_t k = 0; k < K; k += kLanes<T>)
                        store_as<T>(s.rows + i * K + k, load_as<T>(s.sent[i] + k, K - k), K - k);
                self.multiply(s.in, s.out);
            }
            mix_tile<T>(const_cast<const T* const*>(s.out), coeffs.get(), S, 0, N,
                        [&](int64_t j, int64_t n, Vec<T> v, int64_t lanes) { self.finish(g, j, m, n, v, lanes); });
        } else {
            mix_tile<T>(s.sent, coeffs.get(), S, 0, K, [&](int64_t j, int64_t k, Vec<T> v, int64_t lanes) {
                store_as<T>(s.rows + j * K + k, v, lanes);
            });
            self.multiply(s.in, s.out);
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
        if (items == 0) return;
        const int threads = items * a.key.size * a.K * a.N < kSerialWork ? 1 : a.threads;
        if (packed) parallel_for(panels.vectors, threads, 0, pack, this);
        parallel_for(items, threads, carve(nullptr).bytes, item, this);
    }
};

}  // namespace

void unmix_linear(const UnmixLinearArgs& a) {
    with_dtype(a.dtype, [&](auto tag) { UnmixLinear<typename decltype(tag)::type>(a).run(); });
}

}  // namespace facemix::FACEMIX_ISA
