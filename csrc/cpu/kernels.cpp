// The table of one instruction set's kernels; compiled once for each of them.
#include "../kernels.h"

#if defined(__AVX2__)
#include <cpuid.h>
#endif

#define FACEMIX_STRING_(x) #x
#define FACEMIX_STRING(x) FACEMIX_STRING_(x)

namespace facemix::FACEMIX_ISA {

void conv_mix(const ConvMixArgs&);
void conv_mix_vjp(const ConvMixVjpArgs&);
void act_mix(const ActMixArgs&);
void act_mix_jvp(const ActMixLinearArgs&);
void act_mix_vjp(const ActMixLinearArgs&);
void group_mix(const GroupMixArgs&);
void unmix_linear(const UnmixLinearArgs&);
double fma_work(int64_t steps, int threads);
void copy_work(void* to, const void* from, int64_t bytes, int threads);

#if defined(__AVX2__)
// Clang's __builtin_cpu_supports does not know this one.
static bool has_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

// Asks for every feature that CMakeLists.txt compiles this instruction set with.
static bool supported() {
#if defined(__AVX512BF16__)
    if (!__builtin_cpu_supports("avx512bf16")) return false;
#endif
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") &&
           has_f16c();
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
#else
    return true;
#endif
}

// Whether it is the one to take where it is supported. CPUs with AMX multiply bfloat16 there, and have the instruction
// of AVX512-BF16 at a quarter of the rate of a multiply-add (benchmarks/NOTES.md): float serves them better.
static bool preferred() {
#if defined(__AVX512BF16__)
    unsigned a, b, c, d;
    constexpr unsigned kAmxBf16 = 1u << 22;  // leaf 7, EDX
    return !(__get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAmxBf16));
#else
    return true;
#endif
}

extern const CpuKernels kernels;
const CpuKernels kernels = {
    FACEMIX_STRING(FACEMIX_ISA),
    supported,
    preferred,
    conv_mix,
    conv_mix_vjp,
    act_mix,
    act_mix_jvp,
    act_mix_vjp,
    group_mix,
    unmix_linear,
    fma_work,
    copy_work,
};

}  // namespace facemix::FACEMIX_ISA
