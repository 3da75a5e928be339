// facemix.h: every argument is checked at the door, and no exception leaves.
#include <cstdio>
#include <new>

#include "c_checks.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"

using namespace facemix;

namespace {

constexpr int64_t kMaxRowInput = int64_t{1} << 30;  // elements that one output row needs: kernels index them by 32 bits
constexpr int64_t kMaxBlock = 32;                   // pixels past a row's end that a kernel may make room for

thread_local char last_error[512] = "";

int64_t or_default(int64_t value, int64_t fallback) { return value ? value : fallback; }

// Everything of conv_mix but the pointers and the key.
ConvMixArgs check_conv_shape(const facemix_conv_mix_args& args) {
    ConvMixArgs a{};
    a.C = check_between("channels", args.channels, 1);
    const int64_t size[2] = {check_between("height", args.height, 1), check_between("width", args.width, 1)};
    a.H = size[0], a.W = size[1];
    a.OC = check_between("out_channels", args.out_channels, 1);
    int64_t kernel[2], conv[2], pooled[2], pool_kernel[2], pool_stride[2];
    __int128 row_input = a.C;
    for (int d = 0; d < 2; ++d) {
        kernel[d] = check_between("kernel", args.kernel[d], 1);
        a.stride[d] = check_between("stride", or_default(args.stride[d], 1), 1);
        a.dilation[d] = check_between("dilation", or_default(args.dilation[d], 1), 1);
        a.padding[d] = check_between("padding", args.padding[d], 0);
        const int64_t span = (kernel[d] - 1) * a.dilation[d] + 1, padded = size[d] + 2 * a.padding[d];
        if (span > padded) refuse("kernel", "span at most the padded input of " + text(padded), text(span));
        conv[d] = (padded - span) / a.stride[d] + 1;
        pool_kernel[d] = check_between("pool_kernel", or_default(args.pool_kernel[d], 1), 1, kCodeWindow);
        pool_stride[d] = check_between("pool_stride", or_default(args.pool_stride[d], pool_kernel[d]), 1);
        check_between("pool_padding", args.pool_padding[d], 0, pool_kernel[d] / 2);
        const int64_t room = conv[d] + 2 * args.pool_padding[d];
        if (pool_kernel[d] > room)
            refuse("pool_kernel", "fit in the padded map of " + text(room), text(pool_kernel[d]));
        pooled[d] = (room - pool_kernel[d]) / pool_stride[d] + 1;
        const int64_t steps = d == 0 ? pool_kernel[0] : conv[1] + kMaxBlock;
        row_input *= (steps - 1) * a.stride[d] + span;
        if (row_input > kMaxRowInput)
            refuse("channels, width, kernel and stride",
                   "need at most " + text(kMaxRowInput) + " input elements for a row of the result", "more");
    }
    if (pool_kernel[0] * pool_kernel[1] > kCodeWindow)
        refuse("pool_kernel", "have at most " + text(kCodeWindow) + " elements", text(pool_kernel[0] * pool_kernel[1]));
    a.KH = kernel[0], a.KW = kernel[1], a.OH = conv[0], a.OW = conv[1], a.PH = pooled[0], a.PW = pooled[1];
    a.pool = {pool_kernel[0], pool_kernel[1],       pool_stride[0],
              pool_stride[1], args.pool_padding[0], args.pool_padding[1]};
    return a;
}

void conv_mix(const facemix_conv_mix_args& args) {
    ConvMixArgs a = check_conv_shape(args);
    a.x_dtype = check_dtype("x_dtype", args.x_dtype), a.y_dtype = check_dtype("y_dtype", args.y_dtype, FACEMIX_I8);
    if ((a.x_dtype == Dtype::f64) != (a.y_dtype == Dtype::f64))
        refuse("y_dtype", "be F64 where x_dtype is, and only there", text(args.y_dtype));
    const bool nhwc = check_between("x_layout", args.x_layout, FACEMIX_NCHW, FACEMIX_NHWC) == FACEMIX_NHWC;
    a.channels_last = check_between("y_layout", args.y_layout, FACEMIX_NCHW, FACEMIX_NHWC) == FACEMIX_NHWC;
    a.activation = Activation(check_between("activation", args.activation, FACEMIX_NONE, FACEMIX_LEAKY_RELU));
    if (!std::isfinite(args.slope)) refuse("slope", "be finite", std::to_string(args.slope));
    a.slope = args.slope;
    a.threads = int(check_between("threads", args.threads, 1));
    a.key = check_key(args.key);
    const int64_t B = a.key.groups * a.key.size, element = bytes_of(a.x_dtype);
    const Array x("x", args.x, {B, a.C, a.H, a.W}, element);
    const Array weight("weight", args.weight, {a.OC, a.C, a.KH, a.KW}, element);
    const Array bias("bias", args.bias, {args.bias ? a.OC : 0}, element);
    const Array y("y", args.y, {B, a.OC, a.PH, a.PW}, bytes_of(a.y_dtype));
    check_apart("y", y, args.key);
    check_apart("y", y, "x", x);
    check_apart("y", y, "weight", weight);
    check_apart("y", y, "bias", bias);
    check_finite("weight", args.weight, a.OC * a.C * a.KH * a.KW, a.x_dtype);
    check_finite("bias", args.bias, args.bias ? a.OC : 0, a.x_dtype);
    a.x = args.x, a.weight = args.weight, a.bias = args.bias, a.y = args.y;
    const int64_t pixel = nhwc ? a.C : 1;
    a.x_strides[0] = a.C * a.H * a.W, a.x_strides[1] = nhwc ? 1 : a.H * a.W;
    a.x_strides[2] = a.W * pixel, a.x_strides[3] = pixel;
    kernels().conv_mix(a);
}

void group_mix(const facemix_group_mix_args& args, bool transpose) {
    GroupMixArgs a{};
    a.dtype = check_dtype("dtype", args.dtype);
    a.n = check_between("n", args.n, 0, kMaxBytes);
    a.transpose = transpose;
    a.threads = int(check_between("threads", args.threads, 1));
    a.key = check_key(args.key);
    const Array x("x", args.x, {a.key.groups, a.key.size, a.n}, bytes_of(a.dtype));
    const Array y("y", args.y, {a.key.groups, a.key.size, a.n}, bytes_of(a.dtype));
    check_apart("y", y, args.key);
    check_apart("y", y, "x", x);
    a.x = args.x, a.y = args.y;
    kernels().group_mix(a);
}

void unmix_linear(const facemix_unmix_linear_args& args) {
    UnmixLinearArgs a{};
    a.dtype = check_dtype("dtype", args.dtype);
    a.M = check_between("positions", args.positions, 0);
    a.K = check_between("in_features", args.in_features, 0);
    a.N = check_between("out_features", args.out_features, 0);
    a.threads = int(check_between("threads", args.threads, 1));
    a.key = check_key(args.key);
    const int64_t G = a.key.groups, S = a.key.size, element = bytes_of(a.dtype);
    const Array y("y", args.y, {G, S, a.M, a.K}, element);
    const Array weight("weight", args.weight, {a.N, a.K}, element);
    const Array bias("bias", args.bias, {args.bias ? a.N : 0}, element);
    const Array out("out", args.out, {G, S, a.M, a.N}, element);
    check_apart("out", out, args.key);
    check_apart("out", out, "y", y);
    check_apart("out", out, "weight", weight);
    check_apart("out", out, "bias", bias);
    check_finite("weight", args.weight, a.N * a.K, a.dtype);
    check_finite("bias", args.bias, args.bias ? a.N : 0, a.dtype);
    a.y = args.y, a.weight = args.weight, a.bias = args.bias, a.out = args.out;
    kernels().unmix_linear(a);
}

void key_wipe(const facemix_key& key) {
    wipe(key.coeffs, size_t(key.groups * key.size * key.size) * sizeof(double));
    wipe(key.order, size_t(key.groups * key.size) * sizeof(int64_t));
}

void key_sample(const facemix_key& key, double max_coeff) {
    check_key_memory(key);
    try {
        sample_orthogonal(key.coeffs, key.groups, key.size, max_coeff == 0 ? 1 : max_coeff, nullptr);
        sample_permutation(key.order, key.groups * key.size, nullptr);
    } catch (...) {
        key_wipe(key);
        throw;
    }
}

facemix_status fail(facemix_status status, const char* op, const char* message) {
    std::snprintf(last_error, sizeof last_error, "%s: %s", op, message);
    return status;
}

// Runs body, and turns what it throws into a status and a message.
template <class Body>
facemix_status guarded(const char* op, Body&& body) {
    try {
        body();
        return FACEMIX_OK;
    } catch (const std::invalid_argument& error) {
        return fail(FACEMIX_INVALID, op, error.what());
    } catch (const std::bad_alloc&) {
        return fail(FACEMIX_NO_MEMORY, op, "there is no memory for the scratch space");
    } catch (const std::exception& error) {
        return fail(FACEMIX_FAILED, op, error.what());
    } catch (...) {
        return fail(FACEMIX_FAILED, op, "an unknown exception");
    }
}

}  // namespace

