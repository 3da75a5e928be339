// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): 128 random bits that
// are a function of a counter and a key, so that threads draw in any order and share no state. It passes the tests of
// randomness, and is not cryptographic: whoever sees some of its bits may find the key.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace facemix::cuda {

struct Philox {
    uint32_t word[4];

    __device__ __forceinline__ Philox(const uint32_t (&counter)[4], uint64_t key)
        : word{counter[0], counter[1], counter[2], counter[3]} {
        uint32_t low = uint32_t(key), high = uint32_t(key >> 32);
#pragma unroll
        for (int round = 0; round < 10; ++round) {
            const uint64_t p = uint64_t(0xd2511f53u) * word[0], q = uint64_t(0xcd9e8d57u) * word[2];
            word[0] = uint32_t(q >> 32) ^ word[1] ^ low;
            word[1] = uint32_t(q);
            word[2] = uint32_t(p >> 32) ^ word[3] ^ high;
            word[3] = uint32_t(p);
            low += 0x9e3779b9u;   // the golden ratio
            high += 0xbb67ae85u;  // and the square root of 3, less 1
        }
    }

    // The bits as two words.
    __device__ __forceinline__ uint64_t half(int i) const { return uint64_t(word[2 * i + 1]) << 32 | word[2 * i]; }
};

}  // namespace facemix::cuda
