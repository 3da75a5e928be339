// What a block of conv_mix's fast way holds in shared memory, and how it gets there.
#pragma once

#include "call.h"
#include "conv_mix_product.h"

namespace facemix::cuda {

template <class Product, int kImages>
struct ConvMixStage {
    using Element = typename Product::Element;
    static constexpr TileKind kKind = {int(sizeof(Element)), Product::kStepUnits, kImages};
    static constexpr int kTiles = kKind.tiles(), kSlots = kKind.slots(), kChannels = kKind.channels(),
                         kTogether = kKind.together(), kSets = kImages / kTogether;

    const ConvMixArgs& a;
    const Tiling& t;
    const int S = int(a.key.size);
    int thread, lane, warp;                       // this one
    const int pitch = patch_pitch(t, kTogether);  // of a set of images
    TilePlace place = {};
    int turn = 1;  // whose it is of two patches

    float* const coeffs = reinterpret_cast<float*>(dynamic_shared);                // [kImages][kImages], 0 past S
    int64_t* const sent = reinterpret_cast<int64_t*>(coeffs + kImages * kImages);  // [S]: rows of y
    float* const bias = reinterpret_cast<float*>(dynamic_shared + t.bias);         // [blocks * kChannels]
    int* const offsets =
        reinterpret_cast<int*>(dynamic_shared + t.offsets);  // [steps * kStepUnits]: bytes; -1: no unit
    uint4* const weights =
        reinterpret_cast<uint4*>(dynamic_shared + t.weights);                   // [chunk][block][steps][kTiles][kSlots]
    uint2* const patches = reinterpret_cast<uint2*>(dynamic_shared + t.patch);  // [t.patches][kSets][patch_pitch]
    float* const values = reinterpret_cast<float*>(dynamic_shared + t.values);  // [S][conv pixels][kValuePitch]

    __device__ __forceinline__ ConvMixStage(const ConvMixArgs& args, const Tiling& tiling) : a(args), t(tiling) {
        renew();
    }

    // Between the phases of a tile, so that none of them computes what follows from these for the next, in registers
    // that there are not.
    __device__ __forceinline__ void renew() {
        thread = fresh(int(threadIdx.x)), lane = thread % kWarp, warp = thread / kWarp;
    }

    // What all tiles share.
    __device__ __forceinline__ void prepare() {
        const int units = int(a.KH * a.KW) * t.units;
        for (int q = thread; q < t.steps * Product::kStepUnits; q += kTileThreads)
            offsets[q] = q < units ? unit_offset(a, t, q) * kTogether * kUnitBytes : -1;
        for (int c = thread; c < t.blocks * kChannels; c += kTileThreads)
            bias[c] = a.bias && c < a.OC ? float(static_cast<const Element*>(a.bias)[c]) : 0;
        // Two patches take turns only with whole chunks, and those fill their steps: nobody reads zeros in the second.
        static_assert(kChunkChannels / Product::kUnit % Product::kStepUnits == 0);
        if (thread < kImages) patches[(thread / kTogether + 1) * pitch - 1 - thread % kTogether] = {0, 0};
        __syncthreads();
    }

    // What the products of a tile, a block of output channels and a chunk read, as far as it is not there. Of two
    // patches, one comes in for those that follow.
    __device__ __forceinline__ void stage(int64_t tile, int block, int chunk) {
        const bool first = block == 0 && chunk == 0, very_first = first && tile == blockIdx.x;
        const bool new_patch = block == 0 || t.chunks > 1, new_weights = t.resident ? very_first : true;
        if (!new_patch && !new_weights) return;
        renew();
        __syncthreads();  // what was there is still in use
        if (new_patch) {
            turn ^= 1;
            for (int ahead = very_first ? 0 : t.patches - 1; ahead < t.patches; ++ahead)
                fill_patch(tile, block, chunk, ahead);
        }
        if (new_weights && t.resident) fill_weights(0, t.chunks * t.blocks);
        else if (new_weights) fill_weights(chunk * t.blocks + block, 1);
        if (first) fill_key();
        if (t.patches == 1) cp_async_wait<0>();
        else cp_async_wait<1>();  // the patch that comes in may be on its way
        __syncthreads();
    }
    __device__ __forceinline__ const uint4* weights_of(int block, int chunk) const {
        return weights + (t.resident ? chunk * t.blocks + block : 0) * t.steps * kTiles * kSlots;
    }
    // The patch that is multiplied now, or the one after it.
    __device__ __forceinline__ uint2* patch(int ahead) const {
        return patches + ((turn ^ ahead) & (t.patches - 1)) * kSets * pitch;
    }

