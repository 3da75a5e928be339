// conv_mix's fast way on tensor cores: implicit GEMM, and the mix as a second product of what the first one left in
// registers (conv_mix_product.h).
//
// A warp convolves a strip of pixels of all images. The columns of a product are images, its rows 16 output channels;
// of 4 images, two pixels share the columns. It compiles; it has not run on a GPU yet.
#pragma once

#include "conv_mix_stage.h"
#include "window.h"

namespace facemix::cuda {

template <class Product, int kImages, bool kWindows>
class ConvMixTensor : public ConvMixStage<Product, kImages, kWindows> {
  public:
    using Base = ConvMixStage<Product, kImages, kWindows>;
    using Base::kTiles;
    static constexpr int kColumns = Base::kKind.columns();
    // Of a thread: column; channel tile; row g or g + 8 in [.][.][r / 2], image 2t or 2t + 1 in [r % 2].
    using Sums = float[kColumns][kTiles][4];

    using Base::Base;

    __device__ __forceinline__ void begin(Sums& sums, int block) const {
#pragma unroll
        for (int k = 0; k < 2 * kTiles; ++k) {
            const float b = this->bias[block * kChannels + channel_of_row(k / 2, lane / 4 + k % 2 * 8, kRun)];
#pragma unroll
            for (int n = 0; n < kColumns; ++n) sums[n][k / 2][k % 2 * 2] = sums[n][k / 2][k % 2 * 2 + 1] = b;
        }
    }

    __device__ __forceinline__ void multiply(Sums& sums, const uint4* w, int pass) const {
        const int unit = lane % Product::kStepUnits, column = lane / 4;
        const int* places = this->places + unit;
        w += lane;
        const int image = column % kImages;
        const unsigned char* const patch =
            this->patch(0) + image / kTogether * pitch * kPlaceBytes + image % kTogether * kUnitBytes;
        // Where the windows of the pixels begin, those of one image, two or half a one in each column.
        Pixels start;
        Walk walk(t, first_pixel(pass) + column / kImages * kRunPixels);
#pragma unroll
        for (int p = 0; p < kRunPixels; ++p, walk.next())
            start[p] = patch + (walk.real() ? window_place(t, walk.row, walk.column) : 0) * kPlaceBytes;
        // Steps without a counter, whose places are part of the instruction, are shorter; TF32 has too many of them.
        if constexpr (kWord == 2) {
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

    // From sums to y, which is of x's dtype and not pooled.
    __device__ __forceinline__ void store(Sums& sums, int block, int pass) const {
        activate(sums);
        const Mix mix(*this);
        const int channel = block * kChannels + lane / 4 * kRun, count = int(a.OC) - channel;
        const uint32_t floor = least();
        Walk walk(t, first_pixel(pass) + half() * kRunPixels);
        a.channels_last ? store_channels(sums, mix, walk, channel, count, floor)
                        : store_pixels(sums, mix, walk, channel, count, floor);
    }

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

    // From the values to y: a result at a time, or two of 4 images.
    __device__ __forceinline__ void mix_windows(int block) const {
        const Mix mix(*this);
        const int results = t.tile_h * t.tile_w;
        for (int first = warp * kShare; first < results; first += kTileWarps * kShare) {
            const int result = first + half();
            if (a.codes) mix_window<true>(mix, result, block);
            else mix_window<false>(mix, result, block);
        }
    }

  protected:
    using Base::a, Base::t, Base::S, Base::image_size, Base::lane, Base::warp, Base::place, Base::pitch;
    using Base::sent, Base::values, Base::kChannels, Base::kKind, Base::kRun, Base::kSlots, Base::kStrip, Base::kWord;

  private:
    using Element = typename Product::Element;
    using M = typename Product::Operand;
    static constexpr int kSets = Base::kKind.sets();        // columns that a group takes
    static constexpr int kShare = kImages < 8 ? 2 : 1;      // pixels that share a column
    static constexpr int kRunPixels = kColumns / kSets;     // neighbours that a lane has
    static constexpr int kPairWords = Product::kPairWords;  // of the values of two images
    static constexpr int kRows = 2 * kSets;                 // rows of y of a lane
    static constexpr Steps k7x7 = kKind.steps_7x7(), k3x3 = kKind.steps_3x3(), kWide3x3 = kKind.steps_wide_3x3();
    using Pixels = const unsigned char* [kRunPixels];
    using Values = uint32_t[kSets][2][kPairWords];  // of rows g and g + 8
    static_assert(kRunPixels * kShare == kStrip);

    // Walks along the convolved pixels of a tile.
    struct Walk {
        const Tiling& t;
        int pixel, row, column;
        __device__ __forceinline__ Walk(const Tiling& tiling, int p)
            : t(tiling), pixel(p), row(quotient(p, t.conv_inverse)), column(p - row * t.conv_w) {}
        __device__ __forceinline__ bool real() const { return pixel < t.conv_h * t.conv_w; }
        __device__ __forceinline__ void next() {
            ++pixel;
            if (++column == t.conv_w) column = 0, ++row;
        }
    };
    __device__ __forceinline__ int first_pixel(int pass) const { return (pass * kTileWarps + warp) * kStrip; }
    // Which of the pixels that share a column this lane has sums of, and its images: 2 * pair() and the next.
    __device__ __forceinline__ int half() const { return kShare == 1 ? 0 : lane % 4 / 2; }
    __device__ __forceinline__ int pair() const { return kShare == 1 ? lane % 4 : lane % 2; }
    __device__ __forceinline__ int pixel_of(int pass, int n) const {
        return first_pixel(pass) + half() * kRunPixels + n / kSets;
    }

    // --- the convolution ---------------------------------------------------------------------------------------------

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
    __device__ __forceinline__ void multiply_step(Sums& sums, const uint4* w, int unit, const Pixels& start) const {
        const int place = kWhole ? unit : unit & -kPlaceBytes;
        uint32_t slots[kTiles][4];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            const uint4 both = w[m * kSlots];
            slots[m][0] = both.x, slots[m][1] = both.y, slots[m][2] = both.z, slots[m][3] = both.w;
        }
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
            const uint2 words = *reinterpret_cast<const uint2*>(start[n / kSets] + place +
                                                                n % kSets * 8 / kTogether * pitch * kPlaceBytes);
            uint32_t pixels[kUnitWords] = {words.x, words.y};
            if (!kWhole)
#pragma unroll
                for (int i = 0; i < kUnitWords; ++i)
                    pixels[i] &= (unit >> 2 * i & 1 ? 0 : 0xffffu) | (unit >> 2 * i & 2 ? 0 : 0xffff0000u);
#pragma unroll
            for (int m = 0; m < kTiles; ++m) mma<M>(sums[n][m], slots[m], pixels);
        }
    }

