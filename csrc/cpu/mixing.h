// The S x S mixing of one tile that lies in cache: out[i][e] = sum_j c[i * S + j] * in[j][e].
#pragma once

#include "element.h"
#include "parallel.h"

namespace facemix::FACEMIX_ISA {
namespace {

// Coefficients of one group in the compute type; transposed for unmix. Wiped by the destructor.
template <class T>
class Coefficients {
  public:
    Coefficients(const Key& key, int64_t g, bool transposed, T* scratch) : c_(scratch), count_(key.size * key.size) {
        const int64_t S = key.size;
        const double* a = key.coeffs + g * count_;
        for (int64_t i = 0; i < S; ++i)
            for (int64_t j = 0; j < S; ++j) c_[i * S + j] = T(transposed ? a[j * S + i] : a[i * S + j]);
    }
    ~Coefficients() { wipe(c_, size_t(count_) * sizeof(T)); }
    Coefficients(const Coefficients&) = delete;
    Coefficients& operator=(const Coefficients&) = delete;
    const T* get() const { return c_; }

  private:
    T* c_;
    int64_t count_;
};

constexpr int kMixRows = 4;  // output rows a register block: 4 x 2 accumulators and 2 inputs fit in 16 registers
constexpr int kMixVectors = 2;

// sink(i, e, v, lanes) takes `lanes` values of output row i from element e on.
template <class T, int I, int V, class E, class Sink>
inline void mix_block(const E* const* in, const T* c, int64_t S, int64_t i0, int64_t e, int64_t lanes, Sink&& sink) {
    constexpr int W = kLanes<T>;
    Vec<T> acc[I][V] = {};
    for (int64_t j = 0; j < S; ++j) {
        Vec<T> b[V];
        for (int v = 0; v < V; ++v) b[v] = load_as<T>(in[j] + e + v * W, lanes);
        for (int i = 0; i < I; ++i) {
            const T a = c[(i0 + i) * S + j];
            for (int v = 0; v < V; ++v) acc[i][v] += a * b[v];
        }
    }
    for (int i = 0; i < I; ++i)
        for (int v = 0; v < V; ++v) sink(i0 + i, e + v * W, acc[i][v], lanes);
}

template <class T, int I, class E, class Sink>
inline void mix_rows(const E* const* in, const T* c, int64_t S, int64_t i0, int64_t n, Sink&& sink) {
    constexpr int W = kLanes<T>;
    int64_t e = 0;
    for (; e + kMixVectors * W <= n; e += kMixVectors * W) mix_block<T, I, kMixVectors>(in, c, S, i0, e, W, sink);
    for (; e < n; e += W) mix_block<T, I, 1>(in, c, S, i0, e, min64(W, n - e), sink);
}

// Rows [i0, i1) of the mixed tile; n elements a row.
template <class T, class E, class Sink>
inline void mix_tile(const E* const* in, const T* c, int64_t S, int64_t i0, int64_t i1, int64_t n, Sink&& sink) {
    for (; i0 + kMixRows <= i1; i0 += kMixRows) mix_rows<T, kMixRows>(in, c, S, i0, n, sink);
    for (; i0 < i1; ++i0) mix_rows<T, 1>(in, c, S, i0, n, sink);
}

}  // namespace
}  // namespace facemix::FACEMIX_ISA
