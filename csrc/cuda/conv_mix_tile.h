// How the fast way of conv_mix cuts its work, in functions that tests/cuda tries one by one.
//
// A block computes a tile of y, of all S images of a group. The patch of x that it needs lies in shared memory, pixel
// after pixel with all their channels, as words of 4 bytes. Two words make a unit, which is what a lane multiplies in a
// step: two that follow each other in a row or, where that fits the windows better, the same word of two rows. The
// units of four images lie side by side, which makes for reads without bank conflicts. The convolution is a product of
// matrices: a strip of pixels a warp, of all images, times K, the units of a window, in steps, times tiles of 16 output
// channels. A tile takes several passes of its warps, where one patch has room for it. Many channels come in chunks,
// one after the other. Where there is room for two patches, the next one is copied while this one is multiplied.
//
// Under a 3x3 pool of stride 2 a block may walk instead (conv_mix_pool.h): down a column of tiles, each of which brings
// along a row of convolved pixels from the one above it. Its warps are strips of columns side by side, and two blocks
// of output channels; a pass is a row.
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
constexpr int kSums = 128;  // of a thread
constexpr int kMaxPasses = 4;
constexpr int kWordBytes = 4;
constexpr int kUnitWords = 2;
constexpr int kUnitBytes = kUnitWords * kWordBytes;
constexpr int kTogether = 4;  // images whose units lie side by side
constexpr int kPlaceBytes = kTogether * kUnitBytes;
constexpr int kSplit = kPlaceBytes / 2;  // a bit below those of a place
constexpr int kRowLanes = 32 / kTogether;
constexpr int kChunkChannels = 16;  // at most
constexpr int kSlotBytes = 16;      // of weights: two output channels by a unit
constexpr int kChannelTile = 16;
constexpr int kWalkBlocks = 2;                         // of output channels, of the warps of a block that walks,
constexpr int kWalkStrips = kTileWarps / kWalkBlocks;  // and of columns

// Steps of a chunk: those of whole units alone come first, then those without split ones.
struct Steps {
    int all, whole, joined;
};

// How sums become y.
enum class Way {
    store,    // as they are: y is not pooled, and of x's dtype
    windows,  // through shared memory, whatever is asked for
    pool,     // under a 3x3 pool of stride 2, whose windows stay in registers while a warp walks down the rows,
    narrow,   // and the same with fewer columns
};

// What a kernel is compiled for.
struct TileKind {
    int element;     // bytes of an element of x
    int step_units;  // units of a step: 1 of plain multiply-adds, 4 of tensor cores
    int images;      // of a group, at most
    Way way;

