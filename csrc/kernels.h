// The C++ interface of the kernels: raw pointers, shapes and strides. It knows neither Python nor PyTorch.
//
// Notation (docs in facemix_ops/ops): B = G * S images in G groups of S; A = key.coeffs [G, S, S];
//     mix    y[order[g*S + i]] = sum_j A[g, i, j] * x[g*S + j]
//     unmix  x[g*S + j]        = sum_i A[g, i, j] * y[order[g*S + i]]
#pragma once

#include <cstdint>

namespace facemix {

// int8 is for y of conv_mix alone: rounded to nearest, ties to even, at most 127 in magnitude, NaN as 0.
enum class Dtype : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3, i8 = 4 };
constexpr int64_t bytes_of(Dtype dtype) {
    return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : dtype == Dtype::i8 ? 1 : 2;
}
enum class Activation : int { none = 0, relu = 1, leaky = 2 };

// A private key. Kernels convert the coefficients into scratch memory and wipe it before they return.
struct Key {
    const double* coeffs;  // [G, S, S]
    const int64_t* order;  // [G * S], a permutation
    int64_t groups;        // G
    int64_t size;          // S
};

constexpr int64_t kMaxGroup = 64;  // the public limit of S; kernels of a device have tables of so many

// Max-pool; kernel 1x1 with stride 1 stands for "no pool".
struct Pool {
    int64_t kh, kw, sh, sw, pad_h, pad_w;
    bool identity() const { return kh * kw == 1 && sh == 1 && sw == 1; }
};

// What the backward pass needs of one (pooled) value: the window element kh * pool.kw + kw that won,
// and whether the activation's negative side was taken.
constexpr int kCodeNegative = 0x80;
constexpr int kCodeWindow = 0x7f;

// The input of a convolution, and where its windows lie.
struct ConvInput {
    const void* x;         // [B, C, H, W], any strides
    int64_t x_strides[4];  // in elements
    Dtype x_dtype;
    int64_t C, H, W, KH, KW;
    int64_t stride[2], padding[2], dilation[2];
    int64_t OH, OW;  // of the result, before a pool
};

struct ConvMixArgs : ConvInput {
    const void* weight;  // [OC, C, KH, KW] contiguous, dtype of x
    const void* bias;    // [OC] or null, dtype of x
    void* y;             // [B, OC, PH, PW] dense, NCHW or NHWC
    uint8_t* codes;      // shape and layout of y, rows in the order of x; or null
    Dtype y_dtype;
    int64_t OC, PH, PW;
    bool channels_last;  // layout of y and codes
    Activation activation;
    double slope;
    Pool pool;
    Key key;
    int threads;
    const float* slope_at = nullptr;  // CUDA: where the slope lies on the device, instead of `slope`
    bool tf32 = false;                // CUDA: whether float32 may be multiplied as TF32
};

// The derivative of conv_mix by weight and bias at the recorded codes. With u = act_mix_vjp(y), f = 1 or neg:
//     weight[oc, c, kh, kw] = sum of u[b, oc, h, w] * x[b, c, window of (h, w) at (kh, kw)]      bias[oc] = sum of u
struct ConvMixVjpArgs : ConvInput {
    const void* y;         // [B, OC, PH, PW] dense, NCHW or NHWC: the gradient of what was sent; dtype of x
    const uint8_t* codes;  // shape and layout of y, rows in the order of x; or null: no activation, no pool
    void* weight;          // [OC, C, KH, KW] contiguous, dtype of x
    void* bias;            // [OC], dtype of x
    int64_t OC, PH, PW;
    bool channels_last;  // layout of y and codes
    double neg;
    Pool pool;
    Key key;
    int threads;
};

struct ActMixArgs {
    const void* x;         // [B, C, H, W] dense, NCHW or NHWC
    const void* scale;     // [C] or null; float (double where x is double)
    const void* shift;     // [C] or null; as scale
    const void* residual;  // shape, dtype and layout of x; or null
    void* y;               // [B, C, PH, PW] in the layout of x
    uint8_t* codes;        // shape and layout of y, rows in the order of x; or null
    Dtype x_dtype, y_dtype;
    int64_t C, H, W, PH, PW;
    bool channels_last;
    Activation activation;
    double slope;
    Pool pool;
    Key key;
    int threads;
    const float* slope_at = nullptr;  // CUDA: where the slope lies on the device, instead of `slope`
};

// The linearisation of act_mix at the recorded codes, and its adjoint. With f = (code negative ? neg : pos):
//     jvp  y = mix(f * z[winner of the window])        vjp  z[winner] += f * unmix(y), z zero elsewhere
struct ActMixLinearArgs {
    void* z;               // [B, C, H, W] dense; read by jvp, written by vjp
    void* y;               // [B, C, PH, PW] in the layout of z; written by jvp, read by vjp
    const uint8_t* codes;  // shape and layout of y
    Dtype dtype;
    int64_t C, H, W, PH, PW;
    bool channels_last;
    double pos, neg;
    Pool pool;
    Key key;
    int threads;
    const float* neg_at = nullptr;  // CUDA: where `neg` lies on the device, instead of it
};

struct GroupMixArgs {
    const void* x;  // [B, n]
    void* y;        // [B, n]
    Dtype dtype;
    int64_t n;       // elements a row
    bool transpose;  // false: mix, true: unmix
    Key key;
    int threads;
    // With codes [B, n], rows in the order of the plain side, that side counts pos or neg times (act_mix without a
    // pool).
    const uint8_t* codes = nullptr;
    double pos = 1, neg = 1;
    const float* neg_at = nullptr;  // as in ActMixLinearArgs
};

struct UnmixLinearArgs {
    const void* y;       // [B, M, K] contiguous
    const void* weight;  // [N, K] contiguous, dtype of y
    const void* bias;    // [N] or null, dtype of y
    void* out;           // [B, M, N]
    Dtype dtype;
    int64_t M, K, N;
    Key key;
    int threads;
    bool tf32 = false;  // CUDA: whether float32 may be multiplied as TF32
};

// coeffs [groups, size, size]: Haar-distributed orthogonal matrices; with max_coeff < 1 a random walk from there to
// matrices without a larger |entry|, begun anew where it gets stuck. seed == nullptr: from the operating system's
// CSPRNG. Throws std::invalid_argument for a max_coeff that is too low for size, or above 1.
void sample_orthogonal(double* coeffs, int64_t groups, int64_t size, double max_coeff, const uint64_t* seed);

// order [n]: a uniform permutation.
void sample_permutation(int64_t* order, int64_t n, const uint64_t* seed);

// One instruction set's kernels.
struct CpuKernels {
    const char* capability;
    bool (*supported)();
    bool (*preferred)();
    void (*conv_mix)(const ConvMixArgs&);
    void (*conv_mix_vjp)(const ConvMixVjpArgs&);
    void (*act_mix)(const ActMixArgs&);
    void (*act_mix_jvp)(const ActMixLinearArgs&);
    void (*act_mix_vjp)(const ActMixLinearArgs&);
    void (*group_mix)(const GroupMixArgs&);
    void (*unmix_linear)(const UnmixLinearArgs&);
    // For benchmarks: `steps` rounds of independent float multiply-adds on each thread, the FLOP done as a result; and
    // a non-temporal copy, or with from == null a non-temporal fill.
    double (*fma_work)(int64_t steps, int threads);
    void (*copy_work)(void* to, const void* from, int64_t bytes, int threads);
};

}  // namespace facemix
