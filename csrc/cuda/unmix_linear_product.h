// The product in a tile of unmix_linear: rows of y by rows of W, both in shared memory, the sums in registers.
#pragma once

#include <type_traits>

#include "element.h"
#include "mma.h"

namespace facemix::cuda {

constexpr int kUnmixWarps = 4;
constexpr int kUnmixThreads = kWarp * kUnmixWarps;
// Rows lie 16 bytes further apart than a step is long, which is once or twice all banks: then neither 8 rows of 16
// bytes nor 8 rows of 4 words have a bank in common, nor have 8 copies of 16 bytes to a row.
constexpr int kRowGap = 16;
constexpr int kUnrolled = 64;  // bytes of a row that are multiplied without a branch; more take twice the registers

// A tile has as many outputs as rows, kSide. Each warp has a square of it, kSquare wide, by itself or as one of
// kSlices: those with the same square share the K of each step, kSliceBytes of a row each, and their sums are added in
// the end. kStages steps are in shared memory: the others are copied while one is used, and to wait for them is most of
// what a block does.
template <int side, int square, int slice_bytes, int stages>
struct UnmixTile {
    static constexpr int kSide = side, kSquare = square, kSliceBytes = slice_bytes, kStages = stages;
    static constexpr int kAcross = kSide / kSquare, kSlices = kUnmixWarps / (kAcross * kAcross);
    static constexpr int kDepth = kSlices * kSliceBytes, kPitch = kDepth + kRowGap;  // of a row, in bytes
    static constexpr int kStageBytes = 2 * kSide * kPitch;
    static constexpr int kSumPitch = kSide + 8;  // 4 rows of 4 pairs have no bank in common, nor have 4 rows of 8
    static constexpr int kSums = kSlices * kSide * kSumPitch;
    static constexpr int kShare = kSide * kSide / kUnmixThreads;  // results of a thread
    static_assert(kSlices * kAcross * kAcross == kUnmixWarps && kDepth % 128 == 0);

    // Of this warp: its slice, and the first row and output of its square.
    __device__ static int slice() { return warp() / (kAcross * kAcross); }
    __device__ static int row() { return warp() / kAcross % kAcross * kSquare; }
    __device__ static int output() { return warp() % kAcross * kSquare; }

    __device__ static int warp() { return int(threadIdx.x) / kWarp; }
};
// Large tiles copy the least for each product. Small ones are for few rows: there are more of them, and each is done
// sooner. Their stages fit in what a launch may have without asking for more.
struct LargeTile : UnmixTile<64, 32, 128, 3> {};
static_assert(LargeTile::kSide >= kMaxGroup, "the rows of a group lie in one tile");
struct SmallTile : UnmixTile<16, 16, 64, 5> {};

// Products by multiply-adds: a thread has kRows rows and kOutputs outputs, those of its neighbours between them.
template <class E, class TileOf>
class MultiplyAdd {
  public:
    using T = E;
    using Tile = TileOf;

    __device__ __forceinline__ void step(const unsigned char* rows, const unsigned char* weights) {
        constexpr int V = kAccess / int(sizeof(E));
#pragma unroll(kUnrolled / kAccess)
        for (int k = 0; k < Tile::kSliceBytes; k += kAccess) {
            T x[kRows][V];
#pragma unroll
            for (int r = 0; r < kRows; ++r) load(x[r], reinterpret_cast<const E*>(rows + row(r) * Tile::kPitch + k));
#pragma unroll
            for (int n = 0; n < kOutputs; ++n) {
                T w[V];
                load(w, reinterpret_cast<const E*>(weights + output(n) * Tile::kPitch + k));
#pragma unroll
                for (int v = 0; v < V; ++v)
#pragma unroll
                    for (int r = 0; r < kRows; ++r) sums_[r][n] += x[r][v] * w[v];
            }
        }
    }
    // Sums of the warp's square.
    __device__ __forceinline__ void write(T* sums) const {
#pragma unroll
        for (int r = 0; r < kRows; ++r)
#pragma unroll
            for (int n = 0; n < kOutputs; ++n) sums[row(r) * Tile::kSumPitch + output(n)] = sums_[r][n];
    }

  private:
    static constexpr int kAcross = 8, kDown = kWarp / kAcross;
    static constexpr int kRows = Tile::kSquare / kDown, kOutputs = Tile::kSquare / kAcross;
    // Lanes i and i ^ 1 share a row, i and i ^ 2 an output: of 16 bytes each, half a warp then reads at once, if what
    // others have measured holds.
    __device__ static int row(int r) { return lane() / 2 % 2 + lane() / 16 * 2 + r * kDown; }
    __device__ static int output(int n) { return lane() % 2 + lane() / 4 % 4 * 2 + n * kAcross; }
    __device__ static int lane() { return int(threadIdx.x) % kWarp; }

    T sums_[kRows][kOutputs] = {};
};

// Products by tensor cores (mma.h). Operand: bfloat16, half, or Tf32 of floats.
template <class Operand, class TileOf>
class TensorCores {
  public:
    using T = float;
    using Tile = TileOf;

    __device__ __forceinline__ void step(const unsigned char* rows, const unsigned char* weights) {
#pragma unroll(kUnrolled / 32)
        for (int k = 0; k < Tile::kSliceBytes / 4; k += 8) {
            uint32_t a[kDown][4], b[kAcross][2];
#pragma unroll
            for (int m = 0; m < kDown; ++m)
#pragma unroll
                for (int r = 0; r < 4; ++r) a[m][r] = word(rows, m * 16 + r % 2 * 8, k + r / 2 * 4);
#pragma unroll
            for (int n = 0; n < kAcross; ++n)
#pragma unroll
                for (int r = 0; r < 2; ++r) b[n][r] = word(weights, n * 8, k + r * 4);
#pragma unroll
            for (int m = 0; m < kDown; ++m)
#pragma unroll
                for (int n = 0; n < kAcross; ++n) mma<Operand>(sums_[m][n], a[m], b[n]);
        }
    }
    // Sums of the warp's square.
    __device__ __forceinline__ void write(T* sums) const {
#pragma unroll
        for (int m = 0; m < kDown; ++m)
#pragma unroll
            for (int n = 0; n < kAcross; ++n)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    T* to = sums + (m * 16 + half * 8 + lane() / 4) * Tile::kSumPitch + n * 8 + lane() % 4 * 2;
                    *reinterpret_cast<float2*>(to) = {sums_[m][n][2 * half], sums_[m][n][2 * half + 1]};
                }
    }

  private:
    static constexpr int kDown = Tile::kSquare / 16, kAcross = Tile::kSquare / 8;  // products of a warp
    __device__ static int lane() { return int(threadIdx.x) % kWarp; }
    // This lane's, of the 8 rows from `row` and the 4 words from k on.
    __device__ static __forceinline__ uint32_t word(const unsigned char* from, int row, int k) {
        const unsigned char* at = from + (row + lane() / 4) * Tile::kPitch + (k + lane() % 4) * 4;
        if constexpr (sizeof(Operand) == 2) return *reinterpret_cast<const uint32_t*>(at);
        else return to_tf32(*reinterpret_cast<const float*>(at));
    }

    float sums_[kDown][kAcross][4] = {};
};

template <class Operand, class Tile>
using UnmixProduct = std::conditional_t<std::is_same_v<Operand, float> || std::is_same_v<Operand, double>,
                                        MultiplyAdd<Operand, Tile>, TensorCores<Operand, Tile>>;

}  // namespace facemix::cuda
