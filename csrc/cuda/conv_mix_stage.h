// What a block of conv_mix's fast way holds in shared memory, and how it gets there.
#pragma once

#include "call.h"
#include "conv_mix_product.h"

namespace facemix::cuda {

template <class Product, int kImages, Way kWay>
struct ConvMixStage {
    using Element = typename Product::Element;
    static constexpr TileKind kKind = {int(sizeof(Element)), Product::kStepUnits, kImages, kWay};
    static constexpr int kTiles = kKind.tiles(), kSlots = kKind.slots(), kChannels = kKind.channels(),
                         kRun = kKind.run(), kStrip = kKind.strip(), kWord = kKind.word(),
                         kValueRows = kKind.value_rows(), kValuePitch = kKind.value_pitch(),
                         kQuads = kImages / kTogether;
    static constexpr int kKeyWords = kKind.key_words();
    static constexpr bool kTensor = kKind.tensor(), kWalks = kKind.walks(), kTails = kKind.tails();
    static constexpr int kResults = kKind.results();

    const ConvMixArgs& a;
    const Tiling& t;
    const int S = int(a.key.size);
    const int64_t image_size = a.OC * a.PH * a.PW;  // of y
    int thread, lane, warp;                         // this one
    const int pitch = patch_pitch(t);               // of images side by side
    const Turns turns = turns_of_block(t, kWalks, a.key.groups* tiles_of_group(t), int(blockIdx.x), int(gridDim.x));
    TilePlace place = {};
    int turn = 1;  // whose it is of two patches

    uint32_t* const key = reinterpret_cast<uint32_t*>(dynamic_shared);      // [kKeyWords], of Product
    int64_t* const sent = reinterpret_cast<int64_t*>(key + kKeyWords);      // [S]: where rows of y begin
    float* const bias = reinterpret_cast<float*>(dynamic_shared + t.bias);  // [blocks * kChannels]
    // Of unit q of K: where it is in a patch, in bytes, and below, kSplit, if it is, and four bits, which halves of its
    // words have no weight; where the weights of its elements are, -1 for those.
    int* const places = reinterpret_cast<int*>(dynamic_shared + t.places);  // [steps * kStepUnits]
    int* const taps = reinterpret_cast<int*>(dynamic_shared + t.taps);      // [steps * kStepUnits][kUnitWords][kWord]
    uint4* const weights =
        reinterpret_cast<uint4*>(dynamic_shared + t.weights);  // [chunk][block][steps][kTiles][kSlots]
    // Of convolved pixels, by rows of images: [conv pixels][kValueRows][kValuePitch].
    uint32_t* const values = reinterpret_cast<uint32_t*>(dynamic_shared + t.values);

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
        for (int q = thread; q < t.steps.all * Product::kStepUnits; q += kTileThreads) describe_unit(q);
        for (int c = thread; c < t.blocks * kChannels; c += kTileThreads)
            bias[c] = a.bias && c < a.OC ? float(static_cast<const Element*>(a.bias)[c]) : 0;
        // Images past S are mixed with coefficients of zero: zeros, as what is not finite would count.
        uint32_t* const patches = reinterpret_cast<uint32_t*>(dynamic_shared + t.patch);
        const int words = S < kImages ? t.patches * kQuads * pitch * kPlaceBytes / kWordBytes : 0;
        for (int k = thread; k < words; k += kTileThreads) patches[k] = 0;
        __syncthreads();
    }

    // What the products of a tile, a block of output channels and a chunk read, as far as it is not there. Of two
    // patches, one comes in for those that follow.
    __device__ __forceinline__ void stage(int tile, int block, int chunk) {
        const bool first = block == 0 && chunk == 0, very_first = first && tile == turns.first;
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
        return weights + (t.resident ? chunk * t.blocks + block : 0) * t.steps.all * kTiles * kSlots;
    }
    // The patch that is multiplied now, or the one after it: [kQuads][pitch] places of kPlaceBytes.
    __device__ __forceinline__ unsigned char* patch(int ahead) const {
        return dynamic_shared + t.patch + ((turn ^ ahead) & (t.patches - 1)) * kQuads * pitch * kPlaceBytes;
    }

