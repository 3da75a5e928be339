// The inner loop of conv_mix_vjp: outer products of the windows of pixels with vectors of output channels, summed in a
// register block of rows (elements of the weight's window) x vectors.
#pragma once

#include "conv_micro.h"

namespace facemix::FACEMIX_ISA {
namespace {

template <class T>
struct OuterMicro {
    static constexpr int W = kLanes<T>;

    // sums[r][0..V*W) += sum over n pixels p of in[off[r] + p * step] * u[p * u_step + 0..V*W)
    struct Args {
        const T* in;
        const int32_t* off;
        int64_t step;
        const T* u;
        int64_t u_step, n;
        T* sums;
        int64_t sums_step;
    };
    template <int R, int V>
    static void block(const Args& args) {
        Vec<T> acc[R][V];
        FACEMIX_UNROLL
        for (int q = 0; q < R * V; ++q) acc[q / V][q % V] = Vec<T>{};
        // As in conv_micro.h: broadcasts are addressed as row + offset.
        const T* row[R];
        FACEMIX_UNROLL
        for (int r = 0; r < R; ++r) {
            row[r] = args.in + args.off[r];
            asm("" : "+r"(row[r]));
        }
        const T* u = args.u;
        for (int64_t p = 0, at = 0; p < args.n; ++p, at += args.step, u += args.u_step) {
            Vec<T> b[V];
            FACEMIX_UNROLL
            for (int v = 0; v < V; ++v) b[v] = load(u + v * W);
            FACEMIX_UNROLL
            for (int r = 0; r < R; ++r) {
                FACEMIX_UNROLL
                for (int v = 0; v < V; ++v) acc[r][v] += row[r][at] * b[v];
            }
        }
        // The sums of a run are added to those of the runs before, so that rounding errors do not grow with the batch.
        T* sums = args.sums;
        FACEMIX_UNROLL
        for (int r = 0; r < R; ++r, sums += args.sums_step) {
            FACEMIX_UNROLL
            for (int v = 0; v < V; ++v) store(sums + v * W, load(sums + v * W) + acc[r][v]);
        }
    }

    // A block, and how many rows it has: as many as there are, at most.
    struct Choice {
        void (*run)(const Args&);
        int rows;
    };
    template <int V>
    static Choice choose(int64_t rows) {
        // Each row has an address of its own: of more than 8, x86 would keep some on the stack.
        if constexpr (kWide && V < 4)
            if (rows >= 8) return {block<8, V>, 8};
        if (rows >= 6) return {block<6, V>, 6};
        if (rows >= 4) return {block<4, V>, 4};
        if (rows >= 2) return {block<2, V>, 2};
        return {block<1, V>, 1};
    }
    static Choice choose(int64_t vectors, int64_t rows) {
        if constexpr (kChannelVectors == 4)
            if (vectors == 4) return choose<4>(rows);
        return vectors == 2 ? choose<2>(rows) : choose<1>(rows);
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
