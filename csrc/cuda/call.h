// What the host side of every CUDA op shares: checked calls, the device of a call, and the launch itself. Kernels are
// launched by a function and not by <<<>>>, so that tests/cuda can run the same sources on the host.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace facemix::cuda {

// Throws std::runtime_error that names the op.
inline void check(const char* op, cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(std::string(op) + ": CUDA: " + cudaGetErrorString(error));
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

// shared: bytes of dynamic shared memory a block.
template <class... Parameters, class... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            Arguments... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block;
    config.dynamicSmemBytes = shared, config.stream = stream;
    if (shared > kSharedBytes)
        check(op, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
    check(op, cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace facemix::cuda

// Dynamic shared memory of a block; each kernel lays it out itself.
extern __shared__ __align__(16) unsigned char dynamic_shared[];
