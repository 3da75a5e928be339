// conv_mix's fast way without tensor cores, for float32 that must stay float32.
//
// A warp convolves the same 16 pixels of all images of the group, so a thread holds the same pixels and channels of all
// of them in its sums, and mixes without asking another. It compiles; it has not run on a GPU yet.
#pragma once

#include "conv_mix_stage.h"
#include "window.h"

namespace facemix::cuda {

// The maximum of a window where nobody asks for its code; of values that are activated.
struct Largest {
    float best = -__builtin_huge_valf();

    __device__ __forceinline__ Largest() {}  // see WindowMax
    __device__ __forceinline__ void add(float z, int, float) { best = max_nan(best, z); }
};

template <class Product, int kImages, Way kWay>
class ConvMixFloat : public ConvMixStage<Product, kImages, kWay> {
  public:
    using Base = ConvMixStage<Product, kImages, kWay>;
    using Base::kTiles;
    // Of a thread: image; channel tile, row g or g + 8 in [.][.][.][r / 2]; pixel tile, column 2t or 2t + 1 in [r % 2].
    using Sums = float[kImages][kTiles][2][4];

    using Base::Base;

    __device__ __forceinline__ void begin(Sums& sums, int block) const {
#pragma unroll
        for (int m = 0; m < kTiles; ++m)
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const float b = this->bias[block * kChannels + channel_of_sum(m, r)];
#pragma unroll
                for (int j = 0; j < kImages; ++j) sums[j][m][0][r] = sums[j][m][1][r] = b;
            }
    }

    __device__ __forceinline__ void multiply(Sums& sums, const uint4* w, int) const {
        w += lane / 4;
        const uint4* const patch = reinterpret_cast<const uint4*>(this->patch(0));
        Pixels start;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int p = pixel_of_sum(k / 2, k % 2), real = p < t.conv_h * t.conv_w ? p : 0;
            start[k / 2][k % 2] = patch + window_place(t, real / t.conv_w, real % t.conv_w) * kHalves;
        }
        int step = 0;
#pragma unroll 1
        for (; step < t.steps.whole; ++step, w += kTiles * kSlots)
            multiply_step<true>(sums, w, this->places[step], start);
#pragma unroll 1
        for (; step < t.steps.all; ++step, w += kTiles * kSlots)
            multiply_step<false>(sums, w, this->places[step], start);
    }

    // From sums to y, which is of x's dtype and not pooled.
    __device__ __forceinline__ void store(Sums& sums, int block, int) const {
        activate(sums);
        if (S < kImages) for_sums(sums, [&](int j, float& z) { z = j < S ? z : 0; });
        const int64_t step = a.channels_last ? a.OC : 1;
        int64_t at[4];  // of pixel 2 * n + r, in an image of y; -1: not there
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int p = pixel_of_sum(k / 2, k % 2), ph = place.ph + p / t.conv_w, pw = place.pw + p % t.conv_w;
            at[k] = p < t.conv_h * t.conv_w && ph < int(a.PH) && pw < int(a.PW) ? (ph * a.PW + pw) * step : -1;
        }
        const int channel = block * kChannels + channel_of_sum(0, 0), count = int(a.OC) - channel;
