// The CUDA kernels, compiled for the host, as one more row in the table of the tests.
#include "../cpp/support.h"
#include "cuda/launch.h"

namespace test {

CpuKernels cuda_kernels() {
    CpuKernels kernels{};
    kernels.capability = "cuda_on_host";
    kernels.group_mix = [](const facemix::GroupMixArgs& a) { facemix::cuda::group_mix(a, 0, nullptr); };
    return kernels;
}

}  // namespace test
