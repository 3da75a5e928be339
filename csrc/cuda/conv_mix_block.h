// conv_mix's fast way: implicit GEMM with the mix in registers (conv_mix_tile.h, conv_mix_product.h).
//
// A warp convolves the same 16 pixels of all images of the group, so a thread holds the same pixels and channels of all
// of them in its sums, and mixes without asking another. It compiles; it has not run on a GPU yet.
#pragma once

#include "conv_mix_sums.h"

namespace facemix::cuda {

// The maximum of a window where nobody asks for its code; of values that are activated.
struct Largest {
    float best = -__builtin_huge_valf();
    __device__ __forceinline__ void add(float z, int, float) { best = max_nan(best, z); }
};

// Product: see conv_mix_product.h. kImages: S, or the next larger; images past S count zero.
template <class Product, int kImages>
class ConvMixBlock : ConvMixSums<Product, kImages> {
  public:
    using Base = ConvMixSums<Product, kImages>;
    using Base::kTiles;
    using Sums = typename Base::Sums;

    __device__ __forceinline__ ConvMixBlock(const ConvMixArgs& args, const Tiling& tiling) : Base(args, tiling) {}

    __device__ __forceinline__ void run() {
        this->prepare();
        const int64_t tiles = a.key.groups * t.tiles_h * t.tiles_w;
        for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            this->place = place_of_tile(t, tile);
            for (int block = 0; block < t.blocks; ++block) {
                Sums sums;
                this->begin(sums, block);
                for (int chunk = 0; chunk < t.chunks; ++chunk) {
                    this->stage(tile, block, chunk);
                    if (warp * 16 < t.conv_h * t.conv_w) this->multiply(sums, this->weights_of(block, chunk));
                }
                this->renew();
                if (!a.codes) this->activate_sums(sums);
                if (t.windows) mix_windows(sums, block);
                else mix_sums(sums, block);
            }
        }
        this->wipe();
    }

  private:
    using Base::a, Base::t, Base::S, Base::image_size, Base::lane, Base::warp, Base::place, Base::slope,
        Base::kChannels;
    using Base::coeffs, Base::sent, Base::values, Base::pixel_of_sum, Base::channel_of_sum, Base::for_sums;
    static constexpr int kRun = 2 * kTiles;  // output channels of a thread

    // --- from registers to y -----------------------------------------------------------------------------------------

    __device__ __forceinline__ void mix_sums(Sums& sums, int block) const {
        if (S < kImages) for_sums(sums, [&](int j, float& z) { z = j < S ? z : 0; });
        const int64_t step = a.channels_last ? a.OC : 1;
        int64_t at[4];  // of pixel 2 * n + r, in an image of y; -1: not there
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int p = pixel_of_sum(k / 2, k % 2), ph = place.ph + p / t.conv_w, pw = place.pw + p % t.conv_w;
            at[k] = p < t.conv_h * t.conv_w && ph < int(a.PH) && pw < int(a.PW) ? (ph * a.PW + pw) * step : -1;
        }
        const int channel = block * kChannels + channel_of_sum(0, 0, kRun), count = int(a.OC) - channel;
#pragma unroll 1
        for (int i = 0; i < S; ++i) {
            float c[kImages], out[4][kRun];
#pragma unroll
            for (int j = 0; j < kImages; ++j) c[j] = coeffs[i * kImages + j];
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
    // `count` channels of each pixel.
    __device__ __forceinline__ void store_channels(int64_t to, const int64_t (&at)[4], const float (&out)[4][kRun],
                                                   int count) const {
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (at[k] >= 0) store_run(a.y, a.y_dtype, to + at[k], out[k], count);
    }
    // The pixels of `count` channels: neighbours, but at the end of a row.
    __device__ __forceinline__ void store_pixels(int64_t to, const int64_t (&at)[4], const float (&out)[4][kRun],
                                                 int count) const {
        const bool whole = at[0] >= 0 && at[3] == at[0] + 3;
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
            if (k >= count) continue;
            const float run[4] = {out[0][k], out[1][k], out[2][k], out[3][k]};
            const int64_t plane = to + k * (a.PH * a.PW);
            if (whole) {
                store_run(a.y, a.y_dtype, plane + at[0], run, 4);
                continue;
            }
#pragma unroll
            for (int pixel = 0; pixel < 4; ++pixel)
                if (at[pixel] >= 0) store_wire<1>(a.y_dtype, a.y, plane + at[pixel], {run[pixel]});
        }
    }

    // --- through windows ---------------------------------------------------------------------------------------------

    // The values of all images of the tile meet in shared memory, a channel tile at a time.
    __device__ __forceinline__ void mix_windows(const Sums& sums, int block) const {
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
            uint8_t* codes = a.codes + place.group * S * image_size + at;
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
                const float c = coeffs[i * kImages + j];
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