    // Leaves no coefficients behind.
    __device__ __forceinline__ void wipe() {
        __syncthreads();
        for (int k = thread; k < kKeyWords; k += kTileThreads) static_cast<volatile uint32_t*>(key)[k] = 0;
    }

  private:
    __device__ __forceinline__ void describe_unit(int q) {
        const KernelUnit unit = kernel_unit(a, t.units, kWord, q);
        int weightless = 0;
#pragma unroll
        for (int half = 0; half < 4; ++half) {
            const int w = half / 2, e = half % 2 * kWord / 2;
            const int tap = kernel_tap(a, t.units, kWord, unit, w, e);
            taps[(q * kUnitWords + w) * kWord + e] = tap;
            if (tap < 0) weightless |= 1 << half;
        }
        places[q] = unit_place(a, t, kWord, unit) * kPlaceBytes | weightless |
                    (unit_is_split(a, t.units, kWord, unit) ? kSplit : 0);
    }

    __device__ __forceinline__ void fill_key() {
        const auto coefficient = [&](int i, int j) {  // 0 past S
            return i < S && j < S ? float(a.key.coeffs[(int64_t(place.group) * S + i) * S + j]) : 0;
        };
        for (int k = thread; k < kKeyWords; k += kTileThreads)
            key[k] = Product::template key_word<kImages>(k, coefficient);
        for (int i = thread; i < S; i += kTileThreads) sent[i] = a.key.order[int64_t(place.group) * S + i] * image_size;
    }

    // Weights in the order that lanes read them: `count` parts, each of a chunk and a block, from part `first` on.
    __device__ __forceinline__ void fill_weights(int first, int count) {
        for (int s = thread; s < count * t.steps.all * kTiles * kSlots; s += kTileThreads) {
            const int slot = s % kSlots, tile = s / kSlots % kTiles, steps = s / (kSlots * kTiles);
            const int part = first + steps / t.steps.all, chunk = part / t.blocks,
                      channel = part % t.blocks * kChannels;
            const int q = steps % t.steps.all * Product::kStepUnits + slot % Product::kStepUnits;
            const int row = slot / Product::kStepUnits;
            const int low = channel + channel_of_row(tile, row, kRun);
            const int high = channel + channel_of_row(tile, row + 8, kRun);
            weights[s] = {weight_word(low, 2 * q, chunk), weight_word(high, 2 * q, chunk),
                          weight_word(low, 2 * q + 1, chunk), weight_word(high, 2 * q + 1, chunk)};
        }
    }
    __device__ __forceinline__ uint32_t weight_word(int channel, int word, int chunk) const {
        const int first = chunk * t.units.channels, size = int(a.KH * a.KW);
        const unsigned count = channel < a.OC ? (unsigned(a.C) - first) * size : 0;
        const Element* from = static_cast<const Element*>(a.weight) + (channel * a.C + first) * size;
        Element elements[kWord];
#pragma unroll
        for (int e = 0; e < kWord; ++e) {
            const int tap = taps[word * kWord + e];  // as an unsigned number, -1 is large
            elements[e] = unsigned(tap) < count ? from[tap] : Element(0.f);
        }
        return Product::word(elements);
    }

