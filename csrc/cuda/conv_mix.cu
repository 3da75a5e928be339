// conv_mix on CUDA: z = conv2d(x, weight) + bias, p = maxpool(act(z)), y = mix(p), written to the shuffled rows.
//
// Groups of up to 16 take the way of conv_mix_tile.h. What is left (float64, larger groups, windows or strides that no
// tile holds) takes the one here: a thread computes one element of all images of its group, one multiply-add after the
// other, and mixes them. It compiles; it has not run on a GPU yet.
#include "conv_mix_tile.h"
#include "launch.h"
#include "mixing.h"
#include "window.h"

namespace facemix::cuda {
namespace {

constexpr int kThreads = 128;

// The convolution at one place: x [C, H, W] of one image, w [C, KH, KW] of one output channel; (h, v) is the place of
// the kernel's first element in x.
template <class T, class E>
__device__ T convolve(const ConvMixArgs& a, const E* x, const E* w, T sum, int64_t h, int64_t v) {
    for (int64_t c = 0; c < a.C; ++c)
        for (int64_t kh = 0; kh < a.KH; ++kh)
            for (int64_t kw = 0; kw < a.KW; ++kw, ++w) {
                const int64_t row = h + kh * a.dilation[0], column = v + kw * a.dilation[1];
                if (row >= 0 && row < a.H && column >= 0 && column < a.W)
                    sum += T(*w) * T(x[c * a.x_strides[1] + row * a.x_strides[2] + column * a.x_strides[3]]);
            }
    return sum;
}

// Element e of an image of y.
struct Place {
    int64_t oc, ph, pw;
    __device__ Place(const ConvMixArgs& a, int64_t e) {
        const int64_t plane = a.PH * a.PW, pixel = a.channels_last ? e / a.OC : e % plane;
        oc = a.channels_last ? e % a.OC : e / plane;
        ph = pixel / a.PW, pw = pixel % a.PW;
    }
};

// The maximum of the window at `at` of image x; w and bias are those of its output channel.
template <class T, class E>
__device__ WindowMax<T> pooled(const ConvMixArgs& a, const E* x, const E* w, T bias, Place at, T slope) {
    const Pool& p = a.pool;
    const Span rows = clip_window(at.ph, p.kh, p.sh, p.pad_h, a.OH),
               columns = clip_window(at.pw, p.kw, p.sw, p.pad_w, a.OW);
    WindowMax<T> window;
    for (int kh = rows.begin; kh < rows.end; ++kh)
        for (int kw = columns.begin; kw < columns.end; ++kw) {
            const int64_t oh = at.ph * p.sh - p.pad_h + kh, ow = at.pw * p.sw - p.pad_w + kw;
            const T z = convolve(a, x, w, bias, oh * a.stride[0] - a.padding[0], ow * a.stride[1] - a.padding[1]);
            window.add(z, kh * int(p.kw) + kw, slope);
        }
    return window;
}

template <class E>
__global__ void __launch_bounds__(kThreads) conv_mix_kernel(const ConvMixArgs a) {
    using T = Compute<E>;
    Mixing<T, 0> mixing(a.key);
    const int S = mixing.size();
    const int64_t n = a.OC * a.PH * a.PW;  // elements of an image of y
    const T slope = negative_slope<T>(a);
    for (int64_t g = blockIdx.y; g < a.key.groups; g += gridDim.y) {
        mixing.read(a.key, g, false);
        for (int64_t e = blockIdx.x * int64_t(kThreads) + threadIdx.x; e < n; e += int64_t(gridDim.x) * kThreads) {
            const Place at(a, e);
            const E* w = static_cast<const E*>(a.weight) + at.oc * a.C * a.KH * a.KW;
            const T bias = a.bias ? T(static_cast<const E*>(a.bias)[at.oc]) : T(0);
            T values[kMaxGroup];
            for (int j = 0; j < S; ++j) {
                const E* x = static_cast<const E*>(a.x) + (g * S + j) * a.x_strides[0];
                const WindowMax<T> window = pooled(a, x, w, bias, at, slope);
                values[j] = window.best;
                if (a.codes) a.codes[(g * S + j) * n + e] = uint8_t(window.code);
            }
            for (int i0 = 0; i0 < S; i0 += mixing.kRows) {
                T sums[Mixing<T, 0>::kRows][1];
                mixing.template sum<1>(sums, i0, [&](int j0, T(&chunk)[kChunk][1]) {
                    for_chunk(j0, S, [&](int q) { chunk[q][0] = values[j0 + q]; });
                });
#pragma unroll
                for (int r = 0; r < mixing.kRows; ++r)
                    if (i0 + r < S) store_wire<1>(a.y_dtype, a.y, mixing.sent(i0 + r) * n + e, sums[r]);
            }
        }
    }
    mixing.wipe();
}

template <class E>
void run(const ConvMixArgs& a, cudaStream_t stream) {
    const dim3 grid = grid_of(a.OC * a.PH * a.PW, a.key.groups, kThreads);
    launch("conv_mix", conv_mix_kernel<E>, grid, kThreads, Mixing<Compute<E>, 0>::shared_bytes(a.key.size), stream, a);
}

bool try_tiles(const ConvMixArgs& a, int device, void* stream) {
    switch (a.x_dtype) {
        case Dtype::f32: return (a.tf32 ? conv_mix_tf32 : conv_mix_f32)(a, device, stream);
        case Dtype::bf16: return conv_mix_bf16(a, device, stream);
        case Dtype::f16: return conv_mix_f16(a, device, stream);
        default: return false;
    }
}

}  // namespace

void conv_mix(const ConvMixArgs& a, int device, void* stream) {
    if (a.key.groups == 0 || a.OC * a.PH * a.PW == 0) return;
    const OnDevice here("conv_mix", device);
    if (try_tiles(a, device, stream)) return;
    with_dtype(a.x_dtype, [&](auto tag) { run<typename decltype(tag)::type>(a, static_cast<cudaStream_t>(stream)); });
}

}  // namespace facemix::cuda