    constexpr bool tensor() const { return step_units > 1; }
    static constexpr bool walks(Way way) { return way == Way::pool || way == Way::narrow; }
    constexpr bool walks() const { return walks(way); }
    constexpr int word() const { return kWordBytes / element; }  // elements
    constexpr int slots() const { return 8 * step_units; }       // of a tile of weights and a step
    // Tiles of output channels in a thread's sums. Tensor cores have the images in their columns. Values that go
    // through shared memory should leave room there for those of all pixels; a walk wants many pixels of a row.
    constexpr int tiles() const { return !tensor() ? 16 / images : way == Way::store ? 4 : 2; }
    constexpr int channels() const { return tiles() * kChannelTile; }
    // Output channels that follow each other in the sums of one thread.
    constexpr int run() const { return tensor() || way == Way::store ? 2 * tiles() : 2; }
    // Pixels of y of a row that a walking lane has; they need one more column of convolved pixels than twice as many.
    constexpr int results() const { return images > 8 ? 3 : way == Way::pool ? 7 : 6; }
    // Columns of 8 in a thread's sums, and convolved pixels of a warp at once.
    constexpr int columns() const { return walks() ? (2 * results() + 1) * sets() : kSums / 4 / tiles(); }
    constexpr int strip() const { return columns() * 8 / images; }
    // Pixels of y of a row of a walking block: its warps have two blocks of output channels, and two of columns.
    constexpr int walk_width() const { return kWalkStrips * results() * (images < 8 ? 2 : 1); }
    constexpr int pass() const { return kTileWarps * strip(); }  // of a block
    // Pixels of y that a lane stores at once, in NCHW behind windows; of 16 images, it has no registers for them.
    constexpr int neighbours() const { return tensor() && images <= 8 ? 4 : 1; }
    constexpr int max_passes() const { return tensor() ? kMaxPasses : 1; }
    // Columns of 8 of the images of a group, and the steps of K that a column of its mix takes: both parts of the key
    // by all images, in 16 bits 16 of these in a step.
    constexpr int sets() const { return images > 8 ? 2 : 1; }
    constexpr int mix_steps() const { return word() == 1 ? 2 * sets() : sets(); }
    // The key in shared memory: of tensor cores, two words a lane for each column and step.
    constexpr int key_words() const { return tensor() ? sets() * mix_steps() * 2 * 32 : images * images; }
    // Of the values of a convolved pixel: rows, of a pair of images in 16 bits, else of one, and words from one to the
    // next, without bank conflicts. Plain multiply-adds keep a tile of channels at a time.
    constexpr int value_rows() const { return images / (tensor() ? word() : 1); }
    constexpr int value_pitch() const { return !tensor() ? kChannelTile + 4 : word() == 2 ? 32 + 8 : 32 + 4; }
    // Whether the last of an odd number of rows has units of its own. They save steps, but take more of shared memory,
    // which other ways have less of to spare: they read more pixels for each weight.
    constexpr bool tails() const { return tensor() && word() == 2 && way == Way::store; }
    constexpr Steps steps(int units, int whole, int tail) const {
        const int all = (units + step_units - 1) / step_units;
        return {all, whole / step_units, tail ? (units - tail) / step_units : all};
    }
    // Of common kernels in 16 bits: 7x7 of stride 2 and 3x3 of stride 1 on colours, 3x3 on whole chunks.
    constexpr Steps steps_7x7() const { return tails() ? steps(39, 30, 6) : steps(44, 30, 0); }
    constexpr Steps steps_3x3() const { return steps(9, 9, 0); }
    constexpr Steps steps_wide_3x3() const { return steps(36, 36, 0); }
};
// From one window to the next of the first two, see Tiling.
constexpr int kRight7x7 = 3, kRight3x3 = 1;

// What a patch and K are made of.
struct Units {
    int rows;      // of a unit: 2, and one word of each, or 1 and two words
    int channels;  // of a pixel of the patch and a chunk; those that x has not are zero
    int phase;     // elements before the first pixel of a row of the patch
    int all;       // units of K and a chunk,
    int whole;     // and those of them of which every element is the kernel's, but for the tail:
    int tail;      // the last ones, of one row that is left over, two words each; 0: there are none
};

struct Tiling {
    int tile_h, tile_w;    // pixels of y; 0 where nothing fits
    int conv_h, conv_w;    // what they need before the pool
    int patch_h, patch_w;  // and of x
    int tiles_h, tiles_w;  // tiles of a map
    Units units;
    int line;         // units from a row, or two, of the patch to the next
    int down, right;  // and from the window of a convolved pixel to that of the one below, and beside it
    int depth;        // tiles of a place: of output channels that a walking block has not at once
    int run, runs;    // pixels of y that a lane stores at once, behind windows, and such runs in a row of the tile
    int conv_inverse, run_inverse, pixel_inverse;  // of conv_w, runs and units.channels, see quotient()
    int chunks, blocks;                            // of channels, and of output channels
    Steps steps;
    int passes;     // of the warps over the convolved pixels; of a walk, a row of them each
    bool resident;  // all weights stay in shared memory
    int copies;     // words of x that are copied at once, while the warp goes on; 0: they are not as the patch has them
    int span, spans, parts;  // of a row of the patch, see PatchWords
    int patches;             // of shared memory: 1, or 2 that take turns
    // Where things are in shared memory, in bytes; the key is at its start.
    int bias, places, taps, weights, patch, values, shared;
};

FACEMIX_BOTH int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of plain multiply-adds: which of its warp's 16 pixels a column of a pixel tile is. A thread has columns 2t and 2t + 1
// of both tiles: in NCHW these are four neighbours, which makes for wider stores; in NHWC columns 0 to 7 are, which
// makes for reads without bank conflicts.
FACEMIX_BOTH int pixel_of_column(int tile, int column, bool channels_last) {
    return channels_last ? tile * 8 + column : column / 2 * 4 + tile * 2 + column % 2;
}

// n / d without a division, where n * d < 2^20.
FACEMIX_BOTH int inverse_of(int d) { return (1 << 20) / d + 1; }
FACEMIX_BOTH int quotient(int n, int inverse) { return int(uint64_t(unsigned(n)) * unsigned(inverse) >> 20); }

