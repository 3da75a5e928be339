// What conv_mix's fast way multiplies: words of operands for tensor cores, which mix as well, and plain float32 where
// it must stay float32.
//
// The weights are the left matrix and the pixels the right one: a lane's two words of the right one are then the unit
// that it reads, and the order of K is ours to choose, as long as both agree. Lane 4 * g + t has rows g and g + 8 of
// the weights, and columns 2t and 2t + 1 of the sums (mma.h).
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "conv_mix_tile.h"
#include "mma.h"

namespace facemix::cuda {

// Two values in the 16 bits of M.
template <class M>
__device__ __forceinline__ uint32_t pair_of(float low, float high) {
    uint32_t word;
    if constexpr (std::is_same_v<M, __nv_bfloat16>) {
        const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
        memcpy(&word, &both, sizeof word);
    } else {
        const __half2 both = __floats2half2_rn(low, high);
        memcpy(&word, &both, sizeof word);
    }
    return word;
}

// A coefficient in two parts that M holds: what it has of it, rounded towards zero, and then what is left. Neither is
// zero or of another sign unless the coefficient is, so that the product of an infinite value is infinite.
template <class M>
__device__ __forceinline__ float leading(float c) {
    constexpr uint32_t kept = std::is_same_v<M, __nv_bfloat16> ? 0xffff0000u : 0xffffe000u;  // 8 or 11 digits
    uint32_t bits;
    memcpy(&bits, &c, sizeof bits);
    bits &= kept;
    memcpy(&c, &bits, sizeof c);
    return c;
}
template <class M>
__device__ __forceinline__ float remaining(float c) {
    constexpr float least = std::is_same_v<M, __half> ? 6e-8f : 1e-30f;  // of what M holds, or near it
    return c == 0 ? 0 : copysignf(fmaxf(fabsf(c - leading<M>(c)), least), c);
}

// M: bfloat16, float16 or Tf32. The lanes of a column read the four units of a step.
//
// Columns are images. So the sums of a column of 8, which are those of 16 output channels, are as they lie the left
// matrix of another product: by the key, transposed. They are rounded to M for it, as the result of a convolution of
// PyTorch is; the key is not: what M does not hold of it is multiplied as well.
template <class M>
struct TensorProduct {
    using Operand = M;
    static constexpr bool kTf32 = std::is_same_v<M, Tf32>;
    using Element = std::conditional_t<kTf32, float, M>;
    static constexpr int kStepUnits = 4;
    static constexpr int kPairWords = kTf32 ? 2 : 1;  // of the values of two images

    static __device__ __forceinline__ uint32_t word(const Element (&elements)[kWordBytes / sizeof(Element)]) {
        if constexpr (kTf32) return to_tf32(elements[0]);
        uint32_t word;
        memcpy(&word, elements, sizeof word);
        return word;
    }

    // The values of two images.
    static __device__ __forceinline__ void pack(uint32_t (&words)[kPairWords], float even, float odd) {
        if constexpr (kTf32) words[0] = to_tf32(even), words[1] = to_tf32(odd);
        else words[0] = pair_of<M>(even, odd);
    }
    static __device__ __forceinline__ float2 unpack(const uint32_t (&words)[kPairWords]) {
        float2 values;
        if constexpr (kTf32) {
            memcpy(&values, words, sizeof values);
        } else {
            M both[2];
            memcpy(both, words, sizeof both);
            values = {float(both[0]), float(both[1])};
        }
        return values;
    }
    // A value of the two in the upper bits of a word, as a float has it; kInfinity is the largest that is a number.
    static constexpr uint32_t kInfinity = std::is_same_v<M, __half> ? 0x7c000000u : 0x7f800000u;
    static __device__ __forceinline__ uint32_t upper(const uint32_t (&words)[kPairWords], int odd) {
        if constexpr (kTf32) return words[odd] & 0xffffe000u;
        else return odd ? words[0] & 0xffff0000u : words[0] << 16;
    }
    static __device__ __forceinline__ void pack_upper(uint32_t (&words)[kPairWords], uint32_t even, uint32_t odd) {
        if constexpr (kTf32) words[0] = even, words[1] = odd;
        else words[0] = even >> 16 | odd;
    }
    // The same value for all that a word holds.
    static __device__ __forceinline__ uint32_t all(float value) {
        uint32_t words[kPairWords];
        pack(words, value, value);
        return words[0];
    }

