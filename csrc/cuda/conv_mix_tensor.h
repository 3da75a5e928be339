// conv_mix's fast way on tensor cores: implicit GEMM, and the mix as a second product of what the first one left in
// registers (conv_mix_product.h).
//
// A warp convolves a strip of pixels of all images. The columns of a product are images, its rows 16 output channels;
// of 4 images, two pixels share the columns. From there to y: conv_mix_store.h, conv_mix_pool.h, conv_mix_windows.h. It
// compiles; it has not run on a GPU yet.
#pragma once

#include "conv_mix_stage.h"
#include "window.h"

namespace facemix::cuda {

template <class Product, int kImages, Way kWay>
class ConvMixTensor : public ConvMixStage<Product, kImages, kWay> {
  public:
    using Base = ConvMixStage<Product, kImages, kWay>;
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
        // Where the windows of the pixels begin, those of one image, two or half a one in each column. Steps without a
        // counter, whose places are part of the instruction, are shorter; TF32 has too many of them.
        if constexpr (Base::kWalks) {
            const int first = (strip() * kShare + column / kImages) * 2 * Base::kResults;
            const unsigned char* const start = patch + window_place(t, pass, first) * kPlaceBytes;
            if constexpr (kWord == 2) {
                if (is_of<k7x7>() && t.right == kRight7x7)
                    return multiply<k7x7>(sums, w, places, Beside<kRight7x7>{start});
                if (is_of<k3x3>() && t.right == kRight3x3)
                    return multiply<k3x3>(sums, w, places, Beside<kRight3x3>{start});
            }
            multiply_steps(sums, w, places, AnyBeside{start, t.right * kPlaceBytes});
        } else {
            Pixels start;
            Walk walk(t, first_pixel(pass) + column / kImages * kRunPixels);
#pragma unroll
            for (int p = 0; p < kRunPixels; ++p, walk.next())
                start[p] = patch + (walk.real() ? window_place(t, walk.row, walk.column) : 0) * kPlaceBytes;
            if constexpr (kWord == 2) {
                if (is_of<k7x7>()) return multiply<k7x7>(sums, w, places, start);
                if (is_of<k3x3>()) return multiply<k3x3>(sums, w, places, start);
                if (is_of<kWide3x3>()) return multiply<kWide3x3>(sums, w, places, start);
            }
            multiply_steps(sums, w, places, start);
        }
    }

  protected:
    using Base::a, Base::t, Base::S, Base::lane, Base::warp, Base::pitch, Base::place;
    using Base::kChannels, Base::kKind, Base::kRun, Base::kSlots, Base::kStrip, Base::kWord;

    using Element = typename Product::Element;
    using M = typename Product::Operand;
    static constexpr int kSets = Base::kKind.sets();        // columns that a group takes
    static constexpr int kShare = kImages < 8 ? 2 : 1;      // pixels that share a column
    static constexpr int kRunPixels = kColumns / kSets;     // neighbours that a lane has
    static constexpr int kPairWords = Product::kPairWords;  // of the values of two images
    static constexpr int kRows = 2 * kSets;                 // rows of y of a lane
    static constexpr Steps k7x7 = kKind.steps_7x7(), k3x3 = kKind.steps_3x3(), kWide3x3 = kKind.steps_wide_3x3();
    // Where the windows of a lane's pixels begin in the patch: anywhere, or so many places, or bytes, apart.
    using Pixels = const unsigned char* [kRunPixels];
    template <int kRight>
    struct Beside {
        const unsigned char* first;
        __device__ __forceinline__ const unsigned char* operator[](int p) const {
            return first + p * kRight * kPlaceBytes;
        }
    };
    struct AnyBeside {
        const unsigned char* first;
        int step;
        __device__ __forceinline__ const unsigned char* operator[](int p) const { return first + p * step; }
    };
    using Values = uint32_t[kSets][2][kPairWords];  // of rows g and g + 8
    static_assert(kRunPixels * kShare == kStrip);
    static_assert(sizeof(typename Product::template KeyWords<kSets>) * kWarp == Base::kKeyWords * kWordBytes);

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
    // Of a walking block: which strip of columns this warp has, and which of the blocks of output channels.
    __device__ __forceinline__ int strip() const { return warp / kWalkBlocks; }
    __device__ __forceinline__ int block_of_warp() const { return place.block + warp % kWalkBlocks; }
    // Which of the pixels that share a column this lane has sums of, and its images: 2 * pair() and the next.
    __device__ __forceinline__ int half() const { return kShare == 1 ? 0 : lane % 4 / 2; }
    __device__ __forceinline__ int pair() const { return kShare == 1 ? lane % 4 : lane % 2; }
    __device__ __forceinline__ int pixel_of(int pass, int n) const {
        return first_pixel(pass) + half() * kRunPixels + n / kSets;
    }