// Which output channel of its block a row of a channel tile is, so that `run` of them follow each other in a thread,
// which has rows g and g + 8. run: even, and the number of rows that a thread has divides by it.
FACEMIX_BOTH int channel_of_row(int tile, int row, int run) {
    const int pairs = run / 2;
    return (tile / pairs * 8 + row % 8) * run + tile % pairs * 2 + row / 8;
}

// Elements of one row in a unit.
FACEMIX_BOTH int unit_run(const Units& u, int word) { return kUnitWords / u.rows * word; }

// Units of a row of the kernel, or two, in a row of the patch; the whole ones follow each other, from the first on.
struct KernelRun {
    int all, first, whole;
};
FACEMIX_BOTH KernelRun kernel_run(const ConvMixArgs& a, const Units& u, int word) {
    const int elements = u.phase + int(a.KW) * u.channels, run = unit_run(u, word);
    const int first = u.phase > 0, last = elements / run;
    return {int(ceil_div(elements, run)), first, last > first ? last - first : 0};
}

// Unit q of K: rows `group` * units.rows on of the kernel, and there unit `at` of their run. Those that are whole come
// first, the tail last; behind it, units of no row of the kernel.
struct KernelUnit {
    int group, at;
    bool tail = false;
};
FACEMIX_BOTH KernelUnit kernel_unit(const ConvMixArgs& a, const Units& u, int word, int q) {
    const auto [all, first, whole] = kernel_run(a, u, word);
    const int groups = int(a.KH) / u.rows;
    if (q < groups * whole) return {q / whole, first + q % whole};
    q -= groups * whole;
    if (q < groups * (all - whole)) {
        const int edge = q % (all - whole);
        return {q / (all - whole), edge < first ? edge : whole + edge};
    }
    q -= groups * (all - whole);
    if (u.tail) return {groups + q / u.tail, q % u.tail, q < u.tail};
    return {groups + q / all, q % all};
}

// Where element e of word w of a unit has its weight, among those of an output channel and chunk; -1: it is not the
// kernel's.
FACEMIX_BOTH int kernel_tap(const ConvMixArgs& a, const Units& u, int word, KernelUnit unit, int w, int e) {
    const int kh = u.rows == 2 ? unit.group * 2 + (unit.tail ? 0 : w) : unit.group;
    const int first = unit.tail ? unit.at * 2 + w : unit.at * kUnitWords / u.rows + (u.rows == 2 ? 0 : w);
    const int at = first * word + e - u.phase;
    if (kh >= a.KH || at < 0 || at >= a.KW * u.channels) return -1;
    return (at % u.channels * int(a.KH) + kh) * int(a.KW) + at / u.channels;
}

// Places of a patch, in units: that of the window of a convolved pixel, and from there to a unit of K.
FACEMIX_BOTH int window_place(const Tiling& t, int row, int column) { return row * t.down + column * t.right; }
FACEMIX_BOTH int unit_place(const ConvMixArgs& a, const Tiling& t, int word, KernelUnit unit) {
    if (unit.group * t.units.rows >= a.KH) return 0;  // past the last: any place will do
    if (unit.tail) return unit.group * t.line + unit.at * 2;
    const int pixel = unit.at * unit_run(t.units, word) / t.units.channels;  // used where it is a whole one
    return unit.group * int(a.dilation[0]) * t.line + unit.at +
           pixel * int(a.dilation[1] - 1) * t.units.channels / unit_run(t.units, word);
}
// Whether the second word of a unit is not behind its first one, but in the next place. Not where the row of a tail
// has no such word: there any will do.
FACEMIX_BOTH bool unit_is_split(const ConvMixArgs& a, const Units& u, int word, KernelUnit unit) {
    return unit.tail && unit.at * 2 + 1 < kernel_run(a, u, word).all;
}
// Of a row of the patch.
FACEMIX_BOTH int patch_words(const Units& u, int word, int64_t patch_w) {
    return int(ceil_div(u.phase + patch_w * u.channels, word));
}
// Lines of a patch, and places to the next two images.
FACEMIX_BOTH int patch_lines(const Tiling& t) { return int(ceil_div(t.patch_h, t.units.rows)); }
FACEMIX_BOTH int patch_pitch(const Tiling& t) { return patch_lines(t) * t.line; }
// Word `at` of a row of an image, in words from the start; and of the first word of a row.
FACEMIX_BOTH int patch_word(const Units& u, int at) {
    return u.rows == 2 ? at * kTogether * kUnitWords : at / 2 * kTogether * kUnitWords + at % 2;
}
FACEMIX_BOTH int patch_word(const Tiling& t, int image, int row, int at) {
    const int two = t.units.rows - 1, place = image / kTogether * patch_pitch(t) + (row >> two) * t.line;
    return (place * kTogether + image % kTogether) * kUnitWords + (row & two) + patch_word(t.units, at);
}

