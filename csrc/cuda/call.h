// What the host side of every CUDA op shares: checked calls, the device of a call, and the launch itself. Kernels are
// launched by a function and not by <<<>>>, so that tests/cuda can run the same sources on the host.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace facemix::cuda {

// Throws std::runtime_error that names the op.
inline void check(const char* op, cudaError_t error) {
    if (error == cudaSuccess) return;
    // Of a device older than the kernels, or a driver older than the runtime.
    const bool old = error == cudaErrorNoKernelImageForDevice || error == cudaErrorInsufficientDriver;
    throw std::runtime_error(std::string(op) + ": CUDA: " + cudaGetErrorString(error) +
                             (old ? "; FACEMIX_BACKEND=triton runs on kernels compiled where they are needed" : ""));
}

// The device of the call, for as long as the object lives; the caller's own comes back whatever happens.
class OnDevice {
  public:
    OnDevice(const char* op, int device) {
        check(op, cudaGetDevice(&before_));
        check(op, cudaSetDevice(device));
    }
    ~OnDevice() { (void)cudaSetDevice(before_); }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    int before_ = 0;
};

constexpr size_t kSharedBytes = 48 << 10;  // of a block, unless the kernel has been allowed more

inline int device_attribute(const char* op, cudaDeviceAttr attribute, int device) {
    int value = 0;
    check(op, cudaDeviceGetAttribute(&value, attribute, device));
    return value;
}

// All that the current device has: the limit is the kernel's, for every thread and graph that launches it, so that one
// call may not lower what another has just allowed.
template <class... Parameters>
void allow_shared(const char* op, void (*kernel)(Parameters...), size_t shared) {
    if (shared <= kSharedBytes) return;
    int device = 0;
    check(op, cudaGetDevice(&device));
    check(op, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   device_attribute(op, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)));
}

// shared: bytes of dynamic shared memory a block.
template <class... Parameters, class... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            Arguments... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block;
    config.dynamicSmemBytes = shared, config.stream = stream;
    allow_shared(op, kernel, shared);
    check(op, cudaLaunchKernelEx(&config, kernel, arguments...));
}

// As many blocks of the kernel as the device runs at once.
template <class... Parameters>
int blocks_at_once(const char* op, void (*kernel)(Parameters...), int threads, size_t shared, int device) {
    int blocks = 0;
    allow_shared(op, kernel, shared);
    check(op, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, reinterpret_cast<const void*>(kernel), threads,
                                                            shared));
    return blocks * device_attribute(op, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace facemix::cuda

// Dynamic shared memory of a block; each kernel lays it out itself.
extern __shared__ __align__(16) unsigned char dynamic_shared[];
