// From the sums of tensor cores through a 3x3 pool of stride 2, in channels last: a warp convolves one row of pixels
// after the other, down its columns. Neighbours are in the sums of one lane, so windows need no shared memory: the
// largest of three pixels of a row, then of three such rows, of which the last is the next window's first as well.
#pragma once

#include "conv_mix_tensor.h"

namespace facemix::cuda {

template <class Product, int kImages, Way kWay>
class ConvMixPool : public ConvMixTensor<Product, kImages, kWay> {
  public:
    using Base = ConvMixTensor<Product, kImages, kWay>;
    using typename Base::Sums;

    using Base::Base;

    // The values of a pixel that a lane has, [set of images][channel of its run][kEach]: pairs of images as they are
    // multiplied or, where codes are wanted, a word for each of both that says where it comes from as well.
    template <bool kCodes>
    static constexpr int kEach = kCodes ? 2 : Base::kPairWords;
    template <bool kCodes>
    static constexpr int kWords = Base::kSets * Base::kRun * kEach<kCodes>;
    // Of the pixels of y that a lane has.
    template <bool kCodes>
    using Row = uint32_t[Base::kResults][kWords<kCodes>];

    // A tile of y. carried: the largest of the last row of the tile above, and then of this one's.
    template <bool kCodes>
    __device__ __forceinline__ void pool(Row<kCodes>& carried, bool only_last) {
#pragma unroll 1
        for (int row = only_last ? t.conv_h - 1 : 0; row < t.conv_h; ++row) {
            Row<kCodes> best;
            convolve<kCodes>(best, row);
            const bool middle = row % 2 == 0;
#pragma unroll
            for (int k = 0; k < kResults * kWords<kCodes>; ++k) {
                const uint32_t last = best[k / kWords<kCodes>][k % kWords<kCodes>];
                uint32_t& above = carried[k / kWords<kCodes>][k % kWords<kCodes>];
                best[k / kWords<kCodes>][k % kWords<kCodes>] = larger<kCodes>(above, last);
                above = middle ? larger<kCodes>(above, higher<kCodes>(last, 1)) : higher<kCodes>(last, 2);
            }
            this->renew();
            if (!middle && !only_last) store<kCodes>(best, place.ph + row / 2);
        }
    }

  protected:
    using Base::a, Base::t, Base::S, Base::lane, Base::place, Base::sent, Base::kChannels, Base::kRun, Base::kTiles;
    using Base::half, Base::strip, Base::block_of_warp, Base::image_of_row;
    using Base::kSets, Base::kPairWords, Base::kRows, Base::kShare, Base::kResults, Base::least, Base::activate;
    using typename Base::Mix, typename Base::Values, typename Base::M, typename Base::Element;

  private:
    static constexpr int kLast = 2 * kResults;  // of the columns of a row
    static_assert((kLast + 6) * 2 + 1 <= int(Base::kBelow));
    // What is a row, or two, further up in its window.
    template <bool kCodes>
    static __device__ __forceinline__ uint32_t higher(uint32_t word, int rows) {
        return kCodes ? word + 6 * rows : word;
    }
    static __device__ __forceinline__ int code_of(uint32_t word, int result) {
        return Base::code_of_word(word, kLast + 6 - 2 * result - Base::place_of_word(word));
    }

    template <bool kCodes>
    static __device__ __forceinline__ uint32_t least_word() {
        return kCodes ? Base::kLeast : Base::lowest();
    }
    template <bool kCodes>
    static __device__ __forceinline__ uint32_t larger(uint32_t x, uint32_t y) {
        return kCodes ? Base::larger(x, y) : max_nan_words<M>(x, y);
    }

