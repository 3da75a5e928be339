// unmix_linear on CUDA: out[g*S+j] = (sum_i A[g,i,j] y[order[g*S+i]]) W^T + bias, in one kernel.
//
// For a tile a block multiplies the rows of whole groups, gathered from where they were sent, with kTile rows of W, and
// un-mixes the products (both steps are linear) before it writes them. bfloat16 and half go through the tensor cores,
// float32 too where TF32 is allowed, else float32 and float64 by plain multiply-adds. It compiles; it has not run on a
// GPU yet.
#include "launch.h"
#include "mixing.h"
#include "mma.h"

namespace facemix::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocks = 2;  // of a multiprocessor, at least: registers enough, and nothing spills
// Of a grid: a block takes one tile after the other, and a device runs fewer at once.
constexpr int64_t kMaxBlocks = 1024;
constexpr int kTile = 64;  // rows, and outputs, of a tile
static_assert(kTile >= kMaxGroup, "the rows of a group lie in one tile");
// A step takes kDepth bytes of the rows of y and W. In shared memory kPitch apart: then neither 8 rows of 16 bytes nor
// 8 rows of 4 words have a bank in common.
constexpr int kDepth = 64, kPitch = kDepth + 16;
// Steps in shared memory: the others are copied while one is used, and to wait for them is most of what a block does.
constexpr int kStages = 6;
constexpr int kStageBytes = 2 * kTile * kPitch;
constexpr int kTilePitch = kTile + 8;  // of the products: 8 rows of 4 pairs have no bank in common
constexpr int kMixRows = 8;            // outputs of a group that a thread un-mixes at once
__host__ __device__ constexpr int mix_width(int S) { return (S + kMixRows - 1) / kMixRows * kMixRows; }
// Shared memory: the steps, and when they have been used the products; then the coefficients [groups][S][width].
__host__ __device__ constexpr int coeffs_at(int element) {
    return kStages * kStageBytes > kTile * kTilePitch * element ? kStages * kStageBytes : kTile * kTilePitch * element;
}

// Products by multiply-adds: a thread has kRows rows and kColumns outputs, those of its neighbours between them.
template <class E>
class MultiplyAdd {
  public:
    using T = E;

    __device__ __forceinline__ void step(const unsigned char* rows, const unsigned char* weights) {
        constexpr int V = kAccess / int(sizeof(E));
#pragma unroll
        for (int k = 0; k < kDepth; k += kAccess) {
            T x[kRows][V];
#pragma unroll
            for (int r = 0; r < kRows; ++r) load(x[r], reinterpret_cast<const E*>(rows + row(r) * kPitch + k));
#pragma unroll
            for (int c = 0; c < kColumns; ++c) {
                T w[V];
                load(w, reinterpret_cast<const E*>(weights + column(c) * kPitch + k));
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int r = 0; r < kRows; ++r) sums_[r][c] += x[r][v] * w[v];
            }
        }
    }
    __device__ __forceinline__ void write(T* tile) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r)
#pragma unroll
            for (int c = 0; c < kColumns; ++c) tile[row(r) * kTilePitch + column(c)] = sums_[r][c];
    }

  private:
    static constexpr int kAcross = 16, kDown = kThreads / kAcross;
    static constexpr int kRows = kTile / kDown, kColumns = kTile / kAcross;
    __device__ static int row(int r) { return int(threadIdx.x) / kAcross + r * kDown; }
    __device__ static int column(int c) { return int(threadIdx.x) % kAcross + c * kAcross; }

    T sums_[kRows][kColumns] = {};
};

// Products by tensor cores (mma.h): a warp has 32 rows and 32 outputs. Operand: bfloat16, half, or Tf32 of floats.
template <class Operand>
class TensorCores {
  public:
    using T = float;

