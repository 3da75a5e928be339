// facemix.h: the edge half end to end, keys, instruction sets, and scratch memory that cannot be had.
#include "c_api.h"

extern "C" int64_t pooled_height_from_c(void);

namespace test {
namespace {

void round_trip(Edge& e) {
    int64_t size[2];
    accepted(facemix_conv_mix_size(&e.conv, size), "conv_mix_size");
    check(size[0] == PH && size[1] == PW, "conv_mix_size gives another size");
    check(pooled_height_from_c() == 55, "conv_mix_size called from C");
    for (int layout : {FACEMIX_NCHW, FACEMIX_NHWC}) {
        e.conv.y_layout = layout;
        accepted(facemix_conv_mix(&e.conv), "conv_mix");
        accepted(facemix_group_unmix(&e.group), "group_unmix");
        const Layout out{layout == FACEMIX_NHWC, OC, PH, PW};
        for (int64_t i = 0; i < B * K; ++i) {
            const int64_t image = i / K, oc = i / (PH * PW) % OC, ph = i / PW % PH, pw = i % PW;
            const double got = e.plain[size_t(out.at(image, oc, ph, pw))], want = e.reference(image, oc, ph, pw);
            check(std::fabs(got - want) < 1e-4, "un-mixed features differ");
        }
    }
    e.conv.y_layout = FACEMIX_NCHW;
    accepted(facemix_unmix_linear(&e.linear), "unmix_linear");
    for (int64_t i = 0; i < B * N; ++i) {  // plain is what the last loop un-mixed, y what unmix_linear did
        double want = e.fc_b[size_t(i % N)];
        for (int64_t k = 0; k < K; ++k) want += double(e.fc[size_t(i % N * K + k)]) * e.plain[size_t(i / N * K + k)];
        check(std::fabs(e.out[size_t(i)] - want) < 1e-4, "scores differ");
    }
    std::vector<float> mixed(e.y.size());
    facemix_group_mix_args again = e.group;
    again.x = e.plain.data(), again.y = mixed.data();
    accepted(facemix_group_mix(&again), "group_mix");
    for (size_t i = 0; i < mixed.size(); ++i)
        check(std::fabs(mixed[i] - e.y[i]) < 1e-4, "mixing what was un-mixed gives something else");
}

// int8, with a scale folded into weight and bias: the nearest multiples of it.
void whole_numbers(Edge& e) {
    accepted(facemix_conv_mix(&e.conv), "conv_mix");
    constexpr float kScale = 1.0f / 32;
    std::vector<float> w = e.w, b = e.b;
    for (float& v : w) v /= kScale;
    for (float& v : b) v /= kScale;
    std::vector<int8_t> y(e.y.size(), -128);
    facemix_conv_mix_args a = e.conv;
    a.weight = w.data(), a.bias = b.data(), a.y = y.data(), a.y_dtype = FACEMIX_I8;
    accepted(facemix_conv_mix(&a), "conv_mix to int8");
    for (size_t i = 0; i < y.size(); ++i) {
        const float want = std::fmax(-127.0f, std::fmin(127.0f, e.y[i] / kScale));
        check(std::fabs(float(y[i]) - want) < 0.501f, "int8 results are not the nearest");
    }
}

void keys(Edge& e) {
    facemix_key bad = e.key;
    refused(facemix_key_sample(nullptr, 0), "key_sample: key must not be null");
    refused(facemix_key_sample(&e.key, 0.5),
            "key_sample: max_coeff must be at least 0.630000 for groups of 4 and at most 1");
    refused(facemix_key_sample(&e.key, 1.1), "key_sample: max_coeff must be");
    refused(facemix_key_sample(&e.key, NAN), "key_sample: max_coeff must be");
    bad.order = nullptr;
    refused(facemix_key_sample(&bad, 0), "key_sample: key.order must not be null");
    refused(facemix_key_wipe(&bad), "key_wipe: key.order must not be null");
    bad.order = reinterpret_cast<int64_t*>(bad.coeffs) + 3;
    refused(facemix_key_sample(&bad, 0), "key_sample: key.order must not overlap key.coeffs, got shared memory");
    accepted(facemix_key_wipe(&e.key), "key_wipe");
    for (double c : e.coeffs) check(c == 0, "a coefficient is left");
    for (int64_t row : e.order) check(row == 0, "an entry of the order is left");
    refused(facemix_conv_mix(&e.conv), "conv_mix: key.order must be a permutation of 0..7, got repeated or foreign");
    const facemix_key none = {nullptr, nullptr, 0, 2};
    accepted(facemix_key_sample(&none, 0), "key_sample of no groups");
    accepted(facemix_key_wipe(&none), "key_wipe of no groups");
    e.conv.key = none;
    accepted(facemix_conv_mix(&e.conv), "conv_mix of no images");
}

void capabilities() {
    const std::string before = facemix_capability(), all = std::string(" ") + facemix_capabilities() + " ";
    check(all.find(" " + before + " ") != std::string::npos, "the capability in use must be among them all");
    refused(facemix_use_capability("sse9"), "use_capability: capability must be one of");
    refused(facemix_use_capability(nullptr), "use_capability: name must not be null");
    check(before == facemix_capability(), "a refused name changed the capability");
    accepted(facemix_use_capability(before.c_str()), "use_capability");
    check(std::string(facemix_version()).size() >= 5, "the version has three numbers");
}

// Padding that makes the scratch memory larger than any machine's: served in another way, or an error.
void no_memory() {
    describe("scratch memory larger than any machine's");
    std::vector<double> coeffs(64 * 64), x(64), w(4), y(64);
    std::vector<int64_t> order(64);
    facemix_conv_mix_args a{};
    a.key = {coeffs.data(), order.data(), 1, 64};
    accepted(facemix_key_sample(&a.key, 0), "key_sample");
    a.x = x.data(), a.weight = w.data(), a.y = y.data(), a.x_dtype = a.y_dtype = FACEMIX_F64;
    a.channels = a.height = a.width = a.out_channels = 1, a.threads = INT32_MAX;
    for (int d = 0; d < 2; ++d) a.kernel[d] = 2, a.dilation[d] = 30000, a.padding[d] = 15000;
    const facemix_status status = facemix_conv_mix(&a);
    check(status == FACEMIX_OK || status == FACEMIX_NO_MEMORY, "conv_mix with a padding of 15000");
}

}  // namespace

void c_api() {
    Random random(1);
    Edge edge(random);
    round_trip(edge);
    whole_numbers(edge);
    edge.conv.threads = edge.linear.threads = 1000;  // more than cores
    round_trip(edge);
    c_api_errors(random, edge);
    capabilities();
    keys(edge);
    no_memory();
}

}  // namespace test
