// facemix.h: an error for every bad argument, with nothing written.
#include <functional>

#include "c_api.h"

namespace test {
namespace {

// Each change to good arguments must be refused with this message.
template <class Args>
struct Bad {
    const char* message;
    std::function<void(Args&)> change;
};
template <class Args>
void all_refused(facemix_status (*op)(const Args*), const Args& good, const std::vector<Bad<Args>>& list) {
    for (const Bad<Args>& bad : list) {
        Args args = good;
        bad.change(args);
        refused(op(&args), bad.message);
    }
}
template <class T>
T* misaligned(T* p) {
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(p) + 1);
}

// What every op's key and threads can have wrong.
template <class Args>
void bad_keys(facemix_status (*op)(const Args*), const Args& good, const std::string& name) {
    std::vector<int64_t> repeated(B, 1), foreign(B);
    for (int64_t b = 0; b < B; ++b) foreign[size_t(b)] = b + 1;
    std::vector<double> nan(G * S * S, NAN);
    const std::string p = name + ": ";
    const std::vector<Bad<Args>> list = {
        {"key.coeffs must not be null, got NULL", [](Args& a) { a.key.coeffs = nullptr; }},
        {"key.order must not be null, got NULL", [](Args& a) { a.key.order = nullptr; }},
        {"key.order must be aligned to its elements of 8 bytes",
         [](Args& a) { a.key.order = misaligned(a.key.order); }},
        {"key.coeffs must be aligned to its elements of 8", [](Args& a) { a.key.coeffs = misaligned(a.key.coeffs); }},
        {"key.groups must be between 0 and 2147483647, got -1", [](Args& a) { a.key.groups = -1; }},
        {"key.groups must be between 0", [](Args& a) { a.key.groups = INT64_MAX; }},
        {"key.size must be between 2 and 64, got 1", [](Args& a) { a.key.size = 1; }},
        {"key.size must be between 2 and 64, got 65", [](Args& a) { a.key.size = 65; }},
        {"key.order must be a permutation of 0..7, got", [&](Args& a) { a.key.order = repeated.data(); }},
        {"key.order must be a permutation of 0..7, got", [&](Args& a) { a.key.order = foreign.data(); }},
        {"key.coeffs must be finite, got", [&](Args& a) { a.key.coeffs = nan.data(); }},
        {"threads must be between 1 and 2147483647, got 0", [](Args& a) { a.threads = 0; }},
        {"threads must be between 1 and 2147483647, got -3", [](Args& a) { a.threads = -3; }},
    };
    for (const Bad<Args>& bad : list) {
        const std::string message = p + bad.message;
        all_refused<Args>(op, good, {{message.c_str(), bad.change}});
    }
    refused(op(nullptr), p + "args must not be null, got NULL");
}

void bad_conv_mix(const Edge& e) {
    using A = facemix_conv_mix_args;
    const A good = e.conv;
    std::vector<float> nan(e.w.size(), NAN), infinite(e.b.size(), INFINITY);
    bad_keys(facemix_conv_mix, good, "conv_mix");
    all_refused<A>(
        facemix_conv_mix, good,
        {
            {"conv_mix: x must not be null, got NULL", [](A& a) { a.x = nullptr; }},
            {"conv_mix: weight must not be null", [](A& a) { a.weight = nullptr; }},
            {"conv_mix: y must not be null", [](A& a) { a.y = nullptr; }},
            {"conv_mix: x must be aligned to its elements of 4", [](A& a) { a.x = misaligned((const char*)a.x); }},
            {"conv_mix: weight must be aligned", [](A& a) { a.weight = misaligned((const char*)a.weight); }},
            {"conv_mix: bias must be aligned", [](A& a) { a.bias = misaligned((const char*)a.bias); }},
            {"conv_mix: y must be aligned", [](A& a) { a.y = misaligned((char*)a.y); }},
            {"conv_mix: y must not overlap x, got shared memory", [](A& a) { a.x = a.y; }},
            {"conv_mix: y must not overlap weight", [](A& a) { a.weight = a.y; }},
            {"conv_mix: y must not overlap bias", [](A& a) { a.bias = a.y; }},
            {"conv_mix: y must not overlap key.", [](A& a) { a.y = a.key.coeffs; }},
            {"conv_mix: y must not overlap key.", [](A& a) { a.y = a.key.order; }},
            {"conv_mix: weight must be finite, got a NaN", [&](A& a) { a.weight = nan.data(); }},
            {"conv_mix: bias must be finite", [&](A& a) { a.bias = infinite.data(); }},
            {"conv_mix: x_dtype must be between 0 and 3, got 4", [](A& a) { a.x_dtype = 4; }},
            {"conv_mix: y_dtype must be between 0 and 4, got -1", [](A& a) { a.y_dtype = -1; }},
            {"conv_mix: y_dtype must be F64 where x_dtype is", [](A& a) { a.y_dtype = FACEMIX_F64; }},
            {"conv_mix: y_dtype must be F64 where x_dtype is", [](A& a) { a.x_dtype = FACEMIX_F64; }},
            {"conv_mix: x_layout must be between 0 and 1, got 2", [](A& a) { a.x_layout = 2; }},
            {"conv_mix: y_layout must be between 0 and 1, got -1", [](A& a) { a.y_layout = -1; }},
            {"conv_mix: activation must be between 0 and 2, got 3", [](A& a) { a.activation = 3; }},
            {"conv_mix: slope must be finite, got", [](A& a) { a.slope = NAN; }},
        });
}

void bad_sizes(const Edge& e) {
    using A = facemix_conv_mix_args;
    const auto op = [](const A* a) {
        int64_t size[2] = {-7, -7};
        const facemix_status status = facemix_conv_mix_size(a, size);
        check(status == FACEMIX_OK || (size[0] == -7 && size[1] == -7), "a size written in spite of an error");
        return status;
    };
    const std::vector<Bad<A>> list = {
        {"channels must be between 1 and 2147483647, got 0", [](A& a) { a.channels = 0; }},
        {"height must be between 1", [](A& a) { a.height = -5; }},
        {"width must be between 1", [](A& a) { a.width = INT64_MIN; }},
        {"out_channels must be between 1", [](A& a) { a.out_channels = INT64_MAX; }},
        {"kernel must be between 1", [](A& a) { a.kernel[1] = 0; }},
        {"kernel must span at most the padded input of 11, got 12", [](A& a) { a.kernel[0] = 12; }},
        {"stride must be between 1", [](A& a) { a.stride[0] = -1; }},
        {"padding must be between 0", [](A& a) { a.padding[1] = -1; }},
        {"dilation must be between 1", [](A& a) { a.dilation[1] = -1; }},
        {"kernel must span at most the padded input of 11, got 17", [](A& a) { a.dilation[0] = 8; }},
        {"pool_kernel must be between 1 and 127, got -1", [](A& a) { a.pool_kernel[0] = -1; }},
        {"pool_kernel must fit in the padded map of 7, got 8", [](A& a) { a.pool_kernel[1] = 8; }},
        {"pool_stride must be between 1", [](A& a) { a.pool_stride[0] = -2; }},
        {"pool_padding must be between 0 and 1, got 2", [](A& a) { a.pool_padding[0] = 2; }},
        {"pool_kernel must have at most 127 elements, got 144",
         [](A& a) { a.height = a.width = 99, a.pool_kernel[0] = a.pool_kernel[1] = 12; }},
        {"channels, width, kernel and stride must need at most", [](A& a) { a.channels = a.width = 1 << 20; }},
    };
    for (const Bad<A>& bad : list) {
        const std::string size = std::string("conv_mix_size: ") + bad.message;
        all_refused<A>(op, e.conv, {{size.c_str(), bad.change}});
        const std::string whole = std::string("conv_mix: ") + bad.message;
        all_refused<A>(facemix_conv_mix, e.conv, {{whole.c_str(), bad.change}});
    }
    int64_t size[2];
    refused(facemix_conv_mix_size(nullptr, size), "conv_mix_size: args must not be null");
    refused(facemix_conv_mix_size(&e.conv, nullptr), "conv_mix_size: size must not be null");
    A huge = e.conv;
    huge.height = INT32_MAX, huge.channels = 1 << 20;
    refused(facemix_conv_mix(&huge), "conv_mix: x must have at most 281474976710656 bytes, got more");
}

// Extreme numbers in every field: an error or a size that is positive, and no overflow (UBSan looks on).
void extreme_sizes(Random& random, const Edge& e) {
    static const std::vector<int64_t> kExtremes = {
        INT64_MIN, -1, 0, 1, 2, 3, 127, 1000, 46341, INT32_MAX, int64_t{1} << 31, int64_t{1} << 62, INT64_MAX};
    for (int i = 0; i < 3000; ++i) {
        facemix_conv_mix_args a = e.conv;
        int64_t* const fields[] = {&a.channels,        &a.height,         &a.width,          &a.out_channels,
                                   &a.kernel[0],       &a.kernel[1],      &a.stride[0],      &a.stride[1],
                                   &a.padding[0],      &a.padding[1],     &a.dilation[0],    &a.dilation[1],
                                   &a.pool_kernel[0],  &a.pool_kernel[1], &a.pool_stride[0], &a.pool_stride[1],
                                   &a.pool_padding[0], &a.pool_padding[1]};
        for (int k = 0; k < 3; ++k) *fields[random.between(0, 17)] = random.among(kExtremes);
        int64_t size[2] = {1, 1};
        facemix_conv_mix_size(&a, size);
        check(size[0] > 0 && size[1] > 0, "a size that is not positive");
    }
}

void bad_group_mix(const Edge& e) {
    using A = facemix_group_mix_args;
    bad_keys(facemix_group_mix, e.group, "group_mix");
    bad_keys(facemix_group_unmix, e.group, "group_unmix");
    all_refused<A>(facemix_group_mix, e.group,
                   {
                       {"group_mix: x must not be null", [](A& a) { a.x = nullptr; }},
                       {"group_mix: y must not be null", [](A& a) { a.y = nullptr; }},
                       {"group_mix: x must be aligned", [](A& a) { a.x = misaligned((const char*)a.x); }},
                       {"group_mix: y must be aligned", [](A& a) { a.y = misaligned((char*)a.y); }},
                       {"group_mix: y must not overlap x", [](A& a) { a.x = a.y; }},
                       {"group_mix: y must not overlap key.", [](A& a) { a.y = a.key.coeffs; }},
                       {"group_mix: y must not overlap key.", [](A& a) { a.y = a.key.order; }},
                       {"group_mix: dtype must be between 0 and 3", [](A& a) { a.dtype = 77; }},
                       {"group_mix: n must be between 0", [](A& a) { a.n = -1; }},
                       {"group_mix: x must have at most", [](A& a) { a.n = int64_t{1} << 47; }},
                   });
}

void bad_unmix_linear(const Edge& e) {
    using A = facemix_unmix_linear_args;
    std::vector<float> nan(e.fc.size(), NAN);
    bad_keys(facemix_unmix_linear, e.linear, "unmix_linear");
    all_refused<A>(
        facemix_unmix_linear, e.linear,
        {
            {"unmix_linear: y must not be null", [](A& a) { a.y = nullptr; }},
            {"unmix_linear: weight must not be null", [](A& a) { a.weight = nullptr; }},
            {"unmix_linear: out must not be null", [](A& a) { a.out = nullptr; }},
            {"unmix_linear: out must be aligned", [](A& a) { a.out = misaligned((char*)a.out); }},
            {"unmix_linear: out must not overlap y", [](A& a) { a.y = a.out; }},
            {"unmix_linear: out must not overlap weight", [](A& a) { a.weight = a.out; }},
            {"unmix_linear: out must not overlap bias", [](A& a) { a.bias = a.out; }},
            {"unmix_linear: out must not overlap key.", [](A& a) { a.out = a.key.coeffs; }},
            {"unmix_linear: out must not overlap key.", [](A& a) { a.out = a.key.order; }},
            {"unmix_linear: weight must be finite", [&](A& a) { a.weight = nan.data(); }},
            {"unmix_linear: bias must be finite", [&](A& a) { a.bias = nan.data(); }},
            {"unmix_linear: dtype must be between 0 and 3", [](A& a) { a.dtype = -1; }},
            {"unmix_linear: positions must be between 0", [](A& a) { a.positions = -1; }},
            {"unmix_linear: in_features must be between 0", [](A& a) { a.in_features = -1; }},
            {"unmix_linear: out_features must be between 0", [](A& a) { a.out_features = int64_t{1} << 40; }},
            {"unmix_linear: y must have at most", [](A& a) { a.positions = INT32_MAX, a.in_features = INT32_MAX; }},
        });
}

}  // namespace

void c_api_errors(Random& random, const Edge& edge) {
    bad_conv_mix(edge);
    bad_sizes(edge);
    extreme_sizes(random, edge);
    bad_group_mix(edge);
    bad_unmix_linear(edge);
}

}  // namespace test
