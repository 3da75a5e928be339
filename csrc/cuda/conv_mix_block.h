// conv_mix's fast way: implicit GEMM with the mix in registers (conv_mix_tile.h, conv_mix_product.h).
//
// A warp convolves the same 16 pixels of all images of the group, so a thread holds the same pixels and channels of all
// of them in its sums, and mixes without asking another. It compiles; it has not run on a GPU yet.
#pragma once

#include "conv_mix_stage.h"
#include "window.h"

namespace facemix::cuda {

// The first `count` of N values to `to` on, in one access where that is aligned.
template <int N, class E>
__device__ __forceinline__ void store_run(E* to, const float (&values)[N], int count) {
    constexpr int access = N * int(sizeof(E)) < kAccess ? N * int(sizeof(E)) : kAccess;
    if (count >= N && (reinterpret_cast<uintptr_t>(to) & uintptr_t(access - 1)) == 0) return store(to, values);
#pragma unroll
    for (int k = 0; k < N; ++k)
        if (k < count) store<1>(to + k, {values[k]});
}
// To y from element `at` on.
template <int N>
__device__ __forceinline__ void store_run(void* y, Dtype dtype, int64_t at, const float (&values)[N], int count) {
    if (dtype == Dtype::f32) store_run(static_cast<float*>(y) + at, values, count);
    else if (dtype == Dtype::bf16) store_run(static_cast<__nv_bfloat16*>(y) + at, values, count);
    else if (dtype == Dtype::f16) store_run(static_cast<__half*>(y) + at, values, count);
    else store_run(static_cast<int8_t*>(y) + at, values, count);
}

// The maximum of a window where nobody asks for its code; of values that are activated.
struct Largest {
    float best = -__builtin_huge_valf();
    __device__ __forceinline__ void add(float z, int, float) { best = max_nan(best, z); }
};

// Product: see conv_mix_product.h. kImages: S, or the next larger; images past S count zero.
template <class Product, int kImages>
class ConvMixBlock : ConvMixStage<Product, kImages> {
  public:
    using Stage = ConvMixStage<Product, kImages>;
    using Stage::kTiles;
    // Of a thread: image; channel tile, row g or g + 8 in [.][.][.][r / 2]; pixel tile, column 2t or 2t + 1 in [r % 2].
    using Sums = float[kImages][kTiles][2][4];

    __device__ __forceinline__ ConvMixBlock(const ConvMixArgs& args, const Tiling& tiling) : Stage(args, tiling) {}

    __device__ __forceinline__ void run() {
        this->prepare();
        const int64_t tiles = a.key.groups * t.tiles_h * t.tiles_w;
        for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            this->place = place_of_tile(t, tile);
            for (int block = 0; block < t.blocks; ++block) {
                Sums sums;
                begin(sums, block);
                for (int chunk = 0; chunk < t.chunks; ++chunk) {
                    this->stage(block, chunk, tile == blockIdx.x);
                    if (warp * 16 < t.conv_h * t.conv_w) multiply(sums, this->weights_of(block, chunk));
                }
                if (!a.codes) activate_sums(sums);
                if (t.windows) mix_windows(sums, block);
                else mix_sums(sums, block);
            }
        }
        this->wipe();
    }

  private:
    using Stage::a, Stage::t, Stage::S, Stage::lane, Stage::warp, Stage::place, Stage::kSlots, Stage::kChannels;
    using Stage::coeffs, Stage::sent, Stage::values;
    static constexpr int kRun = 2 * kTiles;  // output channels of a thread