    __device__ __forceinline__ void step(const unsigned char* rows, const unsigned char* weights) {
#pragma unroll
        for (int k = 0; k < kDepth / 4; k += 8) {
            uint32_t a[2][4], b[4][2];
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int r = 0; r < 4; ++r) a[m][r] = word(rows, row(m) + r % 2 * 8, k + r / 2 * 4);
#pragma unroll
            for (int n = 0; n < 4; ++n)
#pragma unroll
                for (int r = 0; r < 2; ++r) b[n][r] = word(weights, column(n) + int(threadIdx.x) % 32 / 4, k + r * 4);
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int n = 0; n < 4; ++n) mma<Operand>(sums_[m][n], a[m], b[n]);
        }
    }
    __device__ __forceinline__ void write(T* tile) const {
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int n = 0; n < 4; ++n)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const float pair[2] = {sums_[m][n][2 * half], sums_[m][n][2 * half + 1]};
                    T* to = tile + (row(m) + half * 8) * kTilePitch + column(n) + int(threadIdx.x) % 4 * 2;
                    to[0] = pair[0], to[1] = pair[1];
                }
    }

  private:
    // The first row of this lane in product m of the warp, and the first output of product n.
    __device__ static int row(int m) {
        return int(threadIdx.x) / kWarp / 2 * 32 + m * 16 + int(threadIdx.x) % kWarp / 4;
    }
    __device__ static int column(int n) { return int(threadIdx.x) / kWarp % 2 * 32 + n * 8; }
    __device__ static __forceinline__ uint32_t word(const unsigned char* tile, int row, int k) {
        const unsigned char* at = tile + row * kPitch + (k + int(threadIdx.x) % 4) * 4;
        if constexpr (sizeof(Operand) == 2) return *reinterpret_cast<const uint32_t*>(at);
        else return to_tf32(*reinterpret_cast<const float*>(at));
    }

    float sums_[2][4][4] = {};
};

// The group and the m of item g * M + m; most layers have one m, and a division takes as long as a few steps.
struct Item {
    int64_t g, m;
    __device__ __forceinline__ Item(int64_t item, int64_t M)
        : g(M == 1 ? item : item / M), m(M == 1 ? 0 : item - g * M) {}
};

// A step's 16 bytes of one row, from element k on, zeros beyond K and in rows that are not there.
template <class E>
__device__ __forceinline__ void fetch(unsigned char* to, const E* row, int64_t k, int64_t K, bool aligned) {
    constexpr int V = kAccess / int(sizeof(E));
    if (aligned) return cp_async<kAccess>(to, row && k < K ? row + k : nullptr, row && k < K);
#pragma unroll
    for (int v = 0; v < V; ++v) reinterpret_cast<E*>(to)[v] = row && k + v < K ? row[k + v] : E(0.f);
}