    // --- activation --------------------------------------------------------------------------------------------------

    static __device__ __forceinline__ uint32_t lowest() { return Product::all(-__builtin_huge_valf()); }
    // That of an activated value: a maximum with it is ReLU, or nothing.
    __device__ __forceinline__ uint32_t least() const { return a.activation == Activation::relu ? 0 : lowest(); }

    // But for ReLU, which costs less when values have become words.
    __device__ __forceinline__ void activate(Sums& sums) const {
        if (a.activation != Activation::leaky) return;
        const float slope = negative_slope<float>(a);
#pragma unroll
        for (int k = 0; k < kSums; ++k) {
            float& z = sums[k / (4 * kTiles)][k / 4 % kTiles][k % 4];
            z = z < 0 ? slope * z : z;
        }
    }

    // --- the mix -----------------------------------------------------------------------------------------------------

    // Which image of the group, or row of its mix, is the k-th of this lane.
    __device__ __forceinline__ int image_of_row(int k) const { return k / 2 * 8 + pair() * 2 + k % 2; }

    struct Mix {
        typename Product::template KeyWords<kSets> key;
        bool left;

        __device__ __forceinline__ explicit Mix(const ConvMixTensor& of) : left(of.half() == 0) {
            Product::template read_key<kSets>(key, of.key, of.lane);
        }

        // out: as mma's d, of rows 2 * pair() and the next of y, and of 8 rows further.
        __device__ __forceinline__ void operator()(float (&out)[kSets][4], const Values& z) const {
            if constexpr (kShare == 1) {
                Product::template mix<kSets>(out, z, key);
            } else {  // neither pixel may meet the other: 0 times infinity is no 0
                float other[kSets][4];
                Values one, two;
#pragma unroll
                for (int k = 0; k < 2 * kPairWords; ++k) {
                    const uint32_t word = z[0][k / kPairWords][k % kPairWords];
                    one[0][k / kPairWords][k % kPairWords] = left ? word : 0;
                    two[0][k / kPairWords][k % kPairWords] = left ? 0 : word;
                }
                Product::template mix<kSets>(out, one, key);
                Product::template mix<kSets>(other, two, key);
#pragma unroll
                for (int r = 0; r < 4; ++r) out[0][r] = left ? out[0][r] : other[0][r];
            }
        }
    };

