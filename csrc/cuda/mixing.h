// The S x S product of a group: its key in shared memory, the sums in registers.
#pragma once

#include "call.h"
#include "element.h"

namespace facemix::cuda {

// Of a grid: what lies beyond is walked in a loop. So many blocks are more than a device runs at once.
constexpr int64_t kMaxGroups = 1024;
constexpr int64_t kMaxColumns = 1 << 20;

constexpr int kChunk =
    4;  // inputs of a product that a thread reads before it uses the first: they are under way at once

// Calls f(q) for the inputs j0 + q of a chunk.
template <class F>
__device__ __forceinline__ void for_chunk(int j0, int S, F&& f) {
#pragma unroll
    for (int q = 0; q < kChunk; ++q)
        if (j0 + q < S) f(q);
}

// sums[r] = sum_j c[j * width + r] v_j, where read(j0, v) sets the V elements v[q] of the inputs j0 + q of a chunk.
template <int kUnroll, int kRows, int V, class T, class Read>
__device__ __forceinline__ void mix(T (&sums)[kRows][V], const T* c, int width, int S, Read&& read) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int v = 0; v < V; ++v) sums[r][v] = T(0);
#pragma unroll(kUnroll)
    for (int j0 = 0; j0 < S; j0 += kChunk) {
        T values[kChunk][V] = {};
        read(j0, values);
        for_chunk(j0, S, [&](int q) {
            T column[kRows];
            load(column, c + (j0 + q) * width);
#pragma unroll
            for (int r = 0; r < kRows; ++r)
#pragma unroll
                for (int v = 0; v < V; ++v) sums[r][v] += column[r] * values[q][v];
        });
    }
}

// kSize: S where it is known at compile time, 0 for any other. A thread sums kRows outputs at once, of V elements each:
// all S of them where S is known, else as many in each of several passes over the inputs.
template <class T, int kSize>
class Mixing {
  public:
    static constexpr int kRows = kSize ? kSize : 8;

    static size_t shared_bytes(int64_t S) {
        return size_t(S * width(int(S))) * sizeof(T) + size_t(S) * sizeof(int64_t);
    }

    __device__ explicit Mixing(const Key& key)
        : size_(int(key.size)),
          c_(reinterpret_cast<T*>(dynamic_shared)),
          sent_(reinterpret_cast<int64_t*>(c_ + size() * width(size()))) {}

    __device__ __forceinline__ int size() const { return kSize ? kSize : size_; }
    // The row that output i of the mix is sent as.
    __device__ __forceinline__ int64_t sent(int i) const { return sent_[i]; }

    // Takes over from the key of another group; all threads of the block.
    __device__ void read(const Key& key, int64_t g, bool transpose) {
        const int S = size(), w = width(S);
        __syncthreads();  // the other key may still be in use
        for (int k = threadIdx.x; k < S * w; k += blockDim.x) {
            const int j = k / w, i = k % w;
            c_[k] = i < S ? T(key.coeffs[(g * S + (transpose ? j : i)) * S + (transpose ? i : j)]) : T(0);
        }
        for (int i = threadIdx.x; i < S; i += blockDim.x) sent_[i] = key.order[g * S + i];
        __syncthreads();
    }

    // sums[r] = sum_j A[i0 + r][j] v_j, or the transpose; read as in mix().
    template <int V, class Read>
    __device__ __forceinline__ void sum(T (&sums)[kRows][V], int i0, Read&& read) const {
        mix<(kSize ? kSize : 1)>(sums, c_ + i0, width(size()), size(), read);
    }

    // Leaves no coefficients behind; all threads of the block, after the last use.
    __device__ void wipe() {
        __syncthreads();
        volatile T* c = c_;
        for (int k = threadIdx.x; k < size() * width(size()); k += blockDim.x) c[k] = T(0);
    }

  private:
    // Coefficients lie column by column, c_[j * width + i] = A[i][j]: those of kRows outputs side by side.
    __host__ __device__ static constexpr int width(int S) { return kSize ? kSize : (S + kRows - 1) / kRows * kRows; }

    int size_;
    T* c_;           // [S][width]
    int64_t* sent_;  // [S]
};

// Elements of type E that a thread takes at once: one access, but no more than its sums have registers for.
template <class E, int kSize, int kRegisters>
constexpr int vector_of() {
    constexpr int sums = Mixing<Compute<E>, kSize>::kRows * int(sizeof(Compute<E>)) / 4;  // registers an element
    int V = kAccess / int(sizeof(E));
    while (V > 1 && V * sums > kRegisters) V /= 2;
    return V;
}

// A thread for every column of every group.
inline dim3 grid_of(int64_t columns, int64_t groups, int threads) {
    const int64_t blocks = (columns + threads - 1) / threads;
    return dim3(unsigned(blocks < kMaxColumns ? blocks : kMaxColumns),
                unsigned(groups < kMaxGroups ? groups : kMaxGroups));
}

template <int kNumber>
struct Int {
    static constexpr int value = kNumber;
};

// Calls f(Int<S>) for the group sizes that have kernels of their own, f(Int<0>) for the others.
template <class F>
void with_size(int64_t S, F&& f) {
    switch (S) {
        case 4: return f(Int<4>{});
        case 8: return f(Int<8>{});
        case 16: return f(Int<16>{});
        default: return f(Int<0>{});
    }
}

}  // namespace facemix::cuda