    // Leaves no coefficients behind.
    __device__ __forceinline__ void wipe() {
        __syncthreads();
        for (int k = thread; k < kImages * kImages; k += kTileThreads) static_cast<volatile float*>(coeffs)[k] = 0;
    }

  private:
    __device__ __forceinline__ void fill_key() {
        for (int k = thread; k < kImages * kImages; k += kTileThreads) {
            const int i = k / kImages, j = k % kImages;
            coeffs[k] = i < S && j < S ? float(a.key.coeffs[(place.group * S + i) * S + j]) : 0;
        }
        for (int i = thread; i < S; i += kTileThreads) sent[i] = a.key.order[place.group * S + i];
    }

    // Weights in the order that lanes read them: `count` parts, each of a chunk and a block, from part `first` on.
    __device__ __forceinline__ void fill_weights(int first, int count) {
        for (int s = thread; s < count * t.steps * kTiles * kSlots; s += kTileThreads) {
            const int slot = s % kSlots, tile = s / kSlots % kTiles, steps = s / (kSlots * kTiles);
            const int part = first + steps / t.steps, chunk = part / t.blocks, channel = part % t.blocks * kChannels;
            const int q = steps % t.steps * Product::kStepUnits + slot % Product::kStepUnits;
            const int row = slot / Product::kStepUnits;
            const uint2 low = weight_unit(channel + channel_of_row(tile, row, t.run), q, chunk);
            const uint2 high = weight_unit(channel + channel_of_row(tile, row + 8, t.run), q, chunk);
            weights[s] = {low.x, high.x, low.y, high.y};
        }
    }
    __device__ __forceinline__ uint2 weight_unit(int channel, int q, int chunk) const {
        const int taps = int(a.KH * a.KW), tap = q / t.units;
        const int first = (chunk * t.units + q % t.units) * Product::kUnit;
        const bool real = channel < a.OC && tap < taps;
        const Element* from = static_cast<const Element*>(a.weight) + (channel * a.C + first) * taps + tap;
        return gather(from, taps, real ? int(a.C) - first : 0);
    }

    // `ahead`: 0, the patch of this tile, block and chunk; 1, that of the one that follows, if any does.
    __device__ __forceinline__ void fill_patch(int64_t tile, int block, int chunk, int ahead) {
        constexpr int kBatch = 8;  // units that are on their way at once
        TilePlace at = place;
        chunk += ahead;
        if (chunk == t.chunks) {
            chunk = 0;
            if (block + 1 == t.blocks) at = place_of_tile(t, tile + gridDim.x);
        }
        const int64_t h = (at.ph * a.pool.sh - a.pool.pad_h) * a.stride[0] - a.padding[0];
        const int64_t v = (at.pw * a.pool.sw - a.pool.pad_w) * a.stride[1] - a.padding[1];
        const Element* x = static_cast<const Element*>(a.x) + at.group * S * a.x_strides[0];
        const int pixels = at.group < a.key.groups ? S * t.patch_h * t.patch_w : 0;
        uint2* const to = patch(ahead);
        PatchWalk walk(t, thread);
        for (int p = thread, u = 0; p < pixels;) {
            uint2 units[kBatch];
            int places[kBatch];
#pragma unroll
            for (int b = 0; b < kBatch; ++b) {
                places[b] = p < pixels ? patch_unit(t, kTogether, walk.image, walk.row, walk.column, u) : -1;
                if (p >= pixels) continue;
                const int64_t row = h + walk.row, column = v + walk.column;
                const int c = (chunk * t.units + u) * Product::kUnit;
                const bool inside = row >= 0 && row < a.H && column >= 0 && column < a.W;
                const int count = inside ? int(a.C) - c : 0;
                const Element* from = x + walk.image * a.x_strides[0] + c * a.x_strides[1] + row * a.x_strides[2] +
                                      column * a.x_strides[3];
                if (t.async) cp_async<kUnitBytes>(to + places[b], count > 0 ? from : x, count > 0);
                else units[b] = gather(from, a.x_strides[1], count);
                if (++u == t.units) u = 0, p += kTileThreads, walk.next();
            }
            if (t.async) continue;
#pragma unroll
            for (int b = 0; b < kBatch; ++b)
                if (places[b] >= 0) to[places[b]] = units[b];
        }
        cp_async_commit();
    }

    // A unit of which `count` channels exist.
    __device__ __forceinline__ static uint2 gather(const Element* from, int64_t step, int count) {
        Element channels[Product::kUnit];
#pragma unroll
        for (int e = 0; e < Product::kUnit; ++e) channels[e] = e < count ? from[e * step] : Element(0.f);
        return Product::unit(channels);
    }
};

}  // namespace facemix::cuda
