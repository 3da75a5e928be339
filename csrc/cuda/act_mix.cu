// act_mix on CUDA: p = maxpool(act(scale * x + shift + residual)), y = mix(p), written to the shuffled rows. A thread
// takes a column of y: it makes the S pooled values of a group at a few positions and mixes them in registers; so x is
// read once, or once and from the caches where windows overlap. It compiles; it has not run on a GPU yet.
#include "launch.h"
#include "mixing.h"
#include "plane.h"

namespace facemix::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRegisters = 32;  // of a thread's sums; the windows of a chunk of images need about as many

template <class E, int kSize, int V, bool kPool>
__global__ void __launch_bounds__(kThreads) act_mix_kernel(const E* __restrict__ x,               // [B, C, H, W]
                                                           const Compute<E>* __restrict__ scale,  // [C] or null
                                                           const Compute<E>* __restrict__ shift,  // [C] or null
                                                           const E* __restrict__ residual,        // as x, or null
                                                           uint8_t* __restrict__ codes,  // [B, C, PH, PW] or null
                                                           const ActMixArgs a, const Plane in, const Plane out) {
    using T = Compute<E>;
    Mixing<T, kSize> mixing(a.key);
    const int S = mixing.size();
    const T slope = negative_slope<T>(a);
    for (int64_t g = blockIdx.y; g < a.key.groups; g += gridDim.y) {
        mixing.read(a.key, g, false);
        const int64_t step = int64_t(gridDim.x) * kThreads * V;
        for (int64_t e = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V; e < out.size(); e += step) {
            const Plane::Place place = out.place(unsigned(e));
            T factor[V], offset[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const int c = place.c + (a.channels_last ? v : 0);
                factor[v] = scale ? scale[c] : T(1), offset[v] = shift ? shift[c] : T(0);
            }
            const Span rows = clip_window(place.h, a.pool.kh, a.pool.sh, a.pool.pad_h, a.H);
            const Span columns = clip_window(place.w, a.pool.kw, a.pool.sw, a.pool.pad_w, a.W);
            const int origin = in.at(place.c, place.h * int(a.pool.sh) - int(a.pool.pad_h),
                                     place.w * int(a.pool.sw) - int(a.pool.pad_w));
            for (int i0 = 0; i0 < S; i0 += mixing.kRows) {
                T sums[mixing.kRows][V];
                mixing.sum(sums, i0, [&](int j0, T(&values)[kChunk][V]) {
                    const int64_t b0 = g * S + j0;
                    WindowMax<T> window[kChunk][V];
                    const auto finish = [&](int q) {
                        int code[V];
#pragma unroll
                        for (int v = 0; v < V; ++v) values[q][v] = window[q][v].best, code[v] = window[q][v].code;
                        if (codes && i0 == 0) store(codes + (b0 + q) * out.size() + e, code);
                    };
                    // Element k of the windows, which lies at `at` in its image.
                    const auto add = [&](int at, int k) {
                        T z[kChunk][V], r[kChunk][V];
                        for_chunk(j0, S, [&](int q) { load(z[q], x + (b0 + q) * in.size() + at); });
                        if (residual)
                            for_chunk(j0, S, [&](int q) { load(r[q], residual + (b0 + q) * in.size() + at); });
                        for_chunk(j0, S, [&](int q) {
#pragma unroll
                            for (int v = 0; v < V; ++v) {
                                z[q][v] = z[q][v] * factor[v] + offset[v];
                                if (residual) z[q][v] += r[q][v];
                                window[q][v].add(z[q][v], k, slope);
                            }
                            if (!kPool) finish(q);
                        });
                    };
                    if constexpr (kPool) {
                        for (int kh = rows.begin; kh < rows.end; ++kh)
                            for (int kw = columns.begin; kw < columns.end; ++kw)
                                add(origin + kh * in.row_step() + kw * in.pixel_step(), kh * int(a.pool.kw) + kw);
                        for_chunk(j0, S, finish);
                    } else {
                        add(int(e), 0);
                    }
                });
#pragma unroll
                for (int r = 0; r < mixing.kRows; ++r) {
                    if (i0 + r >= S) break;
                    store_as(a.y_dtype, a.y, mixing.sent(i0 + r) * out.size() + e, sums[r]);
                }
            }
        }
    }
    mixing.wipe();
}

template <class E, int kSize, int V, bool kPool>
void run(const ActMixArgs& a, const Plane& in, const Plane& out, cudaStream_t stream) {
    using T = Compute<E>;
    launch("act_mix", act_mix_kernel<E, kSize, V, kPool>, grid_of(out.size() / V, a.key.groups, kThreads), kThreads,
           Mixing<T, kSize>::shared_bytes(a.key.size), stream, static_cast<const E*>(a.x),
           static_cast<const T*>(a.scale), static_cast<const T*>(a.shift), static_cast<const E*>(a.residual), a.codes,
           a, in, out);
}

template <class E, int kSize, bool kPool>
void choose_vector(const ActMixArgs& a, const Plane& in, const Plane& out, cudaStream_t stream) {
    constexpr int V = vector_of<E, kSize, kRegisters>();
    const bool whole = side_by_side(a, V) && packs(a.x, sizeof(E), in.size(), V) &&
                       packs(a.residual, sizeof(E), in.size(), V) && packs(a.codes, 1, out.size(), V) &&
                       packs(a.y, bytes_of(a.y_dtype), out.size(), V);
    if (whole) run<E, kSize, V, kPool>(a, in, out, stream);
    else run<E, kSize, 1, kPool>(a, in, out, stream);
}

}  // namespace

void act_mix(const ActMixArgs& a, int device, void* stream) {
    const Plane in = plane_of("act_mix", a), out = pooled_plane_of(a);
    if (a.key.groups == 0 || out.size() == 0) return;
    const OnDevice here("act_mix", device);
    const auto s = static_cast<cudaStream_t>(stream);
    with_dtype(a.x_dtype, [&](auto tag) {
        with_size(a.key.size, [&](auto size) {
            using E = typename decltype(tag)::type;
            if (a.pool.identity()) choose_vector<E, decltype(size)::value, false>(a, in, out, s);
            else choose_vector<E, decltype(size)::value, true>(a, in, out, s);
        });
    });
}

}  // namespace facemix::cuda
