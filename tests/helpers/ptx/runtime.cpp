// As much of CUDA's runtime as the kernels' host code asks for, where there is no GPU: what it launches goes to a
// function that Python sets. Linked into the extension instead of the runtime itself (CMakeLists.txt).
#include <cuda_runtime.h>

#include <cstdint>
#include <map>
#include <string>

namespace {

// Returns what went wrong, or null. arguments: where each parameter is.
using Launcher = const char* (*)(const char* kernel, const unsigned* grid, const unsigned* block, size_t shared,
                                 void* const* arguments);
Launcher launcher = nullptr;
std::string failure;

std::map<const void*, std::string>& names() {
    static std::map<const void*, std::string> of_stubs;
    return of_stubs;
}

cudaError_t run(const void* stub, dim3 grid, dim3 block, size_t shared, void* const* arguments) {
    const unsigned blocks[3] = {grid.x, grid.y, grid.z}, threads[3] = {block.x, block.y, block.z};
    const char* wrong =
        launcher ? launcher(names()[stub].c_str(), blocks, threads, shared, arguments) : "set_launcher was not called";
    if (!wrong) return cudaSuccess;
    failure = wrong;
    return cudaErrorLaunchFailure;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void set_launcher(Launcher to) { launcher = to; }

// What the compiler registers when the extension is loaded, and calls in a kernel's stub.
void** __cudaRegisterFatBinary(void*) {
    static void* handle = nullptr;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
    names()[stub] = name;
}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorNotSupported; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub, void** arguments) {
    return run(stub, config->gridDim, config->blockDim, config->dynamicSmemBytes, arguments);
}
cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
// One block at once: it takes all tiles, one after the other.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
    *blocks = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = 1; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; return cudaSuccess;
        default: return cudaErrorInvalidValue;
    }
}
const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorLaunchFailure ? failure.c_str() : "refused by the stand-in for CUDA's runtime";
}

}  // extern "C"
