// A stand-in for CUDA's header, found instead of it when the tests compile the .cu files for the host: "device" memory
// is memory, a stream is nothing, and a launch runs the blocks one after the other, their threads as fibres.
//
// What it can show: wrong indices (AddressSanitizer sees them), a missing __syncthreads (threads run in a random
// order, shared memory begins as NaN), threads that wait for others that are gone. What it cannot: time, occupancy,
// whether accesses coalesce, and the rules of memory between blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#define __global__
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
void __syncthreads();

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidDevice = 101 };
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

namespace emulation {
constexpr size_t kSharedBytes = 48 << 10;  // what a launch may ask for without cudaFuncSetAttribute
cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& thread);
}  // namespace emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    return emulation::run(*config, [&] { kernel(arguments...); });
}
