// The linearisation of act_mix at the recorded codes on CUDA, and its adjoint:
//     jvp  y = mix(f * z[winner])          vjp  z[winner] += f * unmix(y),   f = code negative ? neg : pos
// Without a pool every element is its own window, and group_mix does it. The adjoint gathers: a thread takes a cell of
// z, un-mixes the windows that its pixels lie in, and keeps of each what they won; so there are no atomics, the order
// of the sums is fixed, and z is written once. It compiles; it has not run on a GPU yet.
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

// A cell has kSide x kSide pixels: one, or those that share their last window under a stride of 2, in both directions.
// Their windows are un-mixed once for all of them: under a 3x3 pool four for four pixels, not nine.
template <class E, int kSize, int V, int kSide>
__global__ void __launch_bounds__(kThreads, kBlocks)
    act_mix_vjp_kernel(const E* __restrict__ y,            // [B, C, PH, PW]
                       E* __restrict__ z,                  // [B, C, H, W]
                       const uint8_t* __restrict__ codes,  // [B, C, PH, PW]
                       const ActMixLinearArgs a, const Plane in, const Plane out, const Plane cells) {
    using T = Compute<E>;
    constexpr int kPixels = kSide * kSide;
    Mixing<T, kSize> mixing(a.key);
    const Factors<T> factors(a);
    const int S = mixing.size(), pad_h = int(a.pool.pad_h), pad_w = int(a.pool.pad_w);
    const int kernel_height = int(a.pool.kh), kernel_width = int(a.pool.kw);
    for (int64_t g = blockIdx.y; g < a.key.groups; g += gridDim.y) {
        mixing.read(a.key, g, true);
        const int64_t step = int64_t(gridDim.x) * kThreads * V;
        for (int64_t e = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * V; e < cells.size(); e += step) {
            const Plane::Place cell = cells.place(unsigned(e));
            // The cell's first pixel: its windows are those of all of them.
            const int h0 = kSide == 1 ? cell.h : cell.h * kSide - pad_h;
            const int w0 = kSide == 1 ? cell.w : cell.w * kSide - pad_w;
            const Span rows = windows_of(h0, a.pool.kh, a.pool.sh, a.pool.pad_h, a.PH);
            const Span columns = windows_of(w0, a.pool.kw, a.pool.sw, a.pool.pad_w, a.PW);
            for (int j0 = 0; j0 < S; j0 += mixing.kRows) {
                T sums[kPixels][mixing.kRows][V] = {};
                for (int ph = rows.begin; ph < rows.end; ++ph)
                    for (int pw = columns.begin; pw < columns.end; ++pw) {
                        const int at = out.at(cell.c, ph, pw);
                        asm volatile("" ::: "memory");  // coefficients are read again: registers would not hold them
                        T won[mixing.kRows][V];
                        int winner[mixing.kRows][V] = {};
                        mixing.sum(won, j0, [&](int i0, T(&values)[kChunk][V]) {
                            for_chunk(i0, S,
                                      [&](int q) { load(values[q], y + mixing.sent(i0 + q) * out.size() + at); });
                        });
#pragma unroll
                        for (int r = 0; r < mixing.kRows; ++r) {
                            if (j0 + r >= S) break;
                            int code[V];
                            load(code, codes + (g * S + j0 + r) * out.size() + at);
#pragma unroll
                            for (int v = 0; v < V; ++v) {
                                won[r][v] *= factors.of(uint8_t(code[v]));
                                winner[r][v] = code[v] & kCodeWindow;
                            }
                        }
#pragma unroll
                        for (int p = 0; p < kPixels; ++p) {
                            const int kh = h0 + p / kSide + pad_h - ph * int(a.pool.sh);
                            const int kw = w0 + p % kSide + pad_w - pw * int(a.pool.sw);
                            if (kSide > 1 && (kh >= kernel_height || kw >= kernel_width)) continue;
#pragma unroll
                            for (int r = 0; r < mixing.kRows; ++r)
#pragma unroll
                                for (int v = 0; v < V; ++v)
                                    if (winner[r][v] == kh * kernel_width + kw) sums[p][r][v] += won[r][v];
                        }
                    }
#pragma unroll
                for (int p = 0; p < kPixels; ++p) {
                    const int h = h0 + p / kSide, w = w0 + p % kSide;
                    if (unsigned(h) >= in.H || unsigned(w) >= in.W) continue;
                    E* to = z + (g * S + j0) * in.size() + in.at(cell.c, h, w);
#pragma unroll
                    for (int r = 0; r < mixing.kRows; ++r)
                        if (j0 + r < S) store(to + r * in.size(), sums[p][r]);
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

template <class E, int kSize, int kSide>
void run_vjp(const ActMixLinearArgs& a, const Plane& in, const Plane& out, const Plane& cells, cudaStream_t stream) {
    const auto start = [&](auto kernel, int V) {
        launch("act_mix_vjp", kernel, grid_of(cells.size() / V, a.key.groups, kThreads), kThreads,
               Mixing<Compute<E>, kSize>::shared_bytes(a.key.size), stream, static_cast<const E*>(a.y),
               static_cast<E*>(a.z), a.codes, a, in, out, cells);
    };
    constexpr int V = vector_of<E, kSize, kRegisters / kSide>();
    const bool whole = side_by_side(a, V) && packs(a.y, sizeof(E), out.size(), V) &&
                       packs(a.z, sizeof(E), in.size(), V) && packs(a.codes, 1, out.size(), V);
    if (whole) start(act_mix_vjp_kernel<E, kSize, V, kSide>, V);
    else start(act_mix_vjp_kernel<E, kSize, 1, kSide>, 1);
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
    const Plane cells = {in.channels_last, in.C, unsigned(a.H - 1 + a.pool.pad_h) / 2 + 1,
                         unsigned(a.W - 1 + a.pool.pad_w) / 2 + 1};
    const bool share = a.pool.sh == 2 && a.pool.sw == 2 && cells.size() <= in.size();
    if (a.key.groups == 0 || (kAdjoint ? in : out).size() == 0) return;
    const OnDevice here(op, device);
    const auto s = static_cast<cudaStream_t>(stream);
    with_dtype(a.dtype, [&](auto tag) {
        with_size(a.key.size, [&](auto size) {
            using E = typename decltype(tag)::type;
            constexpr int kSize = decltype(size)::value;
            constexpr int kSide = sizeof(E) < 8 ? 2 : 1;  // more doubles than that would spill
            if (!kAdjoint) run_jvp<E, kSize>(a, in, out, s);
            else if (share && kSide == 2) run_vjp<E, kSize, kSide>(a, in, out, cells, s);
            else run_vjp<E, kSize, 1>(a, in, out, in, s);
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