#pragma unroll 1
        for (int i = 0; i < S; ++i) {
            float c[kImages], out[4][kRun];
#pragma unroll
            for (int j = 0; j < kImages; ++j) c[j] = coefficient(i, j);
#pragma unroll
            for (int k = 0; k < 4 * kRun; ++k) {
                const int pixel = k / kRun, m = k % kRun / 2, r = k % 2 * 2 + pixel % 2;
                float sum = 0;
#pragma unroll
                for (int j = 0; j < kImages; ++j) sum += c[j] * sums[j][m][pixel / 2][r];
                out[pixel][k % kRun] = sum;
            }
            if (a.channels_last) store_channels(sent[i] + channel, at, out, count);
            else store_pixels(sent[i] + channel * (a.PH * a.PW), at, out, count);
        }
    }

    // The values of all images of the tile meet in shared memory and go through windows, a channel tile at a time.
    __device__ __forceinline__ void mix_windows(Sums& sums, int block) const {
        if (!a.codes) activate(sums);
        const int pixels = t.conv_h * t.conv_w, results = t.tile_h * t.tile_w, pairs = kChannelTile / 2;
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            __syncthreads();  // the values before these are still in use
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const int p = pixel_of_sum(k / 2, k % 2);
                float* to = values + p * kValuePitch + lane / 4 * 2;
#pragma unroll
                for (int j = 0; j < kImages; ++j, to += pixels * kValuePitch)
                    if (j < S && p < pixels)
                        *reinterpret_cast<float2*>(to) = {sums[j][m][k / 2][k % 2], sums[j][m][k / 2][k % 2 + 2]};
            }
            __syncthreads();
            for (int k = this->thread; k < results * pairs; k += kTileThreads) {
                const int result = a.channels_last ? k / pairs : k % results;
                const int pair = a.channels_last ? k % pairs : k / results;
                const int channel = block * kChannels + m * kChannelTile + 2 * pair;
                if (a.codes) mix_window<true>(result / t.tile_w, result % t.tile_w, 2 * pair, channel);
                else mix_window<false>(result / t.tile_w, result % t.tile_w, 2 * pair, channel);
            }
        }
    }

  protected:
    using Base::a, Base::t, Base::S, Base::image_size, Base::lane, Base::warp, Base::place, Base::sent;
    using Base::kChannels, Base::kSlots, Base::kValuePitch;

  private:
    static constexpr int kRun = 2 * kTiles;                           // output channels of a thread
    static constexpr int kHalves = kPlaceBytes / int(sizeof(uint4));  // of a place: two images each
    using Pixels =
        const uint4* [2][2];  // in the patch: pixel tile; column 2t or 2t + 1; a unit of the first two images

    float* const values = reinterpret_cast<float*>(Base::values);  // [kImages][conv pixels][kValuePitch]
    const float slope = negative_slope<float>(a);

    // Among the convolved pixels of the block's tile: that of sum r of this warp's pixel tile n.
    __device__ __forceinline__ int pixel_of_sum(int n, int r) const {
        return warp * Base::kStrip + pixel_of_column(n, lane % 4 * 2 + r % 2, a.channels_last);
    }
    // The output channel, within its block, of sums[.][tile][.][r].
    __device__ __forceinline__ int channel_of_sum(int tile, int r) const {
        return channel_of_row(tile, lane / 4 + r / 2 * 8, Base::kRun);
    }
    __device__ __forceinline__ float coefficient(int i, int j) const {
        return reinterpret_cast<const float*>(this->key)[i * kImages + j];
    }
    // Calls f(image, sum).
    template <class F>
    __device__ __forceinline__ static void for_sums(Sums& sums, F&& f) {
#pragma unroll
        for (int k = 0; k < kSums; ++k) f(k / (kTiles * 8), sums[k / (kTiles * 8)][k / 8 % kTiles][k / 4 % 2][k % 4]);
    }
    __device__ __forceinline__ void activate(Sums& sums) const {
        if (a.activation == Activation::relu) for_sums(sums, [](int, float& z) { z = max_nan(z, 0); });
        if (a.activation == Activation::leaky) for_sums(sums, [&](int, float& z) { z = z < 0 ? slope * z : z; });
    }

    // --- the convolution ---------------------------------------------------------------------------------------------

    // kWhole: of a unit of which all counts. The others have no weight where they do not, but x may not be finite.
    template <bool kWhole>
    __device__ __forceinline__ void multiply_step(Sums& sums, const uint4* w, int unit, const Pixels& start) const {
        const int place = kWhole ? unit : unit & -kPlaceBytes;
        uint32_t counts[kUnitWords];  // bits of the words
#pragma unroll
        for (int i = 0; i < kUnitWords; ++i) counts[i] = unit >> 2 * i & 1 ? 0 : ~0u;
        float4 slots[kTiles];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            const uint4 read = w[m * kSlots];
            memcpy(&slots[m], &read, sizeof read);
        }
#pragma unroll
        for (int j = 0; j < kImages; j += 2)
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                float2 x[2][2];  // image; column 2t or 2t + 1
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    uint4 both = at_byte(start[n][e], place)[j / kTogether * this->pitch * kHalves + j % kTogether / 2];
                    if (!kWhole) both.x &= counts[0], both.y &= counts[1], both.z &= counts[0], both.w &= counts[1];
                    memcpy(&x[0][e], &both.x, sizeof x[0][e]), memcpy(&x[1][e], &both.z, sizeof x[1][e]);
                }
#pragma unroll
                for (int i = 0; i < 2; ++i)
#pragma unroll
                    for (int m = 0; m < kTiles; ++m)