  private:
    // --- the convolution ---------------------------------------------------------------------------------------------

    // What a step's units may be: of which all counts; of which not, so that they have no weight there, but x may not
    // be finite; and such whose words are apart.
    enum class Step { whole, part, split };
    template <Step kStep>
    using Kind = std::integral_constant<Step, kStep>;

    template <Steps kSteps>
    __device__ __forceinline__ bool is_of() const {
        return t.steps.all == kSteps.all && t.steps.whole == kSteps.whole && t.steps.joined == kSteps.joined;
    }
    template <class Start>
    __device__ __forceinline__ void multiply_steps(Sums& sums, const uint4* w, const int* places,
                                                   const Start& start) const {
        int step = 0;
        const auto multiply_to = [&](auto kind, int end) {
#pragma unroll 1
            for (; step < end; ++step, w += kTiles * kSlots, places += Product::kStepUnits)
                multiply_step<decltype(kind)::value>(sums, w, *places, start);
        };
        multiply_to(Kind<Step::whole>{}, t.steps.whole);
        multiply_to(Kind<Step::part>{}, t.steps.joined);
        if constexpr (Base::kTails) multiply_to(Kind<Step::split>{}, t.steps.all);
    }
    template <Steps kSteps, class Start>
    __device__ __forceinline__ void multiply(Sums& sums, const uint4* w, const int* places, const Start& start) const {
        const auto multiply_one = [&](auto kind, int step) {
            multiply_step<decltype(kind)::value>(sums, w + step * kTiles * kSlots, places[step * Product::kStepUnits],
                                                 start);
        };
        [[maybe_unused]] constexpr int kUnroll = kSteps.whole > 16 ? 8 : kSteps.whole;  // more, and registers spill
#pragma unroll kUnroll
        for (int step = 0; step < kSteps.whole; ++step) multiply_one(Kind<Step::whole>{}, step);
#pragma unroll
        for (int step = kSteps.whole; step < kSteps.joined; ++step) multiply_one(Kind<Step::part>{}, step);
#pragma unroll
        for (int step = kSteps.joined; step < kSteps.all; ++step) multiply_one(Kind<Step::split>{}, step);
    }

