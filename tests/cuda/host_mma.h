// csrc/cuda/mma.h for the host: the lanes of a warp meet, and the last to come computes for all.
#pragma once

#include <bit>
#include <cstring>
#include <type_traits>

namespace facemix::cuda {

// Element `half` of a word of A or B.
template <class E>
double element(uint32_t word, int half) {
    if constexpr (std::is_same_v<E, Tf32>) return std::bit_cast<float>(word & ~0x1fffu);
    else return double(float(std::bit_cast<E>(uint16_t(word >> 16 * half))));
}

template <class E>
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct Operands {
        float* d;
        const uint32_t *a, *b;
    } mine{d, a, b};
    emulation::meet(
        [](void* const(&lanes)[emulation::kWarp]) {
            constexpr bool tf32 = std::is_same_v<E, Tf32>;
            constexpr int K = tf32 ? 8 : 16, kWide = tf32 ? 1 : 2;  // elements of a word
            double A[16][K], B[K][8];
            for (int lane = 0; lane < emulation::kWarp; ++lane) {
                const auto& of = *static_cast<Operands*>(lanes[lane]);
                const int g = lane / 4, t = lane % 4;
                for (int half = 0; half < kWide; ++half) {
                    for (int r = 0; r < 4; ++r)
                        A[g + r % 2 * 8][t * kWide + r / 2 * 4 * kWide + half] = element<E>(of.a[r], half);
                    for (int r = 0; r < 2; ++r) B[t * kWide + r * 4 * kWide + half][g] = element<E>(of.b[r], half);
                }
            }
            for (int lane = 0; lane < emulation::kWarp; ++lane)
                for (int r = 0; r < 4; ++r) {
                    float& to = static_cast<Operands*>(lanes[lane])->d[r];
                    double sum = to;
                    for (int k = 0; k < K; ++k) sum += A[lane / 4 + r / 2 * 8][k] * B[k][lane % 4 * 2 + r % 2];
                    to = float(sum);
                }
        },
        &mine);
}

inline uint32_t to_tf32(float value) {
    const uint32_t word = std::bit_cast<uint32_t>(value);
    return (word & 0x7f800000u) == 0x7f800000u ? word : (word + 0x1000u) & ~0x1fffu;
}

inline float max_nan(float a, float b) { return a > b || a != a ? a : b; }
template <class E>
uint32_t max_nan_words(uint32_t a, uint32_t b) {
    if constexpr (std::is_same_v<E, Tf32>) {
        return std::bit_cast<uint32_t>(max_nan(std::bit_cast<float>(a), std::bit_cast<float>(b)));
    } else {
        const auto larger = [&](int half) {
            const uint16_t x = uint16_t(a >> 16 * half), y = uint16_t(b >> 16 * half);
            const float left = float(std::bit_cast<E>(x)), right = float(std::bit_cast<E>(y));
            return uint32_t(left > right || left != left ? x : y) << 16 * half;
        };
        return larger(0) | larger(1);
    }
}

inline int fresh(int value) { return value; }

template <int kBytes>
void cp_async(void* shared, const void* global, bool real) {
    static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
    emulation::copy_async(shared, real ? global : nullptr, kBytes);
}
inline void cp_async_commit() { emulation::commit_copies(); }
template <int kGroups>
void cp_async_wait() {
    emulation::wait_for_copies(kGroups);
}

}  // namespace facemix::cuda