    // Channel tile m of a pixel, mixed.
    __device__ __forceinline__ void mix_tile(float (&out)[kSets][4], const Sums& sums, int pixel, int m, const Mix& mix,
                                             uint32_t floor) const {
        Values z;
#pragma unroll
        for (int k = 0; k < 2 * kSets; ++k) {
            const float (&of)[4] = sums[pixel * kSets + k / 2][m];
            Product::pack(z[k / 2][k % 2], of[k % 2 * 2], of[k % 2 * 2 + 1]);
#pragma unroll
            for (int e = 0; e < kPairWords; ++e) z[k / 2][k % 2][e] = max_nan_words<M>(z[k / 2][k % 2][e], floor);
        }
        mix(out, z);
    }

    // Row k of y of this lane from element `at` of its image on; null: there is none.
    __device__ __forceinline__ Element* row_of_y(int k, int at) const {
        const int i = image_of_row(k);
        return i < S ? static_cast<Element*>(a.y) + sent[i] + at : nullptr;
    }
    // In a plane of y; negative where it is not there.
    __device__ __forceinline__ int pixel_of_y(const Walk& at) const {
        const int ph = place.ph + at.row, pw = place.pw + at.column;
        return at.real() && ph < int(a.PH) && pw < int(a.PW) ? ph * int(a.PW) + pw : -1;
    }

    __device__ __forceinline__ void store_channels(const Sums& sums, const Mix& mix, Walk walk, int channel, int count,
                                                   uint32_t floor) const {
        constexpr int kAligned = kRun * int(sizeof(Element)) < kAccess ? kRun * int(sizeof(Element)) : kAccess;
        const bool whole = count >= kRun && a.OC % kRun == 0 && reinterpret_cast<uintptr_t>(a.y) % kAligned == 0;
        Element* rows[kRows];
#pragma unroll
        for (int k = 0; k < kRows; ++k) rows[k] = row_of_y(k, channel);
#pragma unroll
        for (int p = 0; p < kRunPixels; ++p, walk.next()) {
            float run[kRows][kRun];
#pragma unroll
            for (int m = 0; m < kTiles; ++m) {
                float out[kSets][4];
                mix_tile(out, sums, p, m, mix, floor);
#pragma unroll
                for (int k = 0; k < 2 * kRows; ++k) run[k / 2][2 * m + k % 2] = out[k / 4][k % 2 * 2 + k / 2 % 2];
            }
            const int at = pixel_of_y(walk) * int(a.OC);
            if (at < 0) continue;
#pragma unroll
            for (int k = 0; k < kRows; ++k) {
                if (!rows[k]) continue;
                if (whole) {
                    cuda::store(rows[k] + at, run[k]);
                    continue;
                }
#pragma unroll
                for (int c = 0; c < kRun; ++c)
                    if (c < count) cuda::store<1>(rows[k] + at + c, {run[k][c]});
            }
        }
    }
    __device__ __forceinline__ void store_pixels(const Sums& sums, const Mix& mix, const Walk& walk, int channel,
                                                 int count, uint32_t floor) const {
        const int first = pixel_of_y(walk), plane = int(a.PH * a.PW);
        const bool whole =
            first >= 0 && walk.column + kRunPixels <= t.conv_w && place.pw + walk.column + kRunPixels <= int(a.PW);
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            float out[kRunPixels][kSets][4];
#pragma unroll
            for (int p = 0; p < kRunPixels; ++p) mix_tile(out[p], sums, p, m, mix, floor);
#pragma unroll
            for (int k = 0; k < 2 * kRows; ++k) {
                const int c = 2 * m + k % 2;
                Element* const to = row_of_y(k / 2, (channel + c) * plane);  // anew: registers are short
                if (c >= count || !to) continue;
                float run[kRunPixels];
#pragma unroll
                for (int p = 0; p < kRunPixels; ++p) run[p] = out[p][k / 4][k % 2 * 2 + k / 2 % 2];
                if (whole) {
                    store_run(to + first, run, kRunPixels);
                    continue;
                }
                Walk each = walk;
#pragma unroll
                for (int p = 0; p < kRunPixels; ++p, each.next())
                    if (const int at = pixel_of_y(each); at >= 0) cuda::store<1>(to + at, {run[p]});
            }
        }
    }

