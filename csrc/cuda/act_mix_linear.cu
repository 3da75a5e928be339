// The linearisation of act_mix at the recorded codes on CUDA, and its adjoint:
//     jvp  y = mix(f * z[winner])          vjp  z[winner] += f * unmix(y),   f = code negative ? neg : pos
// Without a pool every element is its own window, and group_mix does it. The adjoint gathers: a thread takes a column
// of z, un-mixes the windows that the column lies in, and keeps of each what it won; so there are no atomics, the
// order of the sums is fixed, and z is written once. It compiles; it has not run on a GPU yet.
#include "launch.h"
#include "mixing.h"
#include "plane.h"

namespace facemix::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocks = 3;      // of a multiprocessor, at least: registers enough, and nothing spills
constexpr int kRegisters = 32;  // of a thread's sums: there are as many again of the windows'

// A thread takes one column: the winners of neighbouring windows do not lie side by side.
template <class E, int kSize>
__global__ void __launch_bounds__(kThreads, kBlocks)
    act_mix_jvp_kernel(const E* __restrict__ z,            // [B, C, H, W]
                       E* __restrict__ y,                  // [B, C, PH, PW]
                       const uint8_t* __restrict__ codes,  // [B, C, PH, PW]
                       const ActMixLinearArgs a, const Plane in, const Plane out) {
    using T = Compute<E>;
    Mixing<T, kSize> mixing(a.key);
    const Factors<T> factors(a);
    const int S = mixing.size(), kernel_width = int(a.pool.kw);
    for (int64_t g = blockIdx.y; g < a.key.groups; g += gridDim.y) {
        mixing.read(a.key, g, false);
        const int64_t step = int64_t(gridDim.x) * kThreads;
        for (int64_t e = int64_t(blockIdx.x) * kThreads + threadIdx.x; e < out.size(); e += step) {
            const Plane::Place place = out.place(unsigned(e));
            const int origin = in.at(place.c, place.h * int(a.pool.sh) - int(a.pool.pad_h),
                                     place.w * int(a.pool.sw) - int(a.pool.pad_w));
            for (int i0 = 0; i0 < S; i0 += mixing.kRows) {
                T sums[mixing.kRows][1];
                mixing.sum(sums, i0, [&](int j0, T(&values)[kChunk][1]) {
                    uint8_t code[kChunk];
                    for_chunk(j0, S, [&](int q) { code[q] = codes[(g * S + j0 + q) * out.size() + e]; });
                    for_chunk(j0, S, [&](int q) {
                        const int k = code[q] & kCodeWindow;
                        const int at = origin + k / kernel_width * in.row_step() + k % kernel_width * in.pixel_step();
                        values[q][0] = factors.of(code[q]) * T(z[(g * S + j0 + q) * in.size() + at]);
                    });
                });
#pragma unroll
                for (int r = 0; r < mixing.kRows; ++r) {
                    if (i0 + r >= S) break;
                    store(y + mixing.sent(i0 + r) * out.size() + e, sums[r]);
                }
            }
        }
    }
    mixing.wipe();
}

// The windows, in one direction, that pixel p lies in.
__device__ __forceinline__ Span windows_of(int p, int64_t kernel, int64_t stride, int64_t pad, int64_t windows) {
    const int before = p + int(pad) - int(kernel), last = (p + int(pad)) / int(stride);
    return {before < 0 ? 0 : before / int(stride) + 1, last < int(windows) ? last + 1 : int(windows)};
}

