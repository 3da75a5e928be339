// The CUDA kernels, compiled for the host, as one more row in the table of the tests.
#include <cuda_runtime.h>

#include "../cpp/support.h"
#include "cuda/launch.h"

namespace test {

CpuKernels cuda_kernels() {
    CpuKernels kernels{};
    kernels.capability = "cuda_on_host";
    kernels.act_mix = [](const facemix::ActMixArgs& a) { facemix::cuda::act_mix(a, 0, nullptr); };
    kernels.act_mix_jvp = [](const facemix::ActMixLinearArgs& a) { facemix::cuda::act_mix_jvp(a, 0, nullptr); };
    kernels.act_mix_vjp = [](const facemix::ActMixLinearArgs& a) { facemix::cuda::act_mix_vjp(a, 0, nullptr); };
    kernels.conv_mix = [](const facemix::ConvMixArgs& a) {
        const emulation::AnotherDevice here;
        facemix::cuda::conv_mix(a, 0, nullptr);
    };
    kernels.group_mix = [](const facemix::GroupMixArgs& a) { facemix::cuda::group_mix(a, 0, nullptr); };
    kernels.unmix_linear = [](const facemix::UnmixLinearArgs& a) { facemix::cuda::unmix_linear(a, 0, nullptr); };
    return kernels;
}

}  // namespace test