    // --- the mix: `kSets` columns of 8 images --------------------------------------------------------------------

    // Of the right matrix, the key, for each column of results and each step of K.
    template <int kSets>
    static constexpr int kSteps = kTf32 ? 2 * kSets : kSets;
    template <int kSets>
    using KeyWords = uint32_t[kSets][kSteps<kSets>][2];

    // Word k of the key as it lies in shared memory: [column][step][word][lane]. Of 4 images it is there four times.
    template <int kImages, class F>
    static __device__ __forceinline__ uint32_t key_word(int k, F&& coefficient) {
        constexpr int kSets = kImages > 8 ? 2 : 1;
        const int lane = k % kWarp, word = k / kWarp % 2, step = k / kWarp / 2 % kSteps<kSets>;
        const int column = k / kWarp / 2 / kSteps<kSets>;
        // A step is one part of the key, or both of 8 images in 16 bits; a word two images, or one of TF32.
        const bool rest = (kTf32 || kSets == 2 ? step : word) % 2;
        const int set = kTf32 ? step / 2 : kSets == 2 ? word : 0;
        const auto part = [&](int odd) {
            const float c = coefficient((column * 8 + lane / 4) % kImages, (set * 8 + lane % 4 * 2 + odd) % kImages);
            return rest ? remaining<M>(c) : leading<M>(c);
        };
        if constexpr (kTf32) return to_tf32(part(word));
        else return pair_of<M>(part(0), part(1));
    }
    template <int kSets>
    static __device__ __forceinline__ void read_key(KeyWords<kSets>& words, const uint32_t* key, int lane) {
#pragma unroll
        for (int k = 0; k < kSets * kSteps<kSets> * 2; ++k)
            words[k / 2 / kSteps<kSets>][k / 2 % kSteps<kSets>][k % 2] = key[k * kWarp + lane];
    }

    // z: of each column of 8 the values of channels g and g + 8, of images 2t and 2t + 1; out: of rows 2t and 2t + 1 as
    // mma's d.
    template <int kSets>
    static __device__ __forceinline__ void mix(float (&out)[kSets][4], const uint32_t (&z)[kSets][2][kPairWords],
                                               const KeyWords<kSets>& key) {
#pragma unroll
        for (int n = 0; n < kSets; ++n) {
#pragma unroll
            for (float& sum : out[n]) sum = 0;
#pragma unroll
            for (int k = 0; k < kSteps<kSets>; ++k) {
                // Of 16 bits, a step of K holds two columns of images, or one twice, for both parts of the key.
                const auto &first = z[kTf32 ? k / 2 : 0], &second = z[kSets - 1];
                const uint32_t left[4] = {first[0][0], first[1][0], kTf32 ? first[0][kPairWords - 1] : second[0][0],
                                          kTf32 ? first[1][kPairWords - 1] : second[1][0]};
                mma<M>(out[n], left, key[n][k]);
            }
        }
    }
};

// A lane reads both columns that it has the sums of; all read the one unit of a step.
struct FloatProduct {
    using Element = float;
    static constexpr int kStepUnits = 1;

    // The key as it lies in shared memory: [kImages][kImages].
    template <int kImages, class F>
    static __device__ __forceinline__ uint32_t key_word(int k, F&& coefficient) {
        return word({coefficient(k / kImages, k % kImages)});
    }
    static __device__ __forceinline__ uint32_t word(const float (&elements)[1]) {
        uint32_t word;
        memcpy(&word, elements, sizeof word);
        return word;
    }
};

}  // namespace facemix::cuda
