// From the sums of tensor cores through windows: the values of all images of a tile meet in shared memory, in 16 bits
// or as TF32. So it is where y is pooled, unless conv_mix_pool.h knows the pool, and where y is of another dtype than
// x.
#pragma once

#include "conv_mix_tensor.h"

namespace facemix::cuda {

template <class Product, int kImages>
class ConvMixWindows : public ConvMixTensor<Product, kImages, Way::windows> {
  public:
    using Base = ConvMixTensor<Product, kImages, Way::windows>;
    using typename Base::Sums;

    using Base::Base;

    // To the values in shared memory: activated, unless codes are wanted; to these what ReLU takes is as good as zero.
    __device__ __forceinline__ void keep(Sums& sums, int pass) const {
        if (!a.codes) activate(sums);
        const uint32_t floor = least();
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
            const int p = pixel_of(pass, n);
            if (p >= t.conv_h * t.conv_w) continue;
#pragma unroll
            for (int e = 0; e < kPairWords; ++e) {
                uint32_t words[4];  // channels 4g on
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    uint32_t pair[kPairWords];
                    Product::pack(pair, sums[n][k / 2][k % 2 * 2], sums[n][k / 2][k % 2 * 2 + 1]);
                    words[k] = max_nan_words<M>(pair[e], floor);
                }
                *values_of(p, n % kSets, e) = {words[0], words[1], words[2], words[3]};
            }
        }
    }

    // From the values to y, a run of results after the other, or two runs of 4 images.
    __device__ __forceinline__ void mix_windows(int block) const {
        const Mix mix(*this);
        const int runs = t.tile_h * t.runs;
        for (int first = warp * kShare; first < runs; first += kTileWarps * kShare) {
            const int run = first + half();
            if (a.codes) mix_run<true>(mix, run, block);
            else mix_run<false>(mix, run, block);
        }
    }

  protected:
    using Base::a, Base::t, Base::S, Base::lane, Base::place, Base::sent, Base::kChannels, Base::kRun, Base::kTiles;
    using Base::kColumns, Base::kSets, Base::kPairWords, Base::kRows, Base::least, Base::activate, Base::half;
    using Base::pair, Base::image_of_row, Base::values, Base::warp, Base::codes_of, Base::kShare, Base::lowest;
    using Base::pixel_of;
    using typename Base::Mix, typename Base::Values, typename Base::M;

  private:
    // Of a convolved pixel, four channels of a pair of images, or one of them.
    __device__ __forceinline__ uint4* values_of(int pixel, int set, int e) const {
        const int row = (set * 4 + pair()) * kPairWords + e;
        return reinterpret_cast<uint4*>(values + (pixel * Base::kValueRows + row) * Base::kValuePitch + lane / 4 * 4);
    }

    static constexpr int kNeighbours = Base::kKind.neighbours();
    static_assert(kNeighbours == 1 || kNeighbours == sizeof(uint32_t));  // whose codes make a word

    // Of a pixel of y; channels of one of this lane's rows follow each other.
    struct Result {
        float y[kRows][kRun];
        int codes[kRows][kRun];
    };

    // A run of pixels of the tile of y, all channels of the block; what is not there takes part, but stores nothing.
    template <bool kCodes>
    __device__ __forceinline__ void mix_run(const Mix& mix, int run, int block) const {
        const int r = quotient(run, t.run_inverse), q = (run - r * t.runs) * t.run;
        const int ph = place.ph + r, pw = place.pw + q, channel = block * kChannels + lane / 4 * kRun;
        const bool real = r < t.tile_h && ph < int(a.PH) && pw < int(a.PW);
        const int count = real ? int(a.OC) - channel : 0;
        const int64_t step = a.channels_last ? 1 : a.PH * a.PW;  // to the next channel
        const int64_t at = (ph * a.PW + pw) * (a.channels_last ? a.OC : 1) + channel * step;
        if (kNeighbours == 1 || t.run == 1) {
            Result result;
            mix_window<kCodes>(result, mix, r, q, real);
            return store<kCodes>(result, at, step, count);
        }
        float y[kRows][kRun][kNeighbours];
        uint32_t codes[kRows][kRun];
#pragma unroll 1
        for (int n = 0; n < kNeighbours; ++n) {
            Result result;
            mix_window<kCodes>(result, mix, r, q + n, real);
#pragma unroll
            for (int k = 0; k < kRows * kRun; ++k) {
                const int row = k / kRun, c = k % kRun;
#pragma unroll
                for (int next = 1; next < kNeighbours; ++next) y[row][c][next - 1] = y[row][c][next];
                y[row][c][kNeighbours - 1] = result.y[row][c];
                if (kCodes) codes[row][c] = codes[row][c] >> 8 | uint32_t(result.codes[row][c]) << 24;
            }
        }
#pragma unroll
        for (int k = 0; k < kRows * kRun; ++k) {
            const int i = image_of_row(k / kRun), c = k % kRun;
            if (i >= S || c >= count) continue;
            store_wire(a.y_dtype, a.y, sent[i] + at + c * step, y[k / kRun][c]);
            if (kCodes) *reinterpret_cast<uint32_t*>(codes_of(i) + at + c * step) = codes[k / kRun][c];
        }
    }
    // `count` channels from element `at` of each image on.
    template <bool kCodes>
    __device__ __forceinline__ void store(const Result& result, int64_t at, int64_t step, int count) const {
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
            const int i = image_of_row(k);
            if (i >= S) continue;
            if (a.channels_last) {
                cuda::store_run(a.y, a.y_dtype, sent[i] + at, result.y[k], count);
                if constexpr (kCodes) cuda::store_run(codes_of(i) + at, result.codes[k], count);
                continue;
            }
#pragma unroll
            for (int c = 0; c < kRun; ++c) {
                if (c >= count) continue;
                store_wire<1>(a.y_dtype, a.y, sent[i] + at + c * step, {result.y[k][c]});
                if constexpr (kCodes) codes_of(i)[at + c * step] = uint8_t(result.codes[k][c]);
            }
        }
    }

    // Pixel (r, q) of the tile of y.
    template <bool kCodes>
    __device__ __forceinline__ void mix_window(Result& result, const Mix& mix, int r, int q, bool real) const {
        const int ph = place.ph + r, pw = place.pw + q;
        const Pool& p = a.pool;
        const Span rows = clip_window(ph, p.kh, p.sh, p.pad_h, a.OH),
                   columns = clip_window(pw, p.kw, p.sw, p.pad_w, a.OW);
        constexpr int kEach = kCodes ? 2 : kPairWords;
        uint32_t best[kSets][kEach][4];
#pragma unroll
        for (int k = 0; k < kSets * kEach * 4; ++k)
            best[k / 4 / kEach][k / 4 % kEach][k % 4] = kCodes ? Base::kLeast : lowest();
        const bool relu = a.activation == Activation::relu;
        const float slope = negative_slope<float>(a);
#pragma unroll 1
        for (int h = rows.begin; h < rows.end && real; ++h)
#pragma unroll 1
            for (int w = columns.begin; w < columns.end; ++w) {
                const int pixel = (r * int(p.sh) + h) * t.conv_w + q * int(p.sw) + w;
                const int earlier = kCodeWindow - (h * int(p.kw) + w);
#pragma unroll
                for (int set = 0; set < kSets; ++set) {
                    uint32_t words[kPairWords][4];
#pragma unroll
                    for (int e = 0; e < kPairWords; ++e) {
                        const uint4 read = *values_of(pixel, set, e);
                        words[e][0] = read.x, words[e][1] = read.y, words[e][2] = read.z, words[e][3] = read.w;
                    }
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        uint32_t pair[kPairWords];
#pragma unroll
                        for (int e = 0; e < kPairWords; ++e) {
                            pair[e] = words[e][c];
                            if (!kCodes) best[set][e][c] = max_nan_words<M>(best[set][e][c], pair[e]);
                        }
                        if constexpr (kCodes) {
                            uint32_t each[2];
                            if (relu) Base::words(each, pair, earlier);
                            else this->signed_words(each, Product::unpack(pair), earlier, slope);
#pragma unroll
                            for (int e = 0; e < 2; ++e) best[set][e][c] = Base::larger(best[set][e][c], each[e]);
                        }
                    }
                }
            }
        __syncwarp();  // the windows of two pixels may differ
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            float out[kSets][4];
            Values z;
#pragma unroll
            for (int k = 0; k < kSets * 2; ++k) {
                const int set = k / 2, c = 2 * m + k % 2;
                if constexpr (kCodes) {
                    const uint32_t even = best[set][0][c], odd = best[set][1][c];
                    Base::values_of_words(z[set][k % 2], even, odd);
                    result.codes[2 * set][c] = Base::code_of_word(even, kCodeWindow - Base::place_of_word(even));
                    result.codes[2 * set + 1][c] = Base::code_of_word(odd, kCodeWindow - Base::place_of_word(odd));
                } else {
#pragma unroll
                    for (int e = 0; e < kPairWords; ++e) z[set][k % 2][e] = best[set][e][c];
                }
            }
            mix(out, z);
            Base::spread(result.y, out, m);
        }
    }
};

}  // namespace facemix::cuda