    const float slope = negative_slope<float>(a);
    const int64_t image_size = a.OC * a.PH * a.PW;  // of y

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
        const int image_units = t.patch_h * t.patch_w * t.units, unit = lane % Product::kStepUnits;
        w += lane / 4 * Product::kStepUnits + unit;
        const uint2* start[2][Product::kReads];  // in the patch of the first image
#pragma unroll
        for (int k = 0; k < 2 * Product::kReads; ++k) {
            const int p = pixel_of(k % 2, Product::column(lane, k / 2)), real = p < t.conv_h * t.conv_w ? p : 0;
            start[k % 2][k / 2] = this->patch + pixel_offset(a, t, real / t.conv_w, real % t.conv_w);
        }
#pragma unroll 1
        for (int step = 0; step < t.steps; ++step, w += kTiles * kSlots) {
            // A step's units past the last have no weight, and read zeros, as x may not be finite.
            const int offset = this->offsets[step * Product::kStepUnits + unit], next = offset < 0 ? 0 : image_units;
            const uint2* from[2][Product::kReads];
#pragma unroll
            for (int k = 0; k < 2 * Product::kReads; ++k)
                from[k % 2][k / 2] = offset < 0 ? this->zeros : start[k % 2][k / 2] + offset;
            uint4 slots[kTiles];
#pragma unroll
            for (int m = 0; m < kTiles; ++m) slots[m] = w[m * kSlots];
#pragma unroll
            for (int j = 0; j < kImages; ++j)
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    uint2 pixels[Product::kReads];
#pragma unroll
                    for (int k = 0; k < Product::kReads; ++k) pixels[k] = *from[n][k], from[n][k] += next;
                    Product::multiply(sums[j], n, pixels, slots);
                }
        }
    }

    template <class F>
    __device__ __forceinline__ static void for_sums(Sums& sums, F&& f) {
#pragma unroll
        for (int k = 0; k < kImages * kTiles * 8; ++k)
            f(k / (kTiles * 8), sums[k / (kTiles * 8)][k / 8 % kTiles][k / 4 % 2][k % 4]);
    }
    __device__ __forceinline__ void activate_sums(Sums& sums) const {
        if (a.activation == Activation::relu) for_sums(sums, [](int, float& z) { z = max_nan(z, 0); });
        if (a.activation == Activation::leaky) for_sums(sums, [&](int, float& z) { z = z < 0 ? slope * z : z; });
    }

    // --- from registers to y -----------------------------------------------------------------------------------------

    __device__ __forceinline__ void mix_sums(Sums& sums, int block) const {
        if (S < kImages) for_sums(sums, [&](int j, float& z) { z = j < S ? z : 0; });
        int64_t at[4];  // of pixel 2 * n + r, in a plane of y; -1: not there
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int p = pixel_of_sum(k / 2, k % 2), ph = place.ph + p / t.conv_w, pw = place.pw + p % t.conv_w;
            at[k] = p < t.conv_h * t.conv_w && ph < a.PH && pw < a.PW ? ph * a.PW + pw : -1;
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
            if (a.channels_last) store_channels(sent[i] * image_size + channel, at, out, count);
            else store_pixels(sent[i] * image_size + channel * (a.PH * a.PW), at, out, count);
        }
    }
    // `count` channels of each pixel.
    __device__ __forceinline__ void store_channels(int64_t to, const int64_t (&at)[4], const float (&out)[4][kRun],
                                                   int count) const {
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (at[k] >= 0) store_run(a.y, a.y_dtype, to + at[k] * a.OC, out[k], count);
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
            for (int k = threadIdx.x; k < results * pairs; k += kTileThreads) {
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
        if (ph >= a.PH || pw >= a.PW || count <= 0) return;
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
#pragma unroll
            for (int j = 0; j < kImages; ++j) {
                if (j >= S) continue;
                uint8_t* codes = a.codes + (place.group * S + j) * image_size + at;
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
            const int64_t to = sent[i] * image_size + at;
            if (a.channels_last) {
                store_run(a.y, a.y_dtype, to, out, count);
            } else {
                store_wire<1>(a.y_dtype, a.y, to, {out[0]});
                if (count > 1) store_wire<1>(a.y_dtype, a.y, to + step, {out[1]});
            }
        }
    }
};

template <class Product, int kImages>
__global__ void __launch_bounds__(kTileThreads, 2) conv_mix_tile_kernel(const ConvMixArgs a, const Tiling t) {
    ConvMixBlock<Product, kImages>(a, t).run();
}

// False where no tile fits.
template <class Product, int kImages>
bool run_tiles_of(const ConvMixArgs& a, int device, cudaStream_t stream) {
    const char* op = "conv_mix";
    const Tiling t = plan_tiles(a, ConvMixStage<Product, kImages>::kKind,
                                device_attribute(op, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    if (t.tile_h == 0) return false;
    const auto kernel = conv_mix_tile_kernel<Product, kImages>;
    const int64_t tiles = a.key.groups * t.tiles_h * t.tiles_w;
    const int64_t at_once = blocks_at_once(op, kernel, kTileThreads, size_t(t.shared), device);
    launch(op, kernel, unsigned(tiles < at_once ? tiles : at_once), kTileThreads, size_t(t.shared), stream, a, t);
    return true;
}

template <class Product>
bool run_tiles(const ConvMixArgs& a, int device, cudaStream_t stream) {
    if (a.key.size <= 4) return run_tiles_of<Product, 4>(a, device, stream);
    if (a.key.size <= 8) return run_tiles_of<Product, 8>(a, device, stream);
    return run_tiles_of<Product, 16>(a, device, stream);
}

}  // namespace facemix::cuda
