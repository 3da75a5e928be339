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
    using Stage::a, Stage::t, Stage::lane, Stage::warp, Stage::kKind, Stage::kSlots, Stage::kChannels;

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
        const int* places = this->places + unit;
        w += lane / 4 * Product::kStepUnits + unit;
        const uint4* const patch = this->patch(0);
        Pixels start;
#pragma unroll
        for (int k = 0; k < 2 * Product::kReads; ++k) {
            const int p = pixel_of(k % 2, Product::column(lane, k / 2)), real = p < t.conv_h * t.conv_w ? p : 0;
            start[k % 2][k / 2] = patch + window_place(a, t, Stage::kWord, real / t.conv_w, real % t.conv_w);
        }
        // Steps without a counter, whose places are part of the instruction, are shorter by a seventh; those of plain
        // float32 are so long that it would not show.
        if constexpr (Product::kStepUnits > 1) {
            if (is_of<k7x7>()) return multiply<k7x7>(sums, w, places, start);
            if (is_of<k3x3>()) return multiply<k3x3>(sums, w, places, start);
            if (is_of<kWide3x3>()) return multiply<kWide3x3>(sums, w, places, start);
        }
        int step = 0;
#pragma unroll 1
        for (; step < t.steps.whole; ++step, w += kTiles * kSlots, places += Product::kStepUnits)
            multiply_step<true>(sums, w, *places, start);
#pragma unroll 1
        for (; step < t.steps.all; ++step, w += kTiles * kSlots, places += Product::kStepUnits)
            multiply_step<false>(sums, w, *places, start);
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
    static constexpr Steps k7x7 = kKind.steps_7x7(), k3x3 = kKind.steps_3x3(), kWide3x3 = kKind.steps_wide_3x3();
    using Pixels = const uint4* [2][Product::kReads];  // in the patch: a unit of the first two images

    template <Steps kSteps>
    __device__ __forceinline__ bool is_of() const {
        return t.steps.all == kSteps.all && t.steps.whole == kSteps.whole;
    }
    template <Steps kSteps>
    __device__ __forceinline__ void multiply(Sums& sums, const uint4* w, const int* places, const Pixels& start) const {
        [[maybe_unused]] constexpr int kUnroll = kSteps.whole > 16 ? 8 : kSteps.whole;  // more, and registers spill
#pragma unroll kUnroll
        for (int step = 0; step < kSteps.whole; ++step)
            multiply_step<true>(sums, w + step * kTiles * kSlots, places[step * Product::kStepUnits], start);
#pragma unroll
        for (int step = kSteps.whole; step < kSteps.all; ++step)
            multiply_step<false>(sums, w + step * kTiles * kSlots, places[step * Product::kStepUnits], start);
    }

    // kWhole: of units of which all counts. The others have no weight where they do not, but x may not be finite.
    template <bool kWhole>
    __device__ __forceinline__ void multiply_step(Sums& sums, const uint4* w, int place, const Pixels& start) const {
        Pixels from;
#pragma unroll
        for (int k = 0; k < 2 * Product::kReads; ++k)
            from[k % 2][k / 2] = at_byte(start[k % 2][k / 2], kWhole ? place : place & -kPlaceBytes);
        uint32_t counts[kUnitWords];  // bits of the words
#pragma unroll
        for (int i = 0; i < kUnitWords; ++i)
            counts[i] = (place >> 2 * i & 1 ? 0 : 0xffffu) | (place >> 2 * i & 2 ? 0 : 0xffff0000u);
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
                    uint4 both = from[n][k][j / kTogether * this->pitch];
                    if (!kWhole) both.x &= counts[0], both.y &= counts[1], both.z &= counts[0], both.w &= counts[1];
                    pixels[0][k] = {both.x, both.y}, pixels[1][k] = {both.z, both.w};
                }
#pragma unroll
                for (int i = 0; i < kTogether; ++i) Product::multiply(sums[j + i], n, pixels[i], slots);
            }
    }
    __device__ __forceinline__ static const uint4* at_byte(const uint4* from, int offset) {
        return reinterpret_cast<const uint4*>(reinterpret_cast<const unsigned char*>(from) + offset);
    }
};

}  // namespace facemix::cuda
