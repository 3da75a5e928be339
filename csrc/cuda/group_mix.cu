// group_mix and group_unmix on CUDA. One thread walks down a column: it reads the S values of a group at one position,
// keeps them (in registers where S is known at compile time), and writes the S mixed ones; so x is read once, y written
// once, both coalesced. It compiles; it has not run on a GPU yet.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "call.h"
#include "launch.h"

namespace facemix::cuda {
namespace {

constexpr int kThreads = 256;     // enough to hide latency at any register count this kernel needs
constexpr int kMaxSize = 64;      // S; the public limit
constexpr int kMaxGridY = 65535;  // CUDA's limit: groups beyond it are walked in a loop
constexpr int64_t kMaxGridX = 2147483647;

template <class E>
struct ComputeOf {
    using type = float;
};
template <>
struct ComputeOf<double> {
    using type = double;
};

// kSize: S where it is known at compile time, so that the column lives in registers; 0 for any other.
template <class E, int kSize>
__global__ void __launch_bounds__(kThreads) group_mix_kernel(const E* __restrict__ x,            // [B, n]
                                                             E* __restrict__ y,                  // [B, n]
                                                             const double* __restrict__ coeffs,  // [G, S, S]
                                                             const int64_t* __restrict__ order,  // [B]
                                                             int64_t n, int64_t groups, int size, bool transpose) {
    using T = typename ComputeOf<E>::type;
    T* c = reinterpret_cast<T*>(dynamic_shared);
    const int S = kSize ? kSize : size;
    for (int64_t g = blockIdx.y; g < groups; g += gridDim.y) {
        __syncthreads();  // the previous group's coefficients are still in use
        for (int k = threadIdx.x; k < S * S; k += kThreads)
            c[k] = T(coeffs[g * S * S + (transpose ? k % S * S + k / S : k)]);
        __syncthreads();
        for (int64_t e = blockIdx.x * int64_t(kThreads) + threadIdx.x; e < n; e += int64_t(gridDim.x) * kThreads) {
            T v[kSize ? kSize : kMaxSize];
            for (int j = 0; j < S; ++j) v[j] = T(x[(transpose ? order[g * S + j] : g * S + j) * n + e]);
            for (int i = 0; i < S; ++i) {
                T sum = T(0);
                for (int j = 0; j < S; ++j) sum += c[i * S + j] * v[j];
                y[(transpose ? g * S + i : order[g * S + i]) * n + e] = E(sum);
            }
        }
    }
}

template <class E>
void run(const GroupMixArgs& a, cudaStream_t stream) {
    const int64_t columns = (a.n + kThreads - 1) / kThreads;
    const dim3 grid(unsigned(columns < kMaxGridX ? columns : kMaxGridX),
                    unsigned(a.key.groups < kMaxGridY ? a.key.groups : kMaxGridY));
    const size_t shared = size_t(a.key.size * a.key.size) * sizeof(typename ComputeOf<E>::type);
    const auto start = [&](auto kernel) {
        launch("group_mix", kernel, grid, kThreads, shared, stream, static_cast<const E*>(a.x), static_cast<E*>(a.y),
               a.key.coeffs, a.key.order, a.n, a.key.groups, int(a.key.size), a.transpose);
    };
    switch (a.key.size) {
        case 4: return start(group_mix_kernel<E, 4>);
        case 8: return start(group_mix_kernel<E, 8>);
        case 16: return start(group_mix_kernel<E, 16>);
        default: return start(group_mix_kernel<E, 0>);
    }
}

}  // namespace

void group_mix(const GroupMixArgs& a, int device, void* stream) {
    if (a.key.groups == 0 || a.n == 0) return;
    const OnDevice here("group_mix", device);
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a.dtype) {
        case Dtype::f32: run<float>(a, s); break;
        case Dtype::f64: run<double>(a, s); break;
        case Dtype::bf16: run<__nv_bfloat16>(a, s); break;
        case Dtype::f16: run<__half>(a, s); break;
    }
}

}  // namespace facemix::cuda
