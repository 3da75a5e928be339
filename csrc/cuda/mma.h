// Instructions that C++ has no words for: tensor cores, and copies to shared memory that run beside the warp. They are
// PTX here; tests/cuda has them for the host.
//
// D[16][8] += A[16][K] * B[K][8], where lane 4 * g + t holds, first index first,
//     d   D[g][2t], D[g][2t + 1], D[g + 8][2t], D[g + 8][2t + 1]
//     a   K = 16, two 16-bit elements a word, from column 2t on:  A[g][2t], A[g + 8][2t], A[g][2t + 8], A[g + 8][2t +
//     8]
//         K = 8, one TF32 element a word:                         A[g][t],  A[g + 8][t],  A[g][t + 4],  A[g + 8][t + 4]
//     b   K = 16: B[2t][g], B[2t + 8][g], each with the row below;   K = 8: B[t][g], B[t + 4][g]
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace facemix::cuda {

constexpr int kWarp = 32;
struct Tf32 {};  // a float whose last 13 bits do not count

}  // namespace facemix::cuda

#ifdef __CUDACC__
namespace facemix::cuda {

template <class E>
__device__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#define FACEMIX_MMA(Type, shape, type)                                                                         \
    template <>                                                                                                \
    __device__ __forceinline__ void mma<Type>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { \
        asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type                                   \
                     ".f32 "                                                                                   \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                         \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                          \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                      \
    }
FACEMIX_MMA(__nv_bfloat16, "m16n8k16", "bf16")
FACEMIX_MMA(__half, "m16n8k16", "f16")
FACEMIX_MMA(Tf32, "m16n8k8", "tf32")
#undef FACEMIX_MMA

// To the nearest, ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float value) {
    uint32_t word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(value));
    return word;
}

// The larger one, NaN if one is.
__device__ __forceinline__ float max_nan(float a, float b) {
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
    return larger;
}

// The same of words: of two 16-bit elements, or of a float.
template <class E>
__device__ uint32_t max_nan_words(uint32_t a, uint32_t b);
#define FACEMIX_MAX_NAN(Type, type)                                                   \
    template <>                                                                       \
    __device__ __forceinline__ uint32_t max_nan_words<Type>(uint32_t a, uint32_t b) { \
        uint32_t larger;                                                              \
        asm("max.NaN." type " %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));          \
        return larger;                                                                \
    }
FACEMIX_MAX_NAN(__nv_bfloat16, "bf16x2")
FACEMIX_MAX_NAN(__half, "f16x2")
#undef FACEMIX_MAX_NAN
template <>
__device__ __forceinline__ uint32_t max_nan_words<Tf32>(uint32_t a, uint32_t b) {
    return __float_as_uint(max_nan(__uint_as_float(a), __uint_as_float(b)));
}

// The value, as if nothing were known of it: what follows from it is computed where it is used, not ahead of a loop
// into registers that others need.
__device__ __forceinline__ int fresh(int value) {
    asm volatile("" : "+r"(value));
    return value;
}

// Copies kBytes (4, 8 or 16, both sides aligned to as many) to shared memory, or zeros without reading where `real` is
// false. They are there for this thread after cp_async_wait, for others after a barrier behind it.
template <int kBytes>
__device__ __forceinline__ void cp_async(void* shared, const void* global, bool real) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(unsigned(__cvta_generic_to_shared(shared))),
                 "l"(global), "n"(kBytes), "r"(real ? kBytes : 0)
                 : "memory");
}
// Ends a group of copies.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until no more than the last kGroups groups are under way.
template <int kGroups>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

}  // namespace facemix::cuda
#else
#include <host_mma.h>
#endif
