// The products of conv_mix's fast way: tensor cores, and plain multiply-adds for float32 that must stay float32.
//
// The weights are the left matrix and the pixels the right one: a lane's two words of the right one are then the unit
// that it reads, and the order of K is ours to choose, as long as both agree. Lane 4 * g + t has rows g and g + 8 of
// the weights, and columns 2t and 2t + 1 of the sums (mma.h).
#pragma once

#include <cstring>
#include <type_traits>

#include "conv_mix_tile.h"
#include "mma.h"

namespace facemix::cuda {

// M: what tensor cores multiply, bfloat16, float16 or Tf32. The lanes of a column read the four units of a step.
template <class M>
struct TensorProduct {
    static constexpr bool kTf32 = std::is_same_v<M, Tf32>;
    using Element = std::conditional_t<kTf32, float, M>;
    static constexpr int kStepUnits = 4, kReads = 1;

    // The column that a lane reads for a pixel tile.
    static __device__ __forceinline__ int column(int lane, int) { return lane / 4; }

    static __device__ __forceinline__ uint32_t word(const Element (&elements)[kWordBytes / sizeof(Element)]) {
        if constexpr (kTf32) return to_tf32(elements[0]);
        uint32_t word;
        memcpy(&word, elements, sizeof word);
        return word;
    }
    // Adds to the sums of pixel tile n of one image; weights: {row g, row g + 8} of the first word of a unit, then of
    // the second.
    template <int kTiles>
    static __device__ __forceinline__ void multiply(float (&sums)[kTiles][2][4], int n, const uint2 (&pixels)[kReads],
                                                    const uint4 (&weights)[kTiles]) {
        const uint32_t b[2] = {pixels[0].x, pixels[0].y};
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            const uint32_t w[4] = {weights[m].x, weights[m].y, weights[m].z, weights[m].w};
            mma<M>(sums[m][n], w, b);
        }
    }
};

// A lane reads both columns that it has the sums of; all read the one unit of a step.
struct FloatProduct {
    using Element = float;
    static constexpr int kStepUnits = 1, kReads = 2;

    static __device__ __forceinline__ int column(int lane, int read) { return lane % 4 * 2 + read; }

    static __device__ __forceinline__ uint32_t word(const float (&elements)[1]) {
        uint32_t word;
        memcpy(&word, elements, sizeof word);
        return word;
    }
    template <int kTiles>
    static __device__ __forceinline__ void multiply(float (&sums)[kTiles][2][4], int n, const uint2 (&pixels)[kReads],
                                                    const uint4 (&weights)[kTiles]) {
        float2 x[kReads];
        memcpy(x, pixels, sizeof x);
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            float4 w;
            memcpy(&w, &weights[m], sizeof w);
#pragma unroll
            for (int e = 0; e < kReads; ++e) {
                sums[m][n][e] += w.x * x[e].x, sums[m][n][2 + e] += w.y * x[e].x;
                sums[m][n][e] += w.z * x[e].y, sums[m][n][2 + e] += w.w * x[e].y;
            }
        }
    }
};

}  // namespace facemix::cuda
