// The table of one instruction set's kernels; compiled once for each of them.
#include "../kernels.h"

#define FACEMIX_STRING_(x) #x
#define FACEMIX_STRING(x) FACEMIX_STRING_(x)

namespace facemix::FACEMIX_ISA {

void conv_mix(const ConvMixArgs&);
void act_mix(const ActMixArgs&);
void act_mix_jvp(const ActMixLinearArgs&);
void act_mix_vjp(const ActMixLinearArgs&);
void group_mix(const GroupMixArgs&);
void unmix_linear(const UnmixLinearArgs&);

// Asks for every feature that CMakeLists.txt compiles this instruction set with.
static bool supported() {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
    return true;
#endif
}

extern const CpuKernels kernels;
const CpuKernels kernels = {
    FACEMIX_STRING(FACEMIX_ISA), supported, conv_mix, act_mix, act_mix_jvp, act_mix_vjp, group_mix, unmix_linear,
};

}  // namespace facemix::FACEMIX_ISA
