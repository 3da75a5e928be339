// The S x S mixing of one tile that lies in cache: out[i][e] = sum_j A[i][j] * in[j][e].
#pragma once

#include "element.h"
#include "parallel.h"

namespace facemix::FACEMIX_ISA {
namespace {

// The matrix of one group in the compute type, column by column: c[j * S + i] = A[i][j], or A[j][i] to un-mix. Wiped by
// the destructor.
template <class T>
class Coefficients {
  public:
    Coefficients(const Key& key, int64_t g, bool transposed, T* scratch) : c_(scratch), count_(key.size * key.size) {
        const int64_t S = key.size;
        const double* a = key.coeffs + g * count_;
        for (int64_t i = 0; i < S; ++i)
            for (int64_t j = 0; j < S; ++j) c_[j * S + i] = T(transposed ? a[j * S + i] : a[i * S + j]);
    }
    ~Coefficients() { wipe(c_, size_t(count_) * sizeof(T)); }
    Coefficients(const Coefficients&) = delete;
    Coefficients& operator=(const Coefficients&) = delete;
    const T* get() const { return c_; }

  private:
    T* c_;
    int64_t count_;
};

// What the derivative at an activation multiplies with, by the code of its value: pos or neg.
template <class T>
inline Vec<T> code_factors(const uint8_t* codes, int64_t lanes, T pos, T neg) {
    const Vec<T> zero = {};
    return load_as<T>(codes, lanes) >= zero + T(kCodeNegative) ? zero + neg : zero + pos;
}

constexpr int kMixRows = kRegisters == 32 ? 8 : 4;  // output rows a register block, at most
constexpr int kMixVectors = 2;

// sums[i][v] = vector v, from element e on, of output row i0 + i; `lanes` elements of the last one count.
template <class T, int I, int V, class E>
__attribute__((always_inline)) inline void mix_sums(Vec<T> (&sums)[I][V], const E* const* in, const T* c, int64_t S,
                                                    int64_t i0, int64_t e, int64_t lanes) {
    FACEMIX_UNROLL
    for (int q = 0; q < I * V; ++q) sums[q / V][q % V] = Vec<T>{};
    for (int64_t j = 0; j < S; ++j) {
        Vec<T> b[V];
        FACEMIX_UNROLL
        for (int v = 0; v < V; ++v) b[v] = load_as<T>(in[j] + e + v * kLanes<T>, lanes);
        FACEMIX_UNROLL
        for (int q = 0; q < I * V; ++q) sums[q / V][q % V] += c[j * S + i0 + q / V] * b[q % V];
    }
}

template <int I>
struct Rows {
    static constexpr int count = I;
};
// Calls f(Rows<I>{}, i0) for blocks of rows that make up [0, S).
template <class F>
inline void for_row_blocks(int64_t S, F&& f) {
    int64_t i = 0;
    for (; i + kMixRows <= S; i += kMixRows) f(Rows<kMixRows>{}, i);
    if constexpr (kMixRows > 4)
        for (; i + 4 <= S; i += 4) f(Rows<4>{}, i);
    for (; i + 2 <= S; i += 2) f(Rows<2>{}, i);
    for (; i < S; ++i) f(Rows<1>{}, i);
}

// Elements [first, first + n) of all rows, mixed; sink(i, e, v, lanes) takes `lanes` values of output row i from
// element e on.
template <class T, class E, class Sink>
inline void mix_tile(const E* const* in, const T* c, int64_t S, int64_t first, int64_t n, Sink&& sink) {
    constexpr int W = kLanes<T>;
    for_row_blocks(S, [&](auto rows, int64_t i0) {
        constexpr int I = decltype(rows)::count;
        int64_t e = first;
        for (; e + kMixVectors * W <= first + n; e += kMixVectors * W) {
            Vec<T> sums[I][kMixVectors];
            mix_sums<T>(sums, in, c, S, i0, e, W);
            FACEMIX_UNROLL
            for (int q = 0; q < I * kMixVectors; ++q)
                sink(i0 + q / kMixVectors, e + q % kMixVectors * W, sums[q / kMixVectors][q % kMixVectors], W);
        }
        for (; e < first + n; e += W) {
            const int64_t lanes = min64(W, first + n - e);
            Vec<T> sums[I][1];
            mix_sums<T>(sums, in, c, S, i0, e, lanes);
            FACEMIX_UNROLL
            for (int i = 0; i < I; ++i) sink(i0 + i, e, sums[i][0], lanes);
        }
    });
}

}  // namespace
}  // namespace facemix::FACEMIX_ISA