// The first pixel of y of a tile, and the first of its blocks of output channels.
struct TilePlace {
    int group, ph, pw, block;
};
FACEMIX_BOTH int64_t tiles_of_group(const Tiling& t) { return int64_t(t.tiles_h) * t.tiles_w * t.depth; }
FACEMIX_BOTH TilePlace place_of_tile(const Tiling& t, bool walks, int tile) {
    if (walks) {  // down a column of tiles, of which the first lies above the map
        const int column = tile / t.tiles_h, place = column / t.tiles_w;
        return {place / t.depth, (tile % t.tiles_h - 1) * t.tile_h, column % t.tiles_w * t.tile_w,
                place % t.depth * kWalkBlocks};
    }
    const int map = t.tiles_h * t.tiles_w, within = tile % map;
    return {tile / map, within / t.tiles_w * t.tile_h, within % t.tiles_w * t.tile_w, 0};
}

// The tiles of a block: first, first + step, ... below end. The windows of a tile begin with the last convolved row of
// the one above it. So a walk's first tile, and the first of a column, is there for that row alone.
struct Turns {
    int first, step, end;
};
FACEMIX_BOTH Turns turns_of_block(const Tiling& t, bool walks, int64_t tiles, int block, int blocks) {
    if (!walks) return {block, blocks, int(tiles)};
    const int first = int(tiles * block / blocks), end = int(tiles * (block + 1) / blocks);
    return {first % t.tiles_h ? first - 1 : first, 1, end};
}
FACEMIX_BOTH bool only_last_row(const Tiling& t, const Turns& turns, int tile) {
    return tile == turns.first || tile % t.tiles_h == 0;
}

// Walks along a row of the patch: the words that are one's of the kRowLanes lanes that fill it for an image. What they
// read at once should lie side by side in x. So a row is `spans` pieces of `span` words, a lane each; of these they
// take the first, or all `parts`, one after the other.
struct PatchWords {
    const Tiling& t;
    int at, part = 0;

    FACEMIX_BOTH PatchWords(const Tiling& tiling, int lane) : t(tiling), at(lane) { wrap(); }
    FACEMIX_BOTH bool more() const { return part < t.parts; }
    FACEMIX_BOTH int word() const { return at * t.span + part; }  // of the last piece, it may not be there
    FACEMIX_BOTH void next() { at += kRowLanes, wrap(); }

  private:
    FACEMIX_BOTH void wrap() {
        for (; at >= t.spans && part < t.parts; ++part) at -= t.spans;
    }
};

// Walks down the rows of an image that are a warp's: `to`, where the first word of the row is in the patches; `from`,
// where the row begins in x, in elements.
struct PatchRows {
    int row, end, to, to_step;
    int64_t from, from_step;

    FACEMIX_BOTH PatchRows(const ConvMixArgs& a, const Tiling& t, int warp, int image)
        : row(warp),
          end(patch_lines(t) * t.units.rows),
          to(patch_word(t, image, row, 0)),
          to_step((kTileWarps >> (t.units.rows - 1)) * t.line * kTogether * kUnitWords),
          from(image * a.x_strides[0] + row * a.x_strides[2]),
          from_step(kTileWarps * a.x_strides[2]) {}
    FACEMIX_BOTH bool more() const { return row < end; }
    FACEMIX_BOTH void next() { row += kTileWarps, to += to_step, from += from_step; }
};

// How the sums of tensor cores become y.
Way way_of(const ConvMixArgs& a, int images);

// The tiling that computes and reads least, in at most `limit` bytes of shared memory; none where nothing fits.
Tiling plan_tiles(const ConvMixArgs& a, const TileKind& kind, int limit);

// The fast way, by what it multiplies. False, and nothing done, where no tile fits.
bool conv_mix_bf16(const ConvMixArgs& a, int device, void* stream);
bool conv_mix_f16(const ConvMixArgs& a, int device, void* stream);
bool conv_mix_f32(const ConvMixArgs& a, int device, void* stream);
bool conv_mix_tf32(const ConvMixArgs& a, int device, void* stream);

}  // namespace facemix::cuda
