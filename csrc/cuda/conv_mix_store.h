// From the sums of tensor cores to y, which is of x's dtype and not pooled.
#pragma once

#include "conv_mix_tensor.h"

namespace facemix::cuda {

template <class Product, int kImages>
class ConvMixStore : public ConvMixTensor<Product, kImages, Way::store> {
  public:
    using Base = ConvMixTensor<Product, kImages, Way::store>;
    using typename Base::Sums;

    using Base::Base;

    __device__ __forceinline__ void store(Sums& sums, int block, int pass) const {
        if (a.codes) return store<true>(sums, block, pass);
        activate(sums);
        store<false>(sums, block, pass);
    }

  protected:
    using Base::a, Base::t, Base::S, Base::lane, Base::place, Base::sent, Base::kChannels, Base::kRun, Base::kTiles;
    using Base::image_of_row, Base::first_pixel;
    using Base::kSets, Base::kRunPixels, Base::kPairWords, Base::kRows, Base::least, Base::activate, Base::half;
    using typename Base::Mix, typename Base::Values, typename Base::M, typename Base::Walk, typename Base::Element;

  private:
    // Where codes are wanted, sums are not activated yet.
    template <bool kCodes>
    __device__ __forceinline__ void store(const Sums& sums, int block, int pass) const {
        const Mix mix(*this);
        const int channel = block * kChannels + lane / 4 * kRun, count = int(a.OC) - channel;
        const uint32_t floor = least();
        Walk walk(t, first_pixel(pass) + half() * kRunPixels);
        a.channels_last ? store_channels<kCodes>(sums, mix, walk, channel, count, floor)
                        : store_pixels<kCodes>(sums, mix, walk, channel, count, floor);
    }

    // Codes of `kCount` values side by side, a byte each.
    template <int kCount>
    struct Codes {
        uint32_t words[kCount / 4] = {};

        __device__ __forceinline__ Codes() {}  // see WindowMax
        __device__ __forceinline__ void set_negative(int n) { words[n / 4] |= uint32_t(kCodeNegative) << n % 4 * 8; }
        __device__ __forceinline__ uint8_t at(int n) const { return uint8_t(words[n / 4] >> n % 4 * 8); }
        // All of them, where `to` is aligned.
        __device__ __forceinline__ void store(uint8_t* to) const {
            cuda::store(reinterpret_cast<uint32_t*>(to), words);
        }
    };