    // --- through windows ---------------------------------------------------------------------------------------------

    // Of a convolved pixel, four channels of a pair of images, or one of them.
    __device__ __forceinline__ uint4* values_of(int pixel, int set, int e) const {
        const int row = (set * 4 + pair()) * kPairWords + e;
        return reinterpret_cast<uint4*>(values + (pixel * Base::kValueRows + row) * Base::kValuePitch + lane / 4 * 4);
    }

    // A pixel of the tile of y, all channels of the block; what is not there of it takes part, but stores nothing.
    template <bool kCodes>
    __device__ __forceinline__ void mix_window(const Mix& mix, int result, int block) const {
        const int r = quotient(result, t.tile_inverse), q = result - r * t.tile_w, ph = place.ph + r, pw = place.pw + q;
        const bool real = r < t.tile_h && ph < int(a.PH) && pw < int(a.PW);
        const Pool& p = a.pool;
        const Span rows = clip_window(ph, p.kh, p.sh, p.pad_h, a.OH),
                   columns = clip_window(pw, p.kw, p.sw, p.pad_w, a.OW);
        uint32_t best[kSets][kPairWords][4];
        [[maybe_unused]] WindowMax<float> window[kCodes ? kSets : 1][2][4];
#pragma unroll
        for (int k = 0; k < kSets * kPairWords * 4; ++k) best[k / 4 / kPairWords][k / 4 % kPairWords][k % 4] = lowest();
        const float slope = negative_slope<float>(a);
#pragma unroll 1
        for (int h = rows.begin; h < rows.end && real; ++h)
#pragma unroll 1
            for (int w = columns.begin; w < columns.end; ++w) {
                const int pixel = (r * int(p.sh) + h) * t.conv_w + q * int(p.sw) + w;
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
                        uint32_t both[kPairWords];
#pragma unroll
                        for (int e = 0; e < kPairWords; ++e) {
                            both[e] = words[e][c];
                            if (!kCodes) best[set][e][c] = max_nan_words<M>(best[set][e][c], both[e]);
                        }
                        if constexpr (kCodes) {
                            const float2 z = Product::unpack(both);
                            const int code = h * int(p.kw) + w;
                            window[set][0][c].add(z.x, code, slope), window[set][1][c].add(z.y, code, slope);
                        }
                    }
                }
            }
        const int channel = block * kChannels + lane / 4 * kRun, count = int(a.OC) - channel;
        const int64_t step = a.channels_last ? 1 : a.PH * a.PW;  // to the next channel
        const int64_t at = (ph * a.PW + pw) * (a.channels_last ? a.OC : 1) + channel * step;
        if constexpr (kCodes) {
#pragma unroll
            for (int set = 0; set < kSets; ++set)
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    uint32_t both[kPairWords];
                    Product::pack(both, window[set][0][c].best, window[set][1][c].best);
#pragma unroll
                    for (int e = 0; e < kPairWords; ++e) best[set][e][c] = both[e];
#pragma unroll
                    for (int odd = 0; odd < 2; ++odd) {
                        const int j = set * 8 + pair() * 2 + odd;
                        if (real && j < S && c < count)
                            a.codes[(int64_t(place.group) * S + j) * image_size + at + c * step] =
                                uint8_t(window[set][odd][c].code);
                    }
                }
        }
        __syncwarp();  // the windows of two pixels may differ
        float run[kRows][kRun];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            float out[kSets][4];
            Values z;
#pragma unroll
            for (int k = 0; k < kSets * 2 * kPairWords; ++k)
                z[k / 2 / kPairWords][k / kPairWords % 2][k % kPairWords] =
                    best[k / 2 / kPairWords][k % kPairWords][2 * m + k / kPairWords % 2];
            mix(out, z);
#pragma unroll
            for (int k = 0; k < 2 * kRows; ++k) run[k / 2][2 * m + k % 2] = out[k / 4][k % 2 * 2 + k / 2 % 2];
        }
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
            const int i = image_of_row(k);
            if (!real || i >= S) continue;
            if (a.channels_last) {
                cuda::store_run(a.y, a.y_dtype, sent[i] + at, run[k], count);
                continue;
            }
#pragma unroll
            for (int c = 0; c < kRun; ++c)
                if (c < count) store_wire<1>(a.y_dtype, a.y, sent[i] + at + c * step, {run[k][c]});
        }
    }
};

}  // namespace facemix::cuda