    template <Step kStep, class Start>
    __device__ __forceinline__ void multiply_step(Sums& sums, const uint4* w, int unit, const Start& start) const {
        const int place = kStep == Step::whole ? unit : unit & -kPlaceBytes;
        [[maybe_unused]] const int second = place + (unit & kSplit ? kPlaceBytes : kWordBytes);
        uint32_t slots[kTiles][4];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
            const uint4 both = w[m * kSlots];
            slots[m][0] = both.x, slots[m][1] = both.y, slots[m][2] = both.z, slots[m][3] = both.w;
        }
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
            const unsigned char* const from = start[n / kSets] + n % kSets * 8 / kTogether * pitch * kPlaceBytes;
            uint32_t pixels[kUnitWords];
            if constexpr (kStep == Step::split) {
                pixels[0] = *reinterpret_cast<const uint32_t*>(from + place);
                pixels[1] = *reinterpret_cast<const uint32_t*>(from + second);
            } else {
                const uint2 words = *reinterpret_cast<const uint2*>(from + place);
                pixels[0] = words.x, pixels[1] = words.y;
            }
            if constexpr (kStep != Step::whole)
#pragma unroll
                for (int i = 0; i < kUnitWords; ++i)
                    pixels[i] &= (unit >> 2 * i & 1 ? 0 : 0xffffu) | (unit >> 2 * i & 2 ? 0 : 0xffff0000u);
#pragma unroll
            for (int m = 0; m < kTiles; ++m) mma<M>(sums[n][m], slots[m], pixels);
        }
    }

  protected:
    // --- activation --------------------------------------------------------------------------------------------------

    static __device__ __forceinline__ uint32_t lowest() { return Product::all(-__builtin_huge_valf()); }
    // That of an activated value: a maximum with it is ReLU, or nothing.
    __device__ __forceinline__ uint32_t least() const { return a.activation == Activation::relu ? 0 : lowest(); }

    // But for ReLU, which costs less when values have become words.
    __device__ __forceinline__ void activate(Sums& sums) const {
        if (a.activation != Activation::leaky) return;
        const float slope = negative_slope<float>(a);
#pragma unroll
        for (int k = 0; k < kColumns * kTiles * 4; ++k) {
            float& z = sums[k / (4 * kTiles)][k / 4 % kTiles][k % 4];
            z = z < 0 ? slope * z : z;
        }
    }

    // --- values that say where they come from
    // -------------------------------------------------------------------------

    // As integers such words are ordered as their values, and of equal ones those that come earlier in any window are
    // larger: below the value, twice a place that falls along the window, and whether it was negative. So of several
    // NaNs the first one wins, where PyTorch has the last.
    static constexpr uint32_t kBelow = 255, kLeast = 1u << 31;
    static __device__ __forceinline__ uint32_t ordered(uint32_t value) {
        return int(value) < 0 ? kLeast - value : value;
    }
    static __device__ __forceinline__ uint32_t larger(uint32_t x, uint32_t y) { return int(x) > int(y) ? x : y; }
    static __device__ __forceinline__ int place_of_word(uint32_t word) { return int((word & kBelow) >> 1); }
    // The values of two images, of any sign; they are not activated yet.
    __device__ __forceinline__ void signed_words(uint32_t (&words)[2], float2 z, int place, float slope) const {
        float active[2] = {cuda::activate(z.x, slope), cuda::activate(z.y, slope)};
        uint32_t pair[kPairWords];
        Product::pack(pair, active[0], active[1]);
#pragma unroll
        for (int e = 0; e < 2; ++e) words[e] = ordered(Product::upper(pair, e)) | (2 * place + ((e ? z.y : z.x) < 0));
    }
    // And such that are activated, and neither negative nor -0.
    static __device__ __forceinline__ void words(uint32_t (&words)[2], const uint32_t (&pair)[kPairWords], int place) {
#pragma unroll
        for (int e = 0; e < 2; ++e) words[e] = Product::upper(pair, e) | 2 * place;
    }
    static __device__ __forceinline__ void values_of_words(uint32_t (&pair)[kPairWords], uint32_t even, uint32_t odd) {
        Product::pack_upper(pair, ordered(even & ~kBelow), ordered(odd & ~kBelow));
    }
    // Of the k-th element of its window.
    static __device__ __forceinline__ int code_of_word(uint32_t word, int k) {
        const bool positive = (word & ~kBelow) - 1 < Product::kInfinity && !(word & 1);
        return positive ? k : k + kCodeNegative;
    }

    // --- the mix -----------------------------------------------------------------------------------------------------

    // Which image of the group, or row of its mix, is the k-th of this lane.
    __device__ __forceinline__ int image_of_row(int k) const { return k / 2 * 8 + pair() * 2 + k % 2; }
    // The codes of image i, from the first on.
    __device__ __forceinline__ uint8_t* codes_of(int i) const {
        return a.codes + (int64_t(place.group) * S + i) * this->image_size;
    }
    // What the mix of channel tile m has made, to the rows of y that are this lane's.
    static __device__ __forceinline__ void spread(float (&rows)[kRows][kRun], const float (&out)[kSets][4], int m) {
#pragma unroll
        for (int k = 0; k < 2 * kRows; ++k) rows[k / 2][2 * m + k % 2] = out[k / 4][k % 2 * 2 + k / 2 % 2];
    }

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
};

}  // namespace facemix::cuda
