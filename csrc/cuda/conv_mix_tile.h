// How the fast way of conv_mix cuts its work, in functions that tests/cuda tries one by one.
//
// A block computes a tile of y, of all S images of a group. The patch of x that it needs lies in shared memory, as
// units of 8 bytes: a few channels of one pixel; for tensor cores those of two images side by side, to be read at once.
// The convolution is a product of matrices: 16 pixels a warp and image, times K = (kh, kw, unit) in steps, times tiles
// of 16 output channels. Many channels come in chunks, one after the other; where there is room for two patches, the
// next chunk is copied while this one is multiplied.
#pragma once

#include "../kernels.h"

#ifdef __CUDACC__
#define FACEMIX_BOTH __host__ __device__ __forceinline__
#else
#define FACEMIX_BOTH inline
#endif

namespace facemix::cuda {

constexpr int kTileWarps = 4;  // so that several blocks, with 128 sums a thread, share a multiprocessor
constexpr int kTileThreads = 32 * kTileWarps;
constexpr int kTilePixels = 16 * kTileWarps;  // convolved pixels of a block
constexpr int kUnitBytes = 8;
constexpr int kChunkChannels = 16;  // at most
constexpr int kSlotBytes = 16;      // of weights: two output channels by a unit
constexpr int kChannelTile = 16;
constexpr int kValuePitch = kChannelTile + 4;  // floats, between pixels of convolved values: no bank conflicts

// What a kernel is compiled for.
struct TileKind {
    int element;                                                 // bytes of an element of x
    int step_units;                                              // units of a step
    int images;                                                  // of a group, at most
    constexpr int unit() const { return kUnitBytes / element; }  // channels
    constexpr int slots() const { return 8 * step_units; }       // of a tile of weights and a step
    constexpr int tiles() const { return 16 / images; }          // of output channels; 128 sums a thread
    constexpr int channels() const { return tiles() * kChannelTile; }
    constexpr int together() const { return step_units == 1 ? 1 : 2; }  // images whose units a lane reads at once
    // Steps of a square kernel and a chunk of so many channels.
    constexpr int steps(int kernel, int channels) const {
        return (kernel * kernel * ((channels + unit() - 1) / unit()) + step_units - 1) / step_units;
    }
};

struct Tiling {
    int tile_h, tile_w;    // pixels of y; 0 where nothing fits
    int conv_h, conv_w;    // what they need before the pool, together at most kTilePixels
    int patch_h, patch_w;  // and of x
    int tiles_h, tiles_w;  // tiles of a map
    int units, chunks;     // units of a pixel and a chunk, chunks of channels
    int steps;             // of a chunk
    int blocks;            // of output channels
    int run;               // output channels that follow each other in the sums of one thread
    bool windows;          // pooled, or codes wanted: convolved values go through shared memory
    bool resident;         // all weights stay in shared memory
    bool async;            // units of x are aligned: they are copied while the warp goes on
    int patches;           // of shared memory: 1, or 2 that take turns
    // Where things are in shared memory, in bytes; the key is at its start.
    int bias, offsets, weights, patch, values, shared;
};

FACEMIX_BOTH int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Which of its warp's 16 pixels a column of a pixel tile is. A thread has columns 2t and 2t + 1 of both tiles: in NCHW
// these are four neighbours, which makes for wider stores; in NHWC columns 0 to 7 are, which makes for reads without
// bank conflicts.
FACEMIX_BOTH int pixel_of_column(int tile, int column, bool channels_last) {
    return channels_last ? tile * 8 + column : column / 2 * 4 + tile * 2 + column % 2;
}

// Which output channel of its block a row of a channel tile is, so that `run` of them follow each other in a thread,
// which has rows g and g + 8. run: even, and the number of rows that a thread has divides by it.
FACEMIX_BOTH int channel_of_row(int tile, int row, int run) {
    const int pairs = run / 2;
    return (tile / pairs * 8 + row % 8) * run + tile % pairs * 2 + row / 8;
}

// Places of a patch: that of the first unit of a convolved pixel, and from there to unit q = (kh, kw, u) of K.
FACEMIX_BOTH int pixel_offset(const ConvMixArgs& a, const Tiling& t, int row, int column) {
    return (row * int(a.stride[0]) * t.patch_w + column * int(a.stride[1])) * t.units;
}
FACEMIX_BOTH int unit_offset(const ConvMixArgs& a, const Tiling& t, int q) {
    const int tap = q / t.units, kh = tap / int(a.KW), kw = tap % int(a.KW);
    const int pixel = kh * int(a.dilation[0]) * t.patch_w + kw * int(a.dilation[1]);
    return pixel * t.units + q % t.units;
}

// In a patch, the units of `together` images lie side by side, place by place; behind the last place is one of zeros,
// and then the next images. Units: to the next images, and from the start to unit u of a pixel of an image.
FACEMIX_BOTH int patch_pitch(const Tiling& t, int together) { return (t.patch_h * t.patch_w * t.units + 1) * together; }
FACEMIX_BOTH int patch_unit(const Tiling& t, int together, int image, int row, int column, int u) {
    const int place = (row * t.patch_w + column) * t.units + u;
    return image / together * patch_pitch(t, together) + place * together + image % together;
}

// The first pixel of y of a tile.
struct TilePlace {
    int64_t group;
    int ph, pw;
};
FACEMIX_BOTH TilePlace place_of_tile(const Tiling& t, int64_t tile) {
    const int64_t map = int64_t(t.tiles_h) * t.tiles_w;
    const int within = int(tile % map);
    return {tile / map, within / t.tiles_w * t.tile_h, within % t.tiles_w * t.tile_w};
}

// Walks over the pixels of the patches of all images, kTileThreads at a time, without a division.
struct PatchWalk {
    int height, width, rows, columns;  // of a patch; of a stride
    int image, row, column;

    FACEMIX_BOTH PatchWalk(const Tiling& t, int first)
        : height(t.patch_h),
          width(t.patch_w),
          rows(kTileThreads / t.patch_w),
          columns(kTileThreads % t.patch_w),
          image(first / t.patch_w / t.patch_h),
          row(first / t.patch_w % t.patch_h),
          column(first % t.patch_w) {}
    FACEMIX_BOTH void next() {
        column += columns, row += rows;
        if (column >= width) column -= width, ++row;
        while (row >= height) row -= height, ++image;
    }
};

// The tiling that computes and reads least, in at most `limit` bytes of shared memory.
Tiling plan_tiles(const ConvMixArgs& a, const TileKind& kind, int limit);

// The fast way, by what it multiplies. False, and nothing done, where no tile fits.
bool conv_mix_bf16(const ConvMixArgs& a, int device, void* stream);
bool conv_mix_f16(const ConvMixArgs& a, int device, void* stream);
bool conv_mix_f32(const ConvMixArgs& a, int device, void* stream);
bool conv_mix_tf32(const ConvMixArgs& a, int device, void* stream);

}  // namespace facemix::cuda