    // `ahead`: 0, the patch of this tile, block and chunk; 1, that of the one that follows, if any does.
    __device__ __forceinline__ void fill_patch(int tile, int block, int chunk, int ahead) {
        TilePlace at = place;
        chunk += ahead;
        if (chunk == t.chunks) {
            chunk = 0;
            if (t.chunks == 1 || block + 1 == t.blocks) tile += turns.step, at = place_of_tile(t, kWalks, tile);
        }
        if (tile < turns.end) {
            const Element* x = static_cast<const Element*>(a.x) + int64_t(at.group) * S * a.x_strides[0];
            const int h = (at.ph * int(a.pool.sh) - int(a.pool.pad_h) + kWalks) * int(a.stride[0]) - int(a.padding[0]);
            const int v = (at.pw * int(a.pool.sw) - int(a.pool.pad_w)) * int(a.stride[1]) - int(a.padding[1]);
            uint32_t* const to = reinterpret_cast<uint32_t*>(patch(ahead));
            const PatchRows first(a, t, warp, lane % kTogether);
            const int words = patch_words(t.units, kWord, t.patch_w);
            for (PatchWords along(t, lane / kTogether); along.more(); along.next()) {
                const int word = along.word();
                if (word >= words) continue;
                PatchRows rows = first;
                rows.to += patch_word(t.units, word);
                if (kWord == 2 && t.copies == kUnitWords)
                    copy_words<kUnitBytes>(to, x, h, Column<1>(a, t, word, v, chunk), rows);
                else if (kWord == 2 && t.copies == 1)
                    copy_words<kWordBytes>(to, x, h, Column<1>(a, t, word, v, chunk), rows);
                else read_words(to, x, h, Column<kWord>(a, t, word, v, chunk), rows);
            }
        }
        cp_async_commit();
    }

    // Where the first elements of a word are in every row of x, and whether they are.
    template <int kElements>
    struct Column {
        int64_t offset[kElements];
        bool real[kElements];

        // The word of a row of the patch whose first pixel is at column v of x.
        __device__ __forceinline__ Column(const ConvMixArgs& a, const Tiling& t, int word, int v, int chunk) {
#pragma unroll
            for (int e = 0; e < kElements; ++e) {
                const int at = word * kWord + e - t.units.phase;  // -1 at least
                const int pixel = quotient(at + t.units.channels, t.pixel_inverse) - 1;
                const int c = chunk * t.units.channels + at - pixel * t.units.channels, column = v + pixel;
                offset[e] = column * a.x_strides[3] + c * a.x_strides[1];
                real[e] = column >= 0 && column < a.W && c < a.C;
            }
        }
    };

    // Calls f with a lane's rows of one image after another, `rows` those of the first.
    template <class F>
    __device__ __forceinline__ void for_images(PatchRows rows, F&& f) const {
        for (int image = lane % kTogether; image < S; image += kTogether) {
            f(rows);
            rows.to += pitch * kPlaceBytes / kWordBytes, rows.from += kTogether * a.x_strides[0];
        }
    }
    // A word of all rows that are this warp's, or several. Where they are copied as they are, all elements are real or
    // none.
    template <int kBytes>
    __device__ __forceinline__ void copy_words(uint32_t* to, const Element* x, int h, const Column<1>& column,
                                               const PatchRows& first) const {
        const unsigned height = column.real[0] ? unsigned(a.H) : 0;
        x += h * a.x_strides[2] + column.offset[0];
        for_images(first, [&](PatchRows rows) {
#pragma unroll 4
            for (; rows.more(); rows.next())
                cp_async<kBytes>(to + rows.to, x + rows.from, unsigned(h + rows.row) < height);
        });
    }
    __device__ __forceinline__ void read_words(uint32_t* to, const Element* x, int h, const Column<kWord>& column,
                                               const PatchRows& first) const {
        constexpr int kBatch = 8;  // words that are on their way at once
        x += h * a.x_strides[2];
        for_images(first, [&](PatchRows rows) {
            while (rows.more()) {
                PatchRows put = rows;
                uint32_t words[kBatch];
#pragma unroll
                for (int b = 0; b < kBatch; ++b) {
                    if (!rows.more()) continue;
                    const bool inside = unsigned(h + rows.row) < unsigned(a.H);
                    Element elements[kWord];
#pragma unroll
                    for (int e = 0; e < kWord; ++e)
                        elements[e] = inside && column.real[e] ? x[rows.from + column.offset[e]] : Element(0.f);
                    words[b] = Product::word(elements);
                    rows.next();
                }
#pragma unroll
                for (int b = 0; b < kBatch; ++b, put.next())
                    if (put.more()) to[put.to] = words[b];
            }
        });
    }
};

}  // namespace facemix::cuda