    // The largest of three pixels of a row of the tile's, for each of this lane's results.
    template <bool kCodes>
    __device__ __forceinline__ void convolve(Row<kCodes>& best, int row) const {
        const int oh = place.ph * 2 - int(a.pool.pad_h) + 1 + row;
        if (unsigned(oh) >= unsigned(a.OH)) {
#pragma unroll
            for (int k = 0; k < kResults * kWords<kCodes>; ++k)
                best[k / kWords<kCodes>][k % kWords<kCodes>] = least_word<kCodes>();
            return;
        }
        Sums sums;
        this->begin(sums, block_of_warp());
        this->multiply(sums, this->weights_of(block_of_warp(), 0), row);
        if constexpr (kCodes) {
            if (a.activation != Activation::relu) return largest<kCodes, true>(best, sums);
        } else {
            activate(sums);
        }
        largest<kCodes, false>(best, sums);
    }
    template <bool kCodes, bool kSigned>
    __device__ __forceinline__ void largest(Row<kCodes>& best, const Sums& sums) const {
        uint32_t left[kWords<kCodes>], middle[kWords<kCodes>], right[kWords<kCodes>];
        words_of<kCodes, kSigned>(left, sums, 0);
#pragma unroll
        for (int q = 0; q < kResults; ++q) {
            words_of<kCodes, kSigned>(middle, sums, 2 * q + 1);
            words_of<kCodes, kSigned>(right, sums, 2 * q + 2);
#pragma unroll
            for (int k = 0; k < kWords<kCodes>; ++k) {
                best[q][k] = larger<kCodes>(larger<kCodes>(left[k], middle[k]), right[k]);
                left[k] = right[k];
            }
        }
    }
    // Of column n of a row. kSigned: of values that may be negative, and are not activated yet.
    template <bool kCodes, bool kSigned>
    __device__ __forceinline__ void words_of(uint32_t (&words)[kWords<kCodes>], const Sums& sums, int n) const {
        const bool real = unsigned(first_result() * 2 - int(a.pool.pad_w) + n) < unsigned(a.OW);
        const float slope = kSigned ? negative_slope<float>(a) : 0;
        const uint32_t floor = least();
#pragma unroll
        for (int k = 0; k < kSets * kRun; ++k) {
            const float (&of)[4] = sums[n * kSets + k / kRun][k % kRun / 2];
            const float2 z = {of[k % 2 * 2], of[k % 2 * 2 + 1]};
            uint32_t pair[kPairWords], each[kEach<kCodes>];
            if constexpr (kSigned) {
                this->signed_words(each, z, kLast - n, slope);
            } else {
                Product::pack(pair, z.x, z.y);
#pragma unroll
                for (int e = 0; e < kPairWords; ++e) pair[e] = max_nan_words<M>(pair[e], floor);
                if constexpr (kCodes) Base::words(each, pair, kLast - n);
                else
#pragma unroll
                    for (int e = 0; e < kPairWords; ++e) each[e] = pair[e];
            }
#pragma unroll
            for (int e = 0; e < kEach<kCodes>; ++e)
                words[k * kEach<kCodes> + e] = real ? each[e] : least_word<kCodes>();
        }
    }

    // Of this lane, in a row of y.
    __device__ __forceinline__ int first_result() const { return place.pw + (strip() * kShare + half()) * kResults; }

    // Row ph of y.
    template <bool kCodes>
    __device__ __forceinline__ void store(const Row<kCodes>& best, int ph) const {
        if (ph >= int(a.PH)) return;
        const Mix mix(*this);
        const int channel = block_of_warp() * kChannels + lane / 4 * kRun, count = int(a.OC) - channel;
        const int first = first_result();
#pragma unroll
        for (int q = 0; q < kResults; ++q) {
            float run[kRows][kRun];
            [[maybe_unused]] int codes[kRows][kRun];
#pragma unroll
            for (int m = 0; m < kTiles; ++m) {
                float out[kSets][4];
                Values z;
#pragma unroll
                for (int k = 0; k < 2 * kSets; ++k) {
                    const int c = 2 * m + k % 2, word = (k / 2 * kRun + c) * kEach<kCodes>;
                    if constexpr (kCodes) {
                        const uint32_t even = best[q][word], odd = best[q][word + 1];
                        Base::values_of_words(z[k / 2][k % 2], even, odd);
                        codes[k / 2 * 2][c] = code_of(even, q), codes[k / 2 * 2 + 1][c] = code_of(odd, q);
                    } else {
#pragma unroll
                        for (int e = 0; e < kPairWords; ++e) z[k / 2][k % 2][e] = best[q][word + e];
                    }
                }
                mix(out, z);
                Base::spread(run, out, m);
            }
            if (first + q >= int(a.PW)) continue;
            const int at = (ph * int(a.PW) + first + q) * int(a.OC) + channel;
#pragma unroll
            for (int k = 0; k < kRows; ++k) {
                const int i = image_of_row(k);
                if (i >= S) continue;
                cuda::store_run(static_cast<Element*>(a.y) + sent[i] + at, run[k], count);
                if constexpr (kCodes) cuda::store_run(this->codes_of(i) + at, codes[k], count);
            }
        }
    }
};

}  // namespace facemix::cuda
