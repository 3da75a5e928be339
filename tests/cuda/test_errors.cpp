// What CUDA refuses is thrown with the name of the op that was called.
#include "../cpp/support.h"
#include "cuda/call.h"
#include "cuda/launch.h"

namespace test {
namespace {

constexpr int kNoDevice = 1;  // the stand-in has one

template <class Call>
void expect_error(const std::string& op, Call&& call, const std::string& said = "invalid device ordinal") {
    try {
        call();
    } catch (const std::runtime_error& error) {
        if (error.what() == op + ": CUDA: " + said) return;
        throw Failure(op + ": said " + error.what());
    }
    throw Failure(op + ": no error");
}

// One element of everything; no kernel runs, and nothing is read.
template <class Args>
Args images() {
    Args a{};
    a.C = a.H = a.W = a.PH = a.PW = 1, a.pool = {1, 1, 1, 1, 0, 0}, a.key.groups = a.key.size = 1;
    return a;
}

}  // namespace

void cuda_errors() {
    using namespace facemix;
    auto conv = images<ConvMixArgs>();
    conv.OC = conv.KH = conv.KW = conv.OH = conv.OW = 1;
    expect_error("conv_mix", [&] { cuda::conv_mix(conv, kNoDevice, nullptr); });
    const auto act = images<ActMixArgs>();
    expect_error("act_mix", [&] { cuda::act_mix(act, kNoDevice, nullptr); });
    const uint8_t code = 0;
    auto linear = images<ActMixLinearArgs>();
    linear.codes = &code;
    for (const int64_t kernel : {1, 2}) {  // element by element, and by windows
        linear.pool.kh = kernel;
        expect_error("act_mix_jvp", [&] { cuda::act_mix_jvp(linear, kNoDevice, nullptr); });
        expect_error("act_mix_vjp", [&] { cuda::act_mix_vjp(linear, kNoDevice, nullptr); });
    }
    GroupMixArgs mix{};
    mix.n = mix.key.groups = mix.key.size = 1;
    expect_error("group_mix", [&] { cuda::group_mix(mix, kNoDevice, nullptr); });
    mix.transpose = true;
    expect_error("group_unmix", [&] { cuda::group_mix(mix, kNoDevice, nullptr); });
    UnmixLinearArgs unmix{};
    unmix.M = unmix.K = unmix.N = unmix.key.groups = unmix.key.size = 1;
    expect_error("unmix_linear", [&] { cuda::unmix_linear(unmix, kNoDevice, nullptr); });
    expect_error("sample_orthogonal", [] { cuda::sample_orthogonal(nullptr, 1, 2, nullptr, kNoDevice, nullptr); });
    expect_error("sample_permutation", [] { cuda::sample_permutation(nullptr, 1, nullptr, kNoDevice, nullptr); });
    expect_error(
        "an op", [] { cuda::check("an op", cudaErrorNoKernelImageForDevice); },
        "no kernel image; FACEMIX_BACKEND=triton runs on kernels compiled where they are needed");
}

}  // namespace test
