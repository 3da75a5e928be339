// group_mix and group_unmix on CUDA. A thread takes a column: it reads the S values of a group at a few positions, and
// writes the S mixed ones; so x is read once, y written once (of group sizes above 8 other than 16, x comes again from
// the caches). It compiles; it has not run on a GPU yet.
#include "launch.h"
#include "mixing.h"
#include "window.h"

namespace facemix::cuda {
namespace {

constexpr int kThreads = 128;   // small blocks, for rows may be short; several of them hide the latency
constexpr int kRegisters = 64;  // of a thread's sums: as much again for its inputs leaves half of a multiprocessor full

// With codes, the plain side counts pos or neg times. V: elements of a column.
template <class E, int kSize, int V, bool kCodes>
__global__ void __launch_bounds__(kThreads) group_mix_kernel(const E* __restrict__ x,  // [B, n]
                                                             E* __restrict__ y,        // [B, n]
                                                             const uint8_t* __restrict__ codes, const GroupMixArgs a) {
    using T = Compute<E>;
    Mixing<T, kSize> mixing(a.key);
    const Factors<T> factors(a);
    const int S = mixing.size();
    for (int64_t g = blockIdx.y; g < a.key.groups; g += gridDim.y) {
        mixing.read(a.key, g, a.transpose);
        const int64_t step = int64_t(gridDim.x) * kThreads * V;
        for (int64_t e = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V; e < a.n; e += step)
            for (int i0 = 0; i0 < S; i0 += mixing.kRows) {
                T sums[mixing.kRows][V];
                mixing.sum(sums, i0, [&](int j0, T(&values)[kChunk][V]) {
                    for_chunk(j0, S, [&](int q) {
                        load(values[q], x + (a.transpose ? mixing.sent(j0 + q) : g * S + j0 + q) * a.n + e);
                    });
                    if (kCodes && !a.transpose)
                        for_chunk(j0, S, [&](int q) { factors.scale(values[q], codes + (g * S + j0 + q) * a.n + e); });
                });
#pragma unroll
                for (int r = 0; r < mixing.kRows; ++r) {
                    const int i = i0 + r;
                    if (i >= S) break;
                    if (kCodes && a.transpose) factors.scale(sums[r], codes + (g * S + i) * a.n + e);
                    store(y + (a.transpose ? g * S + i : mixing.sent(i)) * a.n + e, sums[r]);
                }
            }
    }
    mixing.wipe();
}

const char* name_of(const GroupMixArgs& a) {
    if (a.codes) return a.transpose ? "act_mix_vjp" : "act_mix_jvp";
    return a.transpose ? "group_unmix" : "group_mix";
}

template <class E, int kSize, int V>
void run(const GroupMixArgs& a, cudaStream_t stream) {
    const auto start = [&](auto kernel) {
        launch(name_of(a), kernel, grid_of(a.n / V, a.key.groups, kThreads), kThreads,
               Mixing<Compute<E>, kSize>::shared_bytes(a.key.size), stream, static_cast<const E*>(a.x),
               static_cast<E*>(a.y), a.codes, a);
    };
    if (a.codes) start(group_mix_kernel<E, kSize, V, true>);
    else start(group_mix_kernel<E, kSize, V, false>);
}

}  // namespace

void group_mix(const GroupMixArgs& a, int device, void* stream) {
    if (a.key.groups == 0 || a.n == 0) return;
    const OnDevice here(name_of(a), device);
    const auto s = static_cast<cudaStream_t>(stream);
    with_dtype(a.dtype, [&](auto tag) {
        with_size(a.key.size, [&](auto size) {
            using E = typename decltype(tag)::type;
            constexpr int kSize = decltype(size)::value, V = vector_of<E, kSize, kRegisters>();
            if (packs(a.x, sizeof(E), a.n, V) && packs(a.y, sizeof(E), a.n, V) && packs(a.codes, 1, a.n, V))
                run<E, kSize, V>(a, s);
            else run<E, kSize, 1>(a, s);
        });
    });
}

}  // namespace facemix::cuda
