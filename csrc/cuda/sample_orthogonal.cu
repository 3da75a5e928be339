// Keys for training on CUDA: what csrc/cpu/sample_orthogonal.cpp computes, in double too, from Philox4x32-10 and a seed
// that lies on the device; nothing is read back. Never for a request. It compiles; it has not run on a GPU yet.
#include "call.h"
#include "launch.h"
#include "philox.h"

namespace facemix::cuda {
namespace {

// In (0, 1], 53 bits.
__device__ __forceinline__ double uniform(uint64_t bits) { return double((bits >> 11) + 1) * 0x1p-53; }

// Two standard normals, by Box and Muller.
__device__ __forceinline__ void normals(double (&z)[2], const Philox& random) {
    const double r = sqrt(-2 * log(uniform(random.half(0))));
    double s, c;
    sincospi(2 * uniform(random.half(1)), &s, &c);
    z[0] = r * c, z[1] = r * s;
}

// In shared memory lies [R | Q^T], [n][2n]: Gaussian and the identity at first. Each reflection H makes H [R | Q^T] of
// it; a thread has a whole column, and the one that H comes from stays as it is: nothing needs it any more.
constexpr int kMaxThreads = 128;
constexpr int64_t kMaxBlocks = 1024;  // of a grid: a block takes one matrix after the other
__global__ void __launch_bounds__(kMaxThreads)
    sample_orthogonal_kernel(double* __restrict__ coeffs,  // [groups, n, n]
                             int64_t groups, int n, const int64_t* __restrict__ seed) {
    double* w = reinterpret_cast<double*>(dynamic_shared);
    const int width = 2 * n, me = int(threadIdx.x), threads = int(blockDim.x);
    const uint64_t key = uint64_t(*seed);
    for (int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
        __syncthreads();  // the matrix before may still be read
        for (int pair = me; 2 * pair < n * n; pair += threads) {
            double z[2];
            normals(z, Philox({uint32_t(pair), uint32_t(g), uint32_t(g >> 32), 0}, key));
#pragma unroll
            for (int q = 0; q < 2; ++q) {
                const int e = 2 * pair + q;
                if (e == n * n) break;
                w[e / n * width + e % n] = z[q];
                w[e / n * width + n + e % n] = e % (n + 1) == 0;
            }
        }
        for (int k = 0; k < n; ++k) {
            __syncthreads();
            const double* row = w + k * width;
            double tail = 0;  // of column k, squared
            for (int i = k + 1; i < n; ++i) tail += w[i * width + k] * w[i * width + k];
            const double norm = sqrt(tail + row[k] * row[k]);
            const double alpha = row[k] > 0 ? -norm : norm;  // R_kk after the reflection
            const double vk = row[k] - alpha, vv = tail + vk * vk;
            for (int column = k + 1 + me; column < width; column += threads) {
                double* c = w + column;
                double dot = vk * c[k * width];
                for (int i = k + 1; i < n; ++i) dot += w[i * width + k] * c[i * width];
                const double factor = vv > 0 ? 2 * dot / vv : 0;
                for (int i = k + 1; i < n; ++i) c[i * width] -= factor * w[i * width + k];
                const double last = c[k * width] - factor * vk;  // reflections to come leave row k alone
                c[k * width] = alpha < 0 && column >= n ? -last : last;
            }
        }
        __syncthreads();
        for (int e = me; e < n * n; e += threads) coeffs[g * n * n + e] = w[e % n * width + n + e / n];
    }
    __syncthreads();
    for (int e = me; e < n * width; e += threads) static_cast<volatile double*>(w)[e] = 0;
}

// Every row gets a random word, and goes where it comes when these are sorted: all orders are as likely, but for equal
// words, whose rows stay in order (of n rows a chance of n^2 / 2^65).
constexpr int kOrderThreads = 256;
__global__ void __launch_bounds__(kOrderThreads)
    sample_permutation_kernel(int64_t* __restrict__ order, int64_t n, const int64_t* __restrict__ seed) {
    uint64_t* words = reinterpret_cast<uint64_t*>(dynamic_shared);
    const auto word = [key = uint64_t(*seed)](int64_t i) {
        return Philox({uint32_t(i), uint32_t(i >> 32), 0, 0}, key).half(0);
    };
    const int64_t b = int64_t(blockIdx.x) * kOrderThreads + threadIdx.x;
    const uint64_t mine = word(b);
    int64_t place = 0;
    for (int64_t i0 = 0; i0 < n; i0 += kOrderThreads) {
        __syncthreads();  // the words before may still be read
        words[threadIdx.x] = word(i0 + threadIdx.x);
        __syncthreads();
        for (int i = 0; i < kOrderThreads && i0 + i < n; ++i)
            place += words[i] < mine || (words[i] == mine && i0 + i < b);
    }
    if (b < n) order[b] = place;
}

}  // namespace

void sample_orthogonal(double* coeffs, int64_t groups, int64_t size, const int64_t* seed, int device, void* stream) {
    if (groups == 0) return;
    const OnDevice here("sample_orthogonal", device);
    const int64_t warps = (2 * size + 31) / 32;
    launch("sample_orthogonal", sample_orthogonal_kernel, unsigned(groups < kMaxBlocks ? groups : kMaxBlocks),
           unsigned(32 * warps), size_t(2 * size * size) * sizeof(double), static_cast<cudaStream_t>(stream), coeffs,
           groups, int(size), seed);
}

void sample_permutation(int64_t* order, int64_t n, const int64_t* seed, int device, void* stream) {
    if (n == 0) return;
    const OnDevice here("sample_permutation", device);
    launch("sample_permutation", sample_permutation_kernel, unsigned((n + kOrderThreads - 1) / kOrderThreads),
           kOrderThreads, kOrderThreads * sizeof(uint64_t), static_cast<cudaStream_t>(stream), order, n, seed);
}

}  // namespace facemix::cuda
