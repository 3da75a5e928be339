// A block's part of unmix_linear: its tiles, one after the other.
#pragma once

#include <algorithm>

#include "mixing.h"
#include "unmix_linear_product.h"

namespace facemix::cuda {

constexpr int kUnmixBlocks = 2;  // of a multiprocessor, at least: registers enough, and nothing spills

// Results of a group that a thread un-mixes at once, and coefficients of a row with what fills the last of them.
template <class Tile>
constexpr int kMixRows = Tile::kShare < 8 ? Tile::kShare : 8;
template <class Tile>
__host__ __device__ constexpr int mix_width(int S) {
    return (S + kMixRows<Tile> - 1) / kMixRows<Tile> * kMixRows<Tile>;
}
// Shared memory: the steps, and when they have been used the sums; then the coefficients [groups][S][width].
template <class Product>
constexpr int kCoeffsAt = std::max(Product::Tile::kStages * Product::Tile::kStageBytes,
                                   Product::Tile::kSums* int(sizeof(typename Product::T)));

// groups: of a tile, at most. A group stands here for its rows at one m in [0, M).
template <class E, class Product>
class UnmixBlock {
  public:
    __device__ __forceinline__ UnmixBlock(const UnmixLinearArgs& args, int groups, bool aligned)
        : a(args), groups_(groups), aligned_(aligned) {
        const int64_t n0 = int64_t(blockIdx.x) * Tile::kSide;
#pragma unroll
        for (int q = 0; q < kFetches; ++q) {
            const int64_t n = n0 + fetched_row(q);
            from_weight_[q] = static_cast<const E*>(a.weight) + (n < a.N ? n : a.N - 1) * a.K;
        }
        n_ = n0 + column();
        bias_ = a.bias && n_ < a.N ? T(static_cast<const E*>(a.bias)[n_]) : T(0);
    }

    __device__ __forceinline__ void run() {
        const int64_t groups = a.key.groups * a.M;  // at all m
        for (first_ = int64_t(blockIdx.y) * groups_; first_ < groups; first_ += int64_t(gridDim.y) * groups_) {
            count_ = groups - first_ < groups_ ? int(groups - first_) : groups_;
            find_rows();
            __syncthreads();  // the tile before may still be read
            k_ = 0, filled_ = 0;
#pragma unroll 1
            for (int step = 0; step < Tile::kStages - 1; ++step) fetch_step();
            read_key();
            multiply();
            write();
        }
        wipe();
    }

  private:
    using T = typename Product::T;
    using Tile = typename Product::Tile;
    static constexpr int V = kAccess / int(sizeof(E)), kStep = Tile::kDepth / int(sizeof(E));
    static constexpr int kChunks = Tile::kDepth / kAccess, kFetchRows = kUnmixThreads / kChunks;
    static constexpr int kFetches = Tile::kSide / kFetchRows, kRows = kMixRows<Tile>;

    // Row r of the tile that begins with group `first`: output i of the mix, counted through all groups, at one m. Most
    // layers have one m, and a division takes as long as a few steps.
    struct Row {
        int64_t i, m = 0;
        __device__ __forceinline__ Row(const UnmixLinearArgs& a, int64_t first, int r) : i(first * a.key.size + r) {
            if (a.M == 1) return;
            const int S = int(a.key.size);
            const int64_t group = first + r / S, g = group / a.M;
            i = g * S + r % S, m = group - g * a.M;
        }
    };

    // What this thread copies of each step: a chunk of kFetches rows of y, and of as many of W. Where there are no more
    // rows the last one is multiplied again; nothing is written of it.
    __device__ static int chunk() { return int(threadIdx.x) % kChunks; }
    __device__ static int fetched_row(int q) { return int(threadIdx.x) / kChunks + q * kFetchRows; }
    // The output that it writes.
    __device__ static int column() { return int(threadIdx.x) % Tile::kSide; }

    __device__ int size() const { return int(a.key.size); }
    __device__ int width() const { return mix_width<Tile>(size()); }
    __device__ static T* sums() { return reinterpret_cast<T*>(dynamic_shared); }
    __device__ static T* coeffs() { return reinterpret_cast<T*>(dynamic_shared + kCoeffsAt<Product>); }
    __device__ static int next(int stage) { return stage + 1 < Tile::kStages ? stage + 1 : 0; }

    __device__ __forceinline__ void find_rows() {
#pragma unroll
        for (int q = 0; q < kFetches; ++q) {
            const int r = fetched_row(q), last = count_ * size() - 1;
            const Row row(a, first_, r < last ? r : last);
            from_y_[q] = static_cast<const E*>(a.y) + (a.key.order[row.i] * a.M + row.m) * a.K;
        }
    }

    // Sends for the next step, if there is one.
    __device__ __forceinline__ void fetch_step() {
        if (k_ < a.K) fetch(dynamic_shared + filled_ * Tile::kStageBytes, k_ + chunk() * V);
        k_ += kStep, filled_ = next(filled_);
        cp_async_commit();
    }

