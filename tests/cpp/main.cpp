// The kernels of every instruction set that this CPU has, the CUDA kernels on the host, and the C interface, against
// scalar references in double.
//     facemix_tests [--cases N] [--seed S] [--op NAME] [--capability NAME] [--case I]
#include <unistd.h>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "cpu/dispatch.h"
#include "support.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
// An allocation that is too large is an error for the library to report, and not for the sanitizer. UBSan's traps are.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
    return "allocator_may_return_null=1:handle_sigill=1";
}
#endif

namespace {

struct Op {
    const char* name;
    void (*run)(const test::CpuKernels&, test::Random&, int64_t);
    bool on_cuda;
};
constexpr Op kOps[] = {{"conv_mix", test::conv_mix_case, true},   {"conv_mix_vjp", test::conv_mix_vjp_case, false},
                       {"act_mix", test::act_mix_case, true},     {"act_mix_linear", test::act_mix_linear_case, true},
                       {"group_mix", test::group_mix_case, true}, {"unmix_linear", test::unmix_linear_case, true}};

char reproduction[256];

void explain() {
    std::fprintf(stderr, "  reproduce: facemix_tests %s\n  with %s\n", reproduction, test::description());
}

// A crash says how to see it again.
void watch_for_crashes() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(explain);
#else
    const auto crashed = [](int) {
        std::fprintf(stderr, "CRASH\n");
        explain();
        _exit(3);
    };
    for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) std::signal(signal, crashed);
#endif
}

bool passes(const char* name, void (*run)()) {
    std::snprintf(reproduction, sizeof reproduction, "--op %s", name);
    test::describe(name);
    try {
        run();
        return true;
    } catch (const test::Failure& failure) {
        std::fprintf(stderr, "FAIL %s: %s\n", name, failure.what());
        explain();
        return false;
    }
}

bool passes(const Op& op, const test::CpuKernels& kernels, uint64_t seed, int64_t index) {
    std::snprintf(reproduction, sizeof reproduction, "--op %s --capability %s --seed %llu --case %lld", op.name,
                  kernels.capability, (unsigned long long)seed, (long long)index);
    test::Random random(seed * 0x100000001b3u + uint64_t(index));
    try {
        op.run(kernels, random, index);
        return true;
    } catch (const test::Failure& failure) {
        std::fprintf(stderr, "FAIL %s %s case %lld: %s\n", op.name, kernels.capability, (long long)index,
                     failure.what());
        explain();
        return false;
    }
}

}  // namespace

int main(int argc, char** argv) {
    int64_t cases = 300, only = -1;
    uint64_t seed = 0;
    std::string op_wanted, capability_wanted;
    for (int i = 1; i < argc; i += 2) {
        const std::string option = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
        if (value.empty()) return std::fprintf(stderr, "%s needs a value\n", argv[i]), 2;
        if (option == "--cases") cases = std::atoll(value.c_str());
        else if (option == "--seed") seed = std::strtoull(value.c_str(), nullptr, 10);
        else if (option == "--case") only = std::atoll(value.c_str());
        else if (option == "--op") op_wanted = value;
        else if (option == "--capability") capability_wanted = value;
        else return std::fprintf(stderr, "unknown option %s\n", argv[i]), 2;
    }
    watch_for_crashes();
    const auto wanted_capability = [&](const std::string& name) {
        return capability_wanted.empty() || capability_wanted == name;
    };
    const auto wanted = [&](const std::string& op) { return op_wanted.empty() || op_wanted == op; };
    int64_t run = 0, failed = 0;
    const auto run_op = [&](const Op& op, const test::CpuKernels& kernels) {
        if (!wanted(op.name)) return;
        const int64_t first = only < 0 ? 0 : only, last = only < 0 ? cases : only + 1;
        for (int64_t index = first; index < last; ++index, ++run) failed += !passes(op, kernels, seed, index);
    };
    for (const std::string& capability : facemix::available_capabilities()) {
        if (!wanted_capability(capability)) continue;
        facemix::use_capability(capability);
        for (const Op& op : kOps) run_op(op, facemix::kernels());
        if (wanted("c_api")) ++run, failed += !passes("c_api", test::c_api);
        std::printf("%s: %lld cases, %lld failed\n", capability.c_str(), (long long)run, (long long)failed);
        std::fflush(stdout);
    }
#if defined(FACEMIX_CUDA_ON_HOST)
    const test::CpuKernels cuda = test::cuda_kernels();
    if (wanted_capability(cuda.capability)) {
        for (const Op& op : kOps)
            if (op.on_cuda) run_op(op, cuda);
        if (wanted("mma")) ++run, failed += !passes("mma", test::warp_instructions);
        if (wanted("conv_mix_tile")) ++run, failed += !passes("conv_mix_tile", test::conv_mix_tiles);
        if (wanted("conv_mix_patch")) ++run, failed += !passes("conv_mix_patch", test::conv_mix_patches);
        if (wanted("unmix_linear_tile")) ++run, failed += !passes("unmix_linear_tile", test::unmix_linear_tiles);
        if (wanted("sample_orthogonal")) ++run, failed += !passes("sample_orthogonal", test::sampling_on_cuda);
        if (wanted("far_apart")) ++run, failed += !passes("far_apart", test::far_apart);
        if (wanted("cuda_errors")) ++run, failed += !passes("cuda_errors", test::cuda_errors);
        std::printf("%s: %lld cases, %lld failed\n", cuda.capability, (long long)run, (long long)failed);
    }
#endif
    if (wanted("sample_orthogonal")) ++run, failed += !passes("sample_orthogonal", test::sampling);
    if (run == 0)
        return std::fprintf(stderr, "nothing fits --op %s --capability %s\n", op_wanted.c_str(),
                            capability_wanted.c_str()),
               2;
    return failed != 0;
}
