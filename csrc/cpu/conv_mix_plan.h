// How conv_mix cuts its work and lays it out.
#pragma once

#include "conv_micro.h"
#include "strip.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kStripBytes = 384 << 10;     // the strip's share of L2
constexpr int64_t kTileBytes = 24 << 10;       // the input of a tile of all images stays in L1 up to here
constexpr int64_t kTileChannels = 64;          // of a tile in NHWC: long runs of y, and S tiles stay in L1
constexpr int64_t kTilePixels = 32;            // the same in NCHW, at least
constexpr int64_t kPage = 4096, kAhead = 256;  // where tiles lie, beside y: ConvMix::tiles
constexpr int64_t kMinItems = 16;              // work items, at least, where there are rows enough: balance

template <class P>
struct Plan {
    using T = typename P::Sum;
    static constexpr int W = kLanes<T>;
    bool windows;           // pooled, or codes wanted: convolved rows are kept until their windows are complete
    bool pixel_lanes;       // the lanes of a vector are pixels, not output channels
    bool streaming;         // y is large and its lines aligned: it is written past the caches
    bool in_lines;          // NCHW: the rows of a block lie side by side as in y, and are mixed in long runs
    int64_t item_rows;      // output rows of a work item
    int64_t items;          // of a group
    int64_t block_rows;     // convolved rows of a strip
    int64_t strip_width;    // pixels of a row that are computed
    int64_t pixel_vectors;  // of pixels that the inner loop takes in NCHW, at most
    int64_t run_vectors;    // of pixels of a tile in NCHW, at most: y is written in runs of them

    explicit Plan(const ConvMixArgs& a) {
        const int64_t G = a.key.groups, S = a.key.size;
        windows = !a.pool.identity() || a.codes;
        pixel_lanes = !a.channels_last && !windows;
        strip_width = pixel_lanes ? ceil_div(a.OW, W) * W : a.OW;
        // int8 is not: in pieces of 16 bytes that costs more than it saves (benchmarks/NOTES.md).
        const bool large = a.y_dtype != Dtype::i8 && G * S * a.OC * a.PH * a.PW * bytes_of(a.y_dtype) >= kStreamBytes;
        // Lines of the cache are written whole, or they would go to memory in pieces.
        const int64_t line = max64(W, 64 / bytes_of(a.y_dtype));
        const bool aligned = reinterpret_cast<uintptr_t>(a.y) % 64 == 0 && (a.channels_last ? a.OC : a.PW) % line == 0;
        const int64_t whole = kPixelVectors * W / line * line / W;
        pixel_vectors = whole ? whole : kPixelVectors;
        run_vectors = pixel_vectors * ceil_div(kTilePixels, pixel_vectors * W);
        streaming = large && aligned;
        const int64_t tile = S * a.C * a.KH * kPixelVectors * W * a.stride[1] * int64_t(sizeof(typename P::Elem));
        in_lines = pixel_lanes && large && a.OC * a.PH * a.PW % W == 0 && (!aligned || tile > kTileBytes);
        item_rows = ceil_div(a.PH, max64(1, ceil_div(kMinItems, max64(1, G))));
        const int64_t most = windows ? (item_rows - 1) * a.pool.sh + a.pool.kh : item_rows;
        const auto fits = [&](int64_t rows) {
            const Strip<P> strip(a, rows, strip_width, pixel_lanes);
            return S * strip.image_step * int64_t(sizeof(typename P::Elem)) <= kStripBytes;
        };
        for (block_rows = 1; block_rows < most && fits(block_rows + 1);) ++block_rows;
        items = ceil_div(a.PH, item_rows);
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