    // A chunk of each row from element k on; zeros beyond K.
    __device__ __forceinline__ void fetch(unsigned char* stage, int64_t k) const {
        const auto each_row = [&](auto&& copy) {
#pragma unroll
            for (int q = 0; q < kFetches; ++q) {
                unsigned char* to = stage + fetched_row(q) * Tile::kPitch + chunk() * kAccess;
                copy(to, from_y_[q] + k);
                copy(to + Tile::kSide * Tile::kPitch, from_weight_[q] + k);
            }
        };
        if (aligned_) {
            each_row([&](unsigned char* to, const E* from) { cp_async<kAccess>(to, from, k < a.K); });
        } else {
            each_row([&](unsigned char* to, const E* from) {
#pragma unroll
                for (int v = 0; v < V; ++v) reinterpret_cast<E*>(to)[v] = k + v < a.K ? from[v] : E(0.f);
            });
        }
    }

    __device__ __forceinline__ void read_key() const {
        constexpr int kAcross = 8;  // threads of a row
        for (int r = threadIdx.x / kAcross; r < count_ * size(); r += kUnmixThreads / kAcross) {
            const double* from = a.key.coeffs + Row(a, first_, r).i * size();
#pragma unroll 1
            for (int j = threadIdx.x % kAcross; j < width(); j += kAcross)
                coeffs()[r * width() + j] = j < size() ? T(from[j]) : T(0);
        }
    }

    __device__ __forceinline__ void multiply() {
        Product product;
        int used = 0;
        for (int64_t k = 0; k < a.K; k += kStep, used = next(used)) {
            cp_async_wait<Tile::kStages - 2>();
            __syncthreads();  // this step is there, and the one before it has been used
            fetch_step();
            const unsigned char* stage = dynamic_shared + used * Tile::kStageBytes + Tile::slice() * Tile::kSliceBytes;
            product.step(stage + Tile::row() * Tile::kPitch, stage + (Tile::kSide + Tile::output()) * Tile::kPitch);
        }
        __syncthreads();
        product.write(sums() + (Tile::slice() * Tile::kSide + Tile::row()) * Tile::kSumPitch + Tile::output());
        __syncthreads();
    }

    // sums[r] = sum_i c[i * width + r] z_i of one output; z: the products of a group, as sums of slices. Past S the
    // last row is read, and counts zero: without a branch all reads of a chunk are under way at once.
    __device__ static __forceinline__ void unmix(T (&sums)[kRows], const T* c, int width, int S, const T* z) {
#pragma unroll 1
        for (int i0 = 0; i0 < S; i0 += kChunk)
#pragma unroll
            for (int q = 0; q < kChunk; ++q) {
                const bool real = i0 + q < S;
                const int i = real ? i0 + q : S - 1;
                T column[kRows], value = 0;
                load(column, c + i * width);
#pragma unroll
                for (int s = 0; s < Tile::kSlices; ++s) value += z[(s * Tile::kSide + i) * Tile::kSumPitch];
#pragma unroll
                for (int r = 0; r < kRows; ++r) sums[r] += column[r] * (real ? value : T(0));
            }
    }

    // The threads of an output take turns at kRows rows, group after group.
    __device__ __forceinline__ void write() const {
        constexpr int kTurn = kUnmixThreads / Tile::kSide * kRows;
        const int S = size();
        for (int local = 0, j = int(threadIdx.x) / Tile::kSide * kRows; n_ < a.N; j += kTurn) {
            for (; j >= width(); j -= width()) ++local;
            if (local >= count_) break;
            T results[kRows] = {};
            unmix(results, coeffs() + local * S * width() + j, width(), S,
                  sums() + local * S * Tile::kSumPitch + column());
            const Row row(a, first_, local * S + j);
            E* to = static_cast<E*>(a.out) + (row.i * a.M + row.m) * a.N + n_;
#pragma unroll
            for (int r = 0; r < kRows; ++r)
                if (j + r < S) to[r * a.M * a.N] = E(results[r] + bias_);
        }
    }

    // Leaves no coefficients behind.
    __device__ __forceinline__ void wipe() const {
        __syncthreads();
#pragma unroll 1
        for (int k = threadIdx.x; k < groups_ * size() * width(); k += kUnmixThreads)
            static_cast<volatile T*>(coeffs())[k] = T(0);
    }

    const UnmixLinearArgs& a;
    int groups_, count_ = 0;  // groups of this tile
    bool aligned_;
    int64_t first_ = 0, n_;
    T bias_;
    const E *from_y_[kFetches], *from_weight_[kFetches];
    int64_t k_ = 0;   // of the next step that is fetched
    int filled_ = 0;  // where it goes
};

template <class E, class Product>
__global__ void __launch_bounds__(kUnmixThreads, kUnmixBlocks)
    unmix_linear_kernel(const UnmixLinearArgs a, int groups, bool aligned) {
    UnmixBlock<E, Product>(a, groups, aligned).run();
}

}  // namespace facemix::cuda