#pragma unroll
                        for (int e = 0; e < 2; ++e) {
                            float (&to)[4] = sums[j + i][m][n];
                            to[e] += slots[m].x * x[i][e].x, to[2 + e] += slots[m].y * x[i][e].x;
                            to[e] += slots[m].z * x[i][e].y, to[2 + e] += slots[m].w * x[i][e].y;
                        }
            }
    }
    __device__ __forceinline__ static const uint4* at_byte(const uint4* from, int offset) {
        return reinterpret_cast<const uint4*>(reinterpret_cast<const unsigned char*>(from) + offset);
    }

    // --- from registers to y -----------------------------------------------------------------------------------------

    // `count` channels of each pixel.
    __device__ __forceinline__ void store_channels(int64_t to, const int64_t (&at)[4], const float (&out)[4][kRun],
                                                   int count) const {
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (at[k] >= 0) store_run(static_cast<float*>(a.y) + to + at[k], out[k], count);
    }
    // The pixels of `count` channels: neighbours, but at the end of a row.
    __device__ __forceinline__ void store_pixels(int64_t to, const int64_t (&at)[4], const float (&out)[4][kRun],
                                                 int count) const {
        const bool whole = at[0] >= 0 && at[3] == at[0] + 3;
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            if (k >= count) continue;
            const float run[4] = {out[0][k], out[1][k], out[2][k], out[3][k]};
            float* const plane = static_cast<float*>(a.y) + to + k * (a.PH * a.PW);
            if (whole) {
                store_run(plane + at[0], run, 4);
                continue;
            }
#pragma unroll
            for (int pixel = 0; pixel < 4; ++pixel)
                if (at[pixel] >= 0) cuda::store<1>(plane + at[pixel], {run[pixel]});
        }
    }

    // --- through windows ---------------------------------------------------------------------------------------------

    // Two output channels of pixel (r, q) of the tile of y; v: theirs among the values.
    template <bool kCodes>
    __device__ __forceinline__ void mix_window(int r, int q, int v, int channel) const {
        const int ph = place.ph + r, pw = place.pw + q, count = int(a.OC) - channel;
        if (ph >= int(a.PH) || pw >= int(a.PW) || count <= 0) return;
        const Pool& p = a.pool;
        const Span rows = clip_window(ph, p.kh, p.sh, p.pad_h, a.OH),
                   columns = clip_window(pw, p.kw, p.sw, p.pad_w, a.OW);
        const int64_t step = a.channels_last ? 1 : a.PH * a.PW;  // to the next channel
        const int64_t at = (ph * a.PW + pw) * (a.channels_last ? a.OC : 1) + channel * step;
        std::conditional_t<kCodes, WindowMax<float>, Largest> window[kImages][2];
#pragma unroll 1
        for (int h = rows.begin; h < rows.end; ++h)
#pragma unroll 1
            for (int w = columns.begin; w < columns.end; ++w) {
                const int pixel = (r * int(p.sh) + h) * t.conv_w + q * int(p.sw) + w, code = h * int(p.kw) + w;
                const float* of = values + pixel * kValuePitch + v;
#pragma unroll
                for (int j = 0; j < kImages; ++j, of += t.conv_h * t.conv_w * kValuePitch) {
                    if (j >= S) continue;
                    const float2 z = *reinterpret_cast<const float2*>(of);
                    window[j][0].add(z.x, code, slope), window[j][1].add(z.y, code, slope);
                }
            }
        if constexpr (kCodes) {
            uint8_t* codes = a.codes + int64_t(place.group) * S * image_size + at;
#pragma unroll
            for (int j = 0; j < kImages; ++j, codes += image_size) {
                if (j >= S) continue;
                codes[0] = uint8_t(window[j][0].code);
                if (count > 1) codes[step] = uint8_t(window[j][1].code);
            }
        }
#pragma unroll 1
        for (int i = 0; i < S; ++i) {
            float out[2] = {0, 0};
#pragma unroll
            for (int j = 0; j < kImages; ++j) {
                const float c = coefficient(i, j);
                if (j < S) out[0] += c * window[j][0].best, out[1] += c * window[j][1].best;
            }
            const int64_t to = sent[i] + at;
            if (a.channels_last) {
                store_run(a.y, a.y_dtype, to, out, count);
            } else {
                store_wire<1>(a.y_dtype, a.y, to, {out[0]});
                if (count > 1) store_wire<1>(a.y_dtype, a.y, to + step, {out[1]});
            }
        }
    }
};

}  // namespace facemix::cuda
