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
    static Vec<T> madd(Vec<T> sum, T a, Vec<T> b) { return sum + a * b; }
};

// Register blocks: rows * vectors sums, the vectors, and one broadcast.
constexpr bool kWide = kRegisters == 32;
constexpr int kChannelVectors = kWide ? 4 : 2;  // NHWC, at most; 2 and 1 for the rest of the channels
constexpr int pixel_rows(int v) { return v == 4 ? 6 : kWide ? 12 : 6; }  // NHWC, at most; 8, 4, 2, 1 for the rest
constexpr int kPixelVectors = 3;             // NCHW, at most; 2 and 1 for the rest of a line
constexpr int kChannelRows = kWide ? 8 : 4;  // NCHW

template <class P>
struct Micro {
    using Sum = typename P::Sum;
    using Elem = typename P::Elem;
    static constexpr int W = kLanes<Sum>;

    // One tile of `images` images, which lie image_step and tile_step apart:
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
        int64_t tile_step;
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
        for (int r = 0; r < R; ++r) FACEMIX_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = PixelLanes ? args.bias[r] - zero : load(args.bias + v * W);
        for (int64_t k = 0; k < args.K; ++k) {
            const Elem* at = in + args.off[k];
            Vec<Elem> b[V];
            FACEMIX_UNROLL
            for (int v = 0; v < V; ++v) b[v] = load((PixelLanes ? at : w) + v * W);
            FACEMIX_UNROLL
            for (int r = 0; r < R; ++r) {
                const Elem a = PixelLanes ? w[r] : at[r * args.step];
                FACEMIX_UNROLL
                for (int v = 0; v < V; ++v) acc[r][v] = P::madd(acc[r][v], a, b[v]);
            }
            w += PixelLanes ? R : V * W;
        }
        // One test for the block, not one a vector.
        const Sum slope = args.slope;
        if (args.activation == Activation::relu) finish<R, V>(acc, z, [](Vec<Sum> s) { return relu<Sum>(s); });
        else if (args.activation == Activation::leaky)
            finish<R, V>(acc, z, [=](Vec<Sum> s) { return leaky<Sum>(s, slope); });
        else finish<R, V>(acc, z, [](Vec<Sum> s) { return s; });
    }
    template <int R, int V, class F>
    __attribute__((always_inline)) static inline void finish(const Vec<Sum> (&acc)[R][V], Sum* z, F&& f) {
        FACEMIX_UNROLL
        for (int r = 0; r < R; ++r) FACEMIX_UNROLL
        for (int v = 0; v < V; ++v) store(z + (r * V + v) * W, f(acc[r][v]));
    }

    using Block = decltype(&block<1, 1, false>);

    // The largest block of at most `rows` pixels for `vectors` vectors of channels.
    struct Choice {
        Block run;
        int rows;
    };
    template <int V>
    static Choice channel_lanes(int64_t rows) {
        constexpr int most = pixel_rows(V);
        if (rows >= most) return {block<most, V, false>, most};
        if constexpr (most > 8)
            if (rows >= 8) return {block<8, V, false>, 8};
        if (rows >= 4) return {block<4, V, false>, 4};
        if (rows >= 2) return {block<2, V, false>, 2};
        return {block<1, V, false>, 1};
    }
    static Choice channel_lanes(int vectors, int64_t rows) {
        if constexpr (kChannelVectors == 4)
            if (vectors == 4) return channel_lanes<4>(rows);
        return vectors == 2 ? channel_lanes<2>(rows) : channel_lanes<1>(rows);
    }
    static Block pixel_lanes(int vectors) {
        return vectors == 3   ? block<kChannelRows, 3, true>
               : vectors == 2 ? block<kChannelRows, 2, true>
                              : block<kChannelRows, 1, true>;
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