template <class E, class Product>
__global__ void __launch_bounds__(kThreads, kBlocks)
    unmix_linear_kernel(const UnmixLinearArgs a, const int64_t tiles, const int64_t tiles_across, bool aligned) {
    using T = typename Product::T;
    constexpr int V = kAccess / int(sizeof(E)), kChunks = kDepth / kAccess, kFetchRows = kThreads / kChunks;
    const int S = int(a.key.size), width = mix_width(S);
    const int groups = kTile / S;  // of a tile, at most; a group stands for its rows at one m in [0, M)
    unsigned char* stages = dynamic_shared;
    T* tile = reinterpret_cast<T*>(dynamic_shared);
    T* coeffs = reinterpret_cast<T*>(dynamic_shared + coeffs_at(sizeof(T)));
    const E *y = static_cast<const E*>(a.y), *weight = static_cast<const E*>(a.weight);
    const E* bias = static_cast<const E*>(a.bias);
    E* out = static_cast<E*>(a.out);

    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        const int64_t first = t / tiles_across * groups, n0 = t % tiles_across * kTile;  // the tile's group and output
        const int64_t left = a.key.groups * a.M - first;
        const int count = left < groups ? int(left) : groups;
        // What this thread copies of each step: a chunk of each of these rows.
        const E *from_y[kTile / kFetchRows], *from_weight[kTile / kFetchRows];
        const int row0 = int(threadIdx.x) / kChunks, chunk = int(threadIdx.x) % kChunks;
#pragma unroll
        for (int q = 0; q < kTile / kFetchRows; ++q) {
            const int r = row0 + q * kFetchRows, i = r % S;
            const Item item(first + r / S, a.M);
            const int64_t n = n0 + r;
            from_y[q] = r / S < count ? y + (a.key.order[item.g * S + i] * a.M + item.m) * a.K : nullptr;
            from_weight[q] = n < a.N ? weight + n * a.K : nullptr;
        }
        const auto fetch_step = [&](int64_t step) {
            unsigned char* to = stages + step % kStages * kStageBytes + row0 * kPitch + chunk * kAccess;
            const int64_t k = step * (kDepth / int(sizeof(E))) + chunk * V;
#pragma unroll
            for (int q = 0; q < kTile / kFetchRows; ++q) {
                fetch(to + q * kFetchRows * kPitch, from_y[q], k, a.K, aligned);
                fetch(to + (kTile + q * kFetchRows) * kPitch, from_weight[q], k, a.K, aligned);
            }
        };
        __syncthreads();  // the tile before may still be read
        const int64_t steps = (a.K * int(sizeof(E)) + kDepth - 1) / kDepth;
        for (int step = 0; step < kStages - 1; ++step) {
            if (step < steps) fetch_step(step);
            cp_async_commit();
        }
        for (int row = threadIdx.x / kMixRows; row < count * S; row += kThreads / kMixRows) {
            const Item item(first + row / S, a.M);
            const double* from = a.key.coeffs + (item.g * S + row % S) * S;
            for (int j = threadIdx.x % kMixRows; j < width; j += kMixRows)
                coeffs[row * width + j] = j < S ? T(from[j]) : T(0);
        }
        Product product;
        for (int64_t step = 0; step < steps; ++step) {
            cp_async_wait<kStages - 2>();
            __syncthreads();  // this step is there, and the one before it has been used
            if (step + kStages - 1 < steps) fetch_step(step + kStages - 1);
            cp_async_commit();
            const unsigned char* rows = stages + step % kStages * kStageBytes;
            product.step(rows, rows + kTile * kPitch);
        }
        __syncthreads();
        product.write(tile);
        __syncthreads();
        for (int at = threadIdx.x; at < count * kTile; at += kThreads) {
            const int local = at / kTile, column = at % kTile;
            const int64_t n = n0 + column;
            if (n >= a.N) continue;
            const Item item(first + local, a.M);
            const T* products = tile + local * S * kTilePitch + column;
            for (int j0 = 0; j0 < S; j0 += kMixRows) {
                T sums[kMixRows][1];
                mix<1>(sums, coeffs + local * S * width + j0, width, S, [&](int i0, T(&values)[kChunk][1]) {
                    for_chunk(i0, S, [&](int q) { values[q][0] = products[(i0 + q) * kTilePitch]; });
                });
#pragma unroll
                for (int r = 0; r < kMixRows; ++r) {
                    if (j0 + r >= S) break;
                    out[((item.g * S + j0 + r) * a.M + item.m) * a.N + n] = E(sums[r][0] + (bias ? T(bias[n]) : T(0)));
                }
            }
        }
    }
    __syncthreads();
    for (int k = threadIdx.x; k < groups * S * width; k += kThreads) static_cast<volatile T*>(coeffs)[k] = T(0);
}

template <class E, class Product>
void run(const UnmixLinearArgs& a, cudaStream_t stream) {
    const int64_t S = a.key.size, groups = kTile / S;
    const int64_t across = (a.N + kTile - 1) / kTile, tiles = (a.key.groups * a.M + groups - 1) / groups * across;
    const int V = kAccess / int(sizeof(E));
    const bool aligned = packs(a.y, sizeof(E), a.K, V) && packs(a.weight, sizeof(E), a.K, V);
    const size_t shared = size_t(coeffs_at(sizeof(typename Product::T))) +
                          size_t(groups * S * mix_width(int(S))) * sizeof(typename Product::T);
    launch("unmix_linear", unmix_linear_kernel<E, Product>, unsigned(tiles < kMaxBlocks ? tiles : kMaxBlocks), kThreads,
           shared, stream, a, tiles, across, aligned);
}

}  // namespace

void unmix_linear(const UnmixLinearArgs& a, int device, void* stream) {
    if (a.key.groups * a.M * a.N == 0) return;
    const OnDevice here("unmix_linear", device);
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a.dtype) {
        case Dtype::f32: return a.tf32 ? run<float, TensorCores<Tf32>>(a, s) : run<float, MultiplyAdd<float>>(a, s);
        case Dtype::f64: return run<double, MultiplyAdd<double>>(a, s);
        case Dtype::bf16: return run<__nv_bfloat16, TensorCores<__nv_bfloat16>>(a, s);
        case Dtype::f16: return run<__half, TensorCores<__half>>(a, s);
        case Dtype::i8: return;  // no op reads it
    }
}

}  // namespace facemix::cuda
