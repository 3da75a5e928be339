// From the sums of tensor cores to y, which is of x's dtype and not pooled, and whose codes nobody wants.
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
        activate(sums);
        const Mix mix(*this);
        const int channel = block * kChannels + lane / 4 * kRun, count = int(a.OC) - channel;
        const uint32_t floor = least();
        Walk walk(t, first_pixel(pass) + half() * kRunPixels);
        a.channels_last ? store_channels(sums, mix, walk, channel, count, floor)
                        : store_pixels(sums, mix, walk, channel, count, floor);
    }

  protected:
    using Base::a, Base::t, Base::S, Base::lane, Base::place, Base::sent, Base::kChannels, Base::kRun, Base::kTiles;
    using Base::image_of_row, Base::first_pixel;
    using Base::kSets, Base::kRunPixels, Base::kPairWords, Base::kRows, Base::least, Base::activate, Base::half;
    using typename Base::Mix, typename Base::Values, typename Base::M, typename Base::Walk, typename Base::Element;

  private:
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
                if (c >= count) continue;
                Element* const to = row_of_y(k / 2, (channel + c) * plane);  // anew: registers are short
                if (!to) continue;
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
};

}  // namespace facemix::cuda
