// A stand-in for CUDA's header, found instead of it when the tests compile the .cu files for the host: "device" memory
// is memory, a stream is nothing, and a launch runs the blocks one after the other, their threads as fibres.
//
// What it can show: wrong indices (AddressSanitizer sees them), a missing __syncthreads (threads run in a random
// order, shared memory begins as NaN), threads that wait for others that are gone, copies that are not waited for or
// go where others still read (half of them are made when they are waited for, half at once). What it cannot: time,
// occupancy, whether accesses coalesce, and the rules of memory between blocks.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numbers>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
void __syncthreads();

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
// As on a device, words may stand for elements of another type.
struct __attribute__((aligned(8), may_alias)) uint2 {
    unsigned x, y;
};
struct __attribute__((aligned(16), may_alias)) uint4 {
    unsigned x, y, z, w;
};

template <class T>
void __stcg(T* to, T value) {
    *to = value;
}

// To nearest, ties to even; what is too large saturates, NaN is 0.
inline int __float2int_rn(float x) {
    return std::isnan(x) ? 0 : x >= 0x1p31f ? INT32_MAX : x < -0x1p31f ? INT32_MIN : int(std::nearbyint(x));
}

inline void sincospi(double x, double* s, double* c) {
    *s = std::sin(std::numbers::pi * x), *c = std::cos(std::numbers::pi * x);
}

using cudaStream_t = void*;
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209
};
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads, size_t shared);

namespace emulation {

constexpr size_t kSharedBytes = 48 << 10;      // what a launch may ask for without cudaFuncSetAttribute
constexpr size_t kMaxSharedBytes = 227 << 10;  // and with it, on sm_90
// While it lives the device is one that may have less of it, as sm_80 and sm_86 do, or has so many multiprocessors.
struct AnotherDevice {
    AnotherDevice();
    explicit AnotherDevice(int multiprocessors);
    ~AnotherDevice();
};
cudaError_t run(const void* kernel, const cudaLaunchConfig_t& config, const std::function<void()>& thread);

// All threads of a warp meet, each with its operands; the last to come acts on those of all lanes.
constexpr int kWarp = 32;
using Act = void (*)(void* const (&lanes)[kWarp]);
void meet(Act act, void* operands);

// Of the thread that calls: a copy to shared memory, zeros if there is nothing to copy from, that is made at once or
// when it is waited for.
void copy_async(void* to, const void* from, size_t bytes);
void commit_copies();
void wait_for_copies(size_t groups_left);

}  // namespace emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    return emulation::run(reinterpret_cast<const void*>(kernel), *config, [&] { kernel(arguments...); });
}

// All lanes take part: the mask has no other use here.
inline void __syncwarp() {
    emulation::meet([](void* const(&)[emulation::kWarp]) {}, nullptr);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int distance) {
    struct Operands {
        T value, result;
        int distance;
    } mine{value, value, distance};
    emulation::meet(
        [](void* const(&lanes)[emulation::kWarp]) {
            for (int lane = 0; lane < emulation::kWarp; ++lane) {
                auto& of = *static_cast<Operands*>(lanes[lane]);
                of.result = static_cast<Operands*>(lanes[lane ^ of.distance])->value;
            }
        },
        &mine);
    return mine.result;
}