    // Channel tile m of a pixel, mixed. Of codes, calls negative(k, c) where channel c of row k has a value that is
    // not positive.
    template <bool kCodes, class Negative>
    __device__ __forceinline__ void mix_tile(float (&out)[kSets][4], const Sums& sums, int pixel, int m, const Mix& mix,
                                             uint32_t floor, Negative&& negative) const {
        Values z;
        [[maybe_unused]] const float slope = a.activation == Activation::leaky ? negative_slope<float>(a) : 1;
#pragma unroll
        for (int k = 0; k < 2 * kSets; ++k) {
            float of[2] = {sums[pixel * kSets + k / 2][m][k % 2 * 2], sums[pixel * kSets + k / 2][m][k % 2 * 2 + 1]};
            if constexpr (kCodes)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    if (!(of[e] > 0)) negative(k / 2 * 2 + e, k % 2);
                    of[e] = of[e] < 0 ? slope * of[e] : of[e];
                }
            Product::pack(z[k / 2][k % 2], of[0], of[1]);
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
    __device__ __forceinline__ uint8_t* row_of_codes(int k, int at) const {
        return this->codes_of(image_of_row(k)) + at;
    }
    // In a plane of y; negative where it is not there.
    __device__ __forceinline__ int pixel_of_y(const Walk& at) const {
        const int ph = place.ph + at.row, pw = place.pw + at.column;
        return at.real() && ph < int(a.PH) && pw < int(a.PW) ? ph * int(a.PW) + pw : -1;
    }

    template <bool kCodes>
    __device__ __forceinline__ void store_channels(const Sums& sums, const Mix& mix, Walk walk, int channel, int count,
                                                   uint32_t floor) const {
        constexpr int kAligned = kRun * int(sizeof(Element)) < kAccess ? kRun * int(sizeof(Element)) : kAccess;
        const bool whole = count >= kRun && a.OC % kRun == 0 && reinterpret_cast<uintptr_t>(a.y) % kAligned == 0 &&
                           (!kCodes || reinterpret_cast<uintptr_t>(a.codes) % kRun == 0);
        Element* rows[kRows];
#pragma unroll
        for (int k = 0; k < kRows; ++k) rows[k] = row_of_y(k, channel);
#pragma unroll
        for (int p = 0; p < kRunPixels; ++p, walk.next()) {
            float run[kRows][kRun];
            Codes<kRun> codes[kRows];
#pragma unroll
            for (int m = 0; m < kTiles; ++m) {
                float out[kSets][4];
                mix_tile<kCodes>(out, sums, p, m, mix, floor, [&](int k, int c) { codes[k].set_negative(2 * m + c); });
                Base::spread(run, out, m);
            }
            const int at = pixel_of_y(walk) * int(a.OC);
            if (at < 0) continue;
#pragma unroll
            for (int k = 0; k < kRows; ++k) {
                if (!rows[k]) continue;
                if (whole) {
                    cuda::store(rows[k] + at, run[k]);
                    if constexpr (kCodes) codes[k].store(row_of_codes(k, channel + at));
                    continue;
                }
#pragma unroll
                for (int c = 0; c < kRun; ++c) {
                    if (c >= count) continue;
                    cuda::store<1>(rows[k] + at + c, {run[k][c]});
                    if constexpr (kCodes) *row_of_codes(k, channel + at + c) = codes[k].at(c);
                }
            }
        }
    }
    template <bool kCodes>
    __device__ __forceinline__ void store_pixels(const Sums& sums, const Mix& mix, const Walk& walk, int channel,
                                                 int count, uint32_t floor) const {
        const int first = pixel_of_y(walk), plane = int(a.PH * a.PW);
        const bool whole =
            first >= 0 && walk.column + kRunPixels <= t.conv_w && place.pw + walk.column + kRunPixels <= int(a.PW);
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            float out[kRunPixels][kSets][4];
            Codes<kRunPixels> codes[2 * kRows];
#pragma unroll
            for (int p = 0; p < kRunPixels; ++p)
                mix_tile<kCodes>(out[p], sums, p, m, mix, floor,
                                 [&](int k, int c) { codes[2 * k + c].set_negative(p); });
#pragma unroll
            for (int k = 0; k < 2 * kRows; ++k) {
                const int c = 2 * m + k % 2;
                if (c >= count) continue;
                Element* const to = row_of_y(k / 2, (channel + c) * plane);  // anew: registers are short
                if (!to) continue;
                float run[kRunPixels];
#pragma unroll
                for (int p = 0; p < kRunPixels; ++p) run[p] = out[p][k / 4][k % 2 * 2 + k / 2 % 2];
                uint8_t* const codes_to = kCodes ? row_of_codes(k / 2, (channel + c) * plane) : nullptr;
                if (whole && (!kCodes || reinterpret_cast<uintptr_t>(codes_to + first) % kRunPixels == 0)) {
                    store_run(to + first, run, kRunPixels);
                    if constexpr (kCodes) codes[k].store(codes_to + first);
                    continue;
                }
                Walk each = walk;
#pragma unroll
                for (int p = 0; p < kRunPixels; ++p, each.next()) {
                    const int at = pixel_of_y(each);
                    if (at < 0) continue;
                    cuda::store<1>(to + at, {run[p]});
                    if constexpr (kCodes) codes_to[at] = codes[k].at(p);
                }
            }
        }
    }
};

}  // namespace facemix::cuda