const char* facemix_last_error(void) { return last_error; }

const char* facemix_version(void) { return FACEMIX_VERSION; }

const char* facemix_capability(void) { return kernels().capability; }

const char* facemix_capabilities(void) {
    thread_local char names[128];
    names[0] = 0;
    guarded("capabilities", [] {
        std::string all;
        for (const std::string& name : available_capabilities()) all += (all.empty() ? "" : " ") + name;
        std::snprintf(names, sizeof names, "%s", all.c_str());
    });
    return names;
}

facemix_status facemix_use_capability(const char* name) {
    return guarded("use_capability", [&] { use_capability(&check_given("name", name)); });
}

facemix_status facemix_key_sample(const facemix_key* key, double max_coeff) {
    return guarded("key_sample", [&] { key_sample(check_given("key", key), max_coeff); });
}

facemix_status facemix_key_wipe(const facemix_key* key) {
    return guarded("key_wipe", [&] {
        check_key_memory(check_given("key", key));
        key_wipe(*key);
    });
}

facemix_status facemix_conv_mix(const facemix_conv_mix_args* args) {
    return guarded("conv_mix", [&] { conv_mix(check_given("args", args)); });
}

facemix_status facemix_conv_mix_size(const facemix_conv_mix_args* args, int64_t size[2]) {
    return guarded("conv_mix_size", [&] {
        const ConvMixArgs a = check_conv_shape(check_given("args", args));
        int64_t* out = &check_given("size", size);
        out[0] = a.PH, out[1] = a.PW;
    });
}

facemix_status facemix_group_mix(const facemix_group_mix_args* args) {
    return guarded("group_mix", [&] { group_mix(check_given("args", args), false); });
}

facemix_status facemix_group_unmix(const facemix_group_mix_args* args) {
    return guarded("group_unmix", [&] { group_mix(check_given("args", args), true); });
}

facemix_status facemix_unmix_linear(const facemix_unmix_linear_args* args) {
    return guarded("unmix_linear", [&] { unmix_linear(check_given("args", args)); });
}