template <class E, int kSize, int V>
__global__ void __launch_bounds__(kThreads, kBlocks)
    act_mix_vjp_kernel(const E* __restrict__ y,            // [B, C, PH, PW]
                       E* __restrict__ z,                  // [B, C, H, W]
                       const uint8_t* __restrict__ codes,  // [B, C, PH, PW]
                       const ActMixLinearArgs a, const Plane in, const Plane out) {
    using T = Compute<E>;
    Mixing<T, kSize> mixing(a.key);
    const Factors<T> factors(a);
    const int S = mixing.size();
    for (int64_t g = blockIdx.y; g < a.key.groups; g += gridDim.y) {
        mixing.read(a.key, g, true);
        const int64_t step = int64_t(gridDim.x) * kThreads * V;
        for (int64_t e = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V; e < in.size(); e += step) {
            const Plane::Place place = in.place(unsigned(e));
            const Span rows = windows_of(place.h, a.pool.kh, a.pool.sh, a.pool.pad_h, a.PH);
            const Span columns = windows_of(place.w, a.pool.kw, a.pool.sw, a.pool.pad_w, a.PW);
            for (int j0 = 0; j0 < S; j0 += mixing.kRows) {
                T sums[mixing.kRows][V] = {};
                for (int ph = rows.begin; ph < rows.end; ++ph)
                    for (int pw = columns.begin; pw < columns.end; ++pw) {
                        const int at = out.at(place.c, ph, pw);
                        // This pixel's number in the window.
                        const int k = (place.h + int(a.pool.pad_h) - ph * int(a.pool.sh)) * int(a.pool.kw) + place.w +
                                      int(a.pool.pad_w) - pw * int(a.pool.sw);
                        asm volatile("" ::: "memory");  // coefficients are read again: registers would not hold them
                        T plain[mixing.kRows][V];
                        mixing.sum(plain, j0, [&](int i0, T(&values)[kChunk][V]) {
                            for_chunk(i0, S,
                                      [&](int q) { load(values[q], y + mixing.sent(i0 + q) * out.size() + at); });
                        });
#pragma unroll
                        for (int r = 0; r < mixing.kRows; ++r) {
                            if (j0 + r >= S) break;
                            int code[V];
                            load(code, codes + (g * S + j0 + r) * out.size() + at);
#pragma unroll
                            for (int v = 0; v < V; ++v)
                                if ((code[v] & kCodeWindow) == k)
                                    sums[r][v] += factors.of(uint8_t(code[v])) * plain[r][v];
                        }
                    }
#pragma unroll
                for (int r = 0; r < mixing.kRows; ++r) {
                    if (j0 + r >= S) break;
                    store(z + (g * S + j0 + r) * in.size() + e, sums[r]);
                }
            }
        }
    }
    mixing.wipe();
}

template <class E, int kSize>
void run_jvp(const ActMixLinearArgs& a, const Plane& in, const Plane& out, cudaStream_t stream) {
    launch("act_mix_jvp", act_mix_jvp_kernel<E, kSize>, grid_of(out.size(), a.key.groups, kThreads), kThreads,
           Mixing<Compute<E>, kSize>::shared_bytes(a.key.size), stream, static_cast<const E*>(a.z),
           static_cast<E*>(a.y), a.codes, a, in, out);
}

template <class E, int kSize>
void run_vjp(const ActMixLinearArgs& a, const Plane& in, const Plane& out, cudaStream_t stream) {
    const auto start = [&](auto kernel, int V) {
        launch("act_mix_vjp", kernel, grid_of(in.size() / V, a.key.groups, kThreads), kThreads,
               Mixing<Compute<E>, kSize>::shared_bytes(a.key.size), stream, static_cast<const E*>(a.y),
               static_cast<E*>(a.z), a.codes, a, in, out);
    };
    constexpr int V = vector_of<E, kSize, kRegisters>();
    const bool whole = side_by_side(a, V) && packs(a.y, sizeof(E), out.size(), V) &&
                       packs(a.z, sizeof(E), in.size(), V) && packs(a.codes, 1, out.size(), V);
    if (whole) start(act_mix_vjp_kernel<E, kSize, V>, V);
    else start(act_mix_vjp_kernel<E, kSize, 1>, 1);
}

template <bool kAdjoint>
void act_mix_linear(const char* op, const ActMixLinearArgs& a, int device, void* stream) {
    if (a.pool.identity()) {  // element by element
        GroupMixArgs flat{
            kAdjoint ? a.y : a.z, kAdjoint ? a.z : a.y, a.dtype, a.C * a.H * a.W, kAdjoint, a.key, a.threads};
        flat.codes = a.codes, flat.pos = a.pos, flat.neg = a.neg, flat.neg_at = a.neg_at;
        return group_mix(flat, device, stream);
    }
    const Plane in = plane_of(op, a), out = pooled_plane_of(a);
    if (a.key.groups == 0 || (kAdjoint ? in : out).size() == 0) return;
    const OnDevice here(op, device);
    const auto s = static_cast<cudaStream_t>(stream);
    with_dtype(a.dtype, [&](auto tag) {
        with_size(a.key.size, [&](auto size) {
            using E = typename decltype(tag)::type;
            if (kAdjoint) run_vjp<E, decltype(size)::value>(a, in, out, s);
            else run_jvp<E, decltype(size)::value>(a, in, out, s);
        });
    });
}

}  // namespace

void act_mix_jvp(const ActMixLinearArgs& a, int device, void* stream) {
    act_mix_linear<false>("act_mix_jvp", a, device, stream);
}
void act_mix_vjp(const ActMixLinearArgs& a, int device, void* stream) {
    act_mix_linear<true>("act_mix_vjp", a, device, stream);
}

}  // namespace facemix::cuda
