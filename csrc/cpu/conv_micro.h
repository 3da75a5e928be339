// The inner loop of conv_mix: a register block of rows x vectors, fed by one broadcast a row and one load a vector.
//
// In NHWC the lanes of a vector are output channels and the rows are pixels: weights are loaded, pixels broadcast.
// In NCHW the lanes are pixels and the rows are output channels: pixels are loaded, weights broadcast.
#pragma once

#include "element.h"

namespace facemix::FACEMIX_ISA {
namespace {

// What one step multiplies. `Elem` holds `kPack` input channels of a pixel or of a weight, each a `Part`.
template <class T>
struct Single {
    using Sum = T;
    using Elem = T;
    using Part = T;
    static constexpr int kPack = 1;
    static Vec<T> load_vector(const T* p) { return load(p); }
    static Vec<T> madd(Vec<T> sum, const T* a, Vec<T> b) { return sum + *a * b; }
};

#if defined(__AVX512BF16__)
// bfloat16 as it came: exact products of two channels, summed in float. Denormals count as zero.
struct BfloatPairs {
    using Sum = float;
    struct Elem {
        Bf16 parts[2];
    };
    using Part = Bf16;
    static constexpr int kPack = 2;
    static Vec<int> load_vector(const Elem* p) {
        Vec<int> v;
        memcpy(&v, p, sizeof v);
        return v;
    }
    static Vec<float> madd(Vec<float> sum, const Elem* a, Vec<int> b) {
        int pair;
        memcpy(&pair, a, sizeof pair);
        return Vec<float>(_mm512_dpbf16_ps(__m512(sum), __m512bh(_mm512_set1_epi32(pair)), __m512bh(b)));
    }
};
#endif

// Register blocks: rows * vectors sums, the vectors, and one broadcast.
constexpr bool kWide = kRegisters == 32;
constexpr int kChannelVectors = kWide ? 4 : 2;                       // NHWC, at most; then 2 and 1
constexpr int pixel_rows(int v) { return kWide && v < 4 ? 12 : 6; }  // NHWC, at most; then 8, 4, 2 and 1
constexpr int kPixelVectors = kWide ? 3 : 2;                         // NCHW, at most; then 2 and 1
constexpr int kChannelRows = kWide ? 8 : 6;                          // NCHW, at most; then 4, 2 and 1

template <class P>
struct Micro {
    using Sum = typename P::Sum;
    using Elem = typename P::Elem;
    static constexpr int W = kLanes<Sum>;

    // One tile of `images` images, which lie image_step and tile_step apart; its rows lie z_step apart:
    //     z[r][0..V*W) = act(bias + sum_k a[k][r] * b[k][0..V*W))
    // With PixelLanes a is weight [K][R] and b is in[off[k]..]; else a is in[off[k] + r * step] and b is weight
    // [K][V*W].
    struct Args {
        const Elem* in;
        int64_t image_step, images;
        const int32_t* off;
        int64_t K, step;
        const Elem* weight;
        const Sum* bias;
        Activation activation;
        Sum slope;
        Sum* z;
        int64_t z_step, tile_step;
    };
    template <int R, int V, bool PixelLanes>
    static void block(const Args& args) {
        for (int64_t j = 0; j < args.images; ++j)
            image<R, V, PixelLanes>(args, args.in + j * args.image_step, args.z + j * args.tile_step);
    }
    template <int R, int V, bool PixelLanes>
    __attribute__((always_inline)) static inline void image(const Args& args, const Elem* in, Sum* z) {
        const Vec<Sum> zero = {};
        const Elem* w = args.weight;
        Vec<Sum> acc[R][V];
        FACEMIX_UNROLL
        for (int q = 0; q < R * V; ++q)
            acc[q / V][q % V] = PixelLanes ? args.bias[q / V] - zero : load(args.bias + q % V * W);
        // Broadcasts are addressed as row + offset, with no arithmetic between them: a multiply-add would wait for its
        // port. The compiler would compute each row from the one before, so it is kept from knowing how they relate.
        constexpr int kPointers = PixelLanes ? 1 : R < 6 ? R : 6;
        const Elem* row[kPointers];
        FACEMIX_UNROLL
        for (int r = 0; r < kPointers; ++r) {
            row[r] = in + r * args.step;
            asm("" : "+r"(row[r]));
        }
        const int64_t further = kPointers * args.step;
        for (int64_t k = 0; k < args.K; ++k) {
            const int64_t at = args.off[k];
            const int64_t beyond = at + further;
            decltype(P::load_vector(w)) b[V];
            FACEMIX_UNROLL
            for (int v = 0; v < V; ++v) b[v] = P::load_vector((PixelLanes ? in + at : w) + v * W);
            FACEMIX_UNROLL
            for (int r = 0; r < R; ++r) {
                const Elem* a = PixelLanes ? w + r : row[r % kPointers] + (r < kPointers ? at : beyond);
                FACEMIX_UNROLL
                for (int v = 0; v < V; ++v) acc[r][v] = P::madd(acc[r][v], a, b[v]);
            }
            w += PixelLanes ? R : V * W;
        }
        // One test for the block, not one a vector.
        const Sum slope = args.slope;
        if (args.activation == Activation::relu)
            finish<R, V>(acc, z, args.z_step, [](Vec<Sum> s) { return relu<Sum>(s); });
        else if (args.activation == Activation::leaky)
            finish<R, V>(acc, z, args.z_step, [=](Vec<Sum> s) { return leaky<Sum>(s, slope); });
        else finish<R, V>(acc, z, args.z_step, [](Vec<Sum> s) { return s; });
    }
    template <int R, int V, class F>
    __attribute__((always_inline)) static inline void finish(const Vec<Sum> (&acc)[R][V], Sum* z, int64_t z_step,
                                                             F&& f) {
        FACEMIX_UNROLL
        for (int r = 0; r < R; ++r, z += z_step) {
            FACEMIX_UNROLL
            for (int v = 0; v < V; ++v) store(z + v * W, f(acc[r][v]));
        }
    }

    using Block = decltype(&block<1, 1, false>);
    // A block, and how many rows it has: as many as there are, at most.
    struct Choice {
        Block run;
        int rows;
    };
    template <int V, bool PixelLanes>
    static Choice choose(int64_t rows) {
        constexpr int most = PixelLanes ? kChannelRows : pixel_rows(V);
        if (rows >= most) return {block<most, V, PixelLanes>, most};
        if constexpr (most > 8)
            if (rows >= 8) return {block<8, V, PixelLanes>, 8};
        if (rows >= 4) return {block<4, V, PixelLanes>, 4};
        if (rows >= 2) return {block<2, V, PixelLanes>, 2};
        return {block<1, V, PixelLanes>, 1};
    }
    static Choice channel_lanes(int64_t vectors, int64_t pixels) {
        if constexpr (kChannelVectors == 4)
            if (vectors == 4) return choose<4, false>(pixels);
        return vectors == 2 ? choose<2, false>(pixels) : choose<1, false>(pixels);
    }
    static Choice pixel_lanes(int64_t vectors, int64_t channels) {
        if constexpr (kPixelVectors == 3)
            if (vectors == 3) return choose<3, true>(channels);
        return vectors == 2 ? choose<2, true>(channels) : choose<1, true>(channels);
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
