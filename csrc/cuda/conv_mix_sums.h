// The sums of conv_mix's fast way, in registers: convolved pixels of all images of a tile, before the mix.
//
// A warp convolves the same 16 pixels of all images of the group, so a thread holds the same pixels and channels of all
// of them in its sums, and mixes without asking another.
#pragma once

#include "conv_mix_stage.h"
#include "window.h"

namespace facemix::cuda {

template <class Product, int kImages>
class ConvMixSums : protected ConvMixStage<Product, kImages> {
  public:
    using Stage = ConvMixStage<Product, kImages>;
    using Stage::kTiles;
    // Of a thread: image; channel tile, row g or g + 8 in [.][.][.][r / 2]; pixel tile, column 2t or 2t + 1 in [r % 2].
    using Sums = float[kImages][kTiles][2][4];

    __device__ __forceinline__ ConvMixSums(const ConvMixArgs& args, const Tiling& tiling) : Stage(args, tiling) {}

  protected:
    using Stage::a, Stage::t, Stage::lane, Stage::warp, Stage::kKind, Stage::kSlots, Stage::kChannels, Stage::kTogether;

    const float slope = negative_slope<float>(a);

    // Among the convolved pixels of the block's tile: that of a column of this warp's pixel tile n, and of sum r of it.
    __device__ __forceinline__ int pixel_of(int n, int column) const {
        return warp * 16 + pixel_of_column(n, column, a.channels_last);
    }
    __device__ __forceinline__ int pixel_of_sum(int n, int r) const { return pixel_of(n, lane % 4 * 2 + r % 2); }
    // The output channel, within its block, of sums[.][tile][.][r].
    __device__ __forceinline__ int channel_of_sum(int tile, int r, int run) const {
        return channel_of_row(tile, lane / 4 + r / 2 * 8, run);
    }

    __device__ __forceinline__ void begin(Sums& sums, int block) const {
#pragma unroll
        for (int m = 0; m < kTiles; ++m)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const float b = this->bias[block * kChannels + channel_of_sum(m, r, t.run)];
#pragma unroll
                for (int j = 0; j < kImages; ++j) sums[j][m][0][r] = sums[j][m][1][r] = b;
            }
    }

    __device__ __forceinline__ void multiply(Sums& sums, const uint4* w) const {
        const int unit = lane % Product::kStepUnits;
        const int* offset = this->offsets + unit;
        w += lane / 4 * Product::kStepUnits + unit;
        const uint2* const patch = this->patch(0);
        Pixels start;
#pragma unroll
        for (int k = 0; k < 2 * Product::kReads; ++k) {
            const int p = pixel_of(k % 2, Product::column(lane, k / 2)), real = p < t.conv_h * t.conv_w ? p : 0;
            start[k % 2][k / 2] = patch + pixel_offset(a, t, real / t.conv_w, real % t.conv_w) * kTogether;
        }
        // Steps without a counter, whose places are part of the instruction, are shorter by a seventh; those of plain
        // float32 are so long that it would not show.
        if constexpr (Product::kStepUnits > 1) {
            if (t.steps == k3x3) return multiply<k3x3>(sums, w, offset, start);
            if (t.steps == k7x7) return multiply<k7x7>(sums, w, offset, start);
            if (t.steps == kWhole3x3) return multiply<kWhole3x3>(sums, w, offset, start);
        }
#pragma unroll 1
        for (int step = 0; step < t.steps; ++step, w += kTiles * kSlots, offset += Product::kStepUnits)
            multiply_step<true>(sums, w, *offset, start);
    }

    __device__ __forceinline__ void activate_sums(Sums& sums) const {
        if (a.activation == Activation::relu) for_sums(sums, [](int, float& z) { z = max_nan(z, 0); });
        if (a.activation == Activation::leaky) for_sums(sums, [&](int, float& z) { z = z < 0 ? slope * z : z; });
    }

    // Calls f(image, sum).
    template <class F>
    __device__ __forceinline__ static void for_sums(Sums& sums, F&& f) {
#pragma unroll
        for (int k = 0; k < kImages * kTiles * 8; ++k)
            f(k / (kTiles * 8), sums[k / (kTiles * 8)][k / 8 % kTiles][k / 4 % 2][k % 4]);
    }

  private:
    // Steps of common kernels: on colours, and on whole chunks.
    static constexpr int k3x3 = kKind.steps(3, 3), k7x7 = kKind.steps(7, 3), kWhole3x3 = kKind.steps(3, kChunkChannels);
    using Pixels = const uint2* [2][Product::kReads];  // in the patch: a unit of the first image

    template <int kSteps>
    __device__ __forceinline__ void multiply(Sums& sums, const uint4* w, const int* offset, const Pixels& start) const {
        [[maybe_unused]] constexpr int kUnroll = kSteps > 16 ? 8 : kSteps;  // more, and registers spill
#pragma unroll kUnroll
        for (int step = 0; step < kSteps - 1; ++step)
            multiply_step<false>(sums, w + step * kTiles * kSlots, offset[step * Product::kStepUnits], start);
        multiply_step<true>(sums, w + (kSteps - 1) * kTiles * kSlots, offset[(kSteps - 1) * Product::kStepUnits],
                            start);
    }

    // kLast: it may have units past the last. They have no weight, and read zeros, as x may not be finite.
    template <bool kLast>
    __device__ __forceinline__ void multiply_step(Sums& sums, const uint4* w, int offset, const Pixels& start) const {
        using Word = typename WordOf<kTogether * kUnitBytes>::type;
        const uint2* const zeros = this->patch(0) + this->pitch - kTogether;
        Pixels from;
#pragma unroll
        for (int k = 0; k < 2 * Product::kReads; ++k)
            from[k % 2][k / 2] = kLast && offset < 0 ? zeros : at_byte(start[k % 2][k / 2], offset);
        uint4 slots[kTiles];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) slots[m] = w[m * kSlots];
#pragma unroll
        for (int j = 0; j < kImages; j += kTogether)
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                uint2 pixels[kTogether][Product::kReads];
#pragma unroll
                for (int k = 0; k < Product::kReads; ++k) {
                    const Word word = *reinterpret_cast<const Word*>(from[n][k] + j / kTogether * this->pitch);
                    uint2 units[kTogether];
                    memcpy(units, &word, sizeof word);
#pragma unroll
                    for (int i = 0; i < kTogether; ++i) pixels[i][k] = units[i];
                }
#pragma unroll
                for (int i = 0; i < kTogether; ++i) Product::multiply(sums[j + i], n, pixels[i], slots);
            }
    }
    __device__ __forceinline__ static const uint2* at_byte(const uint2* from, int offset) {
        return reinterpret_cast<const uint2*>(reinterpret_cast<const unsigned char*>(from) + offset);
    }
};

}  // namespace facemix::cuda
