// Chooses the tiling; host code only.
#include "conv_mix_tile.h"

#include <initializer_list>

namespace facemix::cuda {
namespace {

constexpr int64_t kResidentBytes = 80 << 10;       // of weights, at most; more would leave little for the patch
constexpr int64_t kPixelCost = 16;                 // of the products of a pixel, in pixels of x that are read; a guess
constexpr int64_t kTilePixels = 27;                // for 10 pixels of y; of tiles of 3x4 under a 3x3 pool of stride 2
constexpr int kPlacesOfBanks = 128 / kPlaceBytes;  // as many as all banks hold
constexpr int kReserved = 1 << 10;                 // bytes of shared memory that every block takes beside its own
constexpr int64_t kMaxCoordinate = 1 << 24;        // places in a map are ints,
constexpr int64_t kMaxImage = 1 << 30;             // so are those of elements in an image of y,
constexpr int64_t kMaxTaps = 1 << 28;              // and so are those of the weights of an output channel

// Whether two blocks of so much shared memory run side by side where one may take `limit`.
bool two_fit(int64_t shared, int limit) { return 2 * (shared + kReserved) <= limit + kReserved; }

int64_t aligned16(int64_t bytes) { return ceil_div(bytes, 16) * 16; }

bool small(const ConvMixArgs& a) {
    const auto fits = [](int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
        return size + 2 * padding < kMaxCoordinate && kernel * dilation < kMaxCoordinate && stride < kMaxCoordinate;
    };
    return fits(a.H, a.KH, a.stride[0], a.padding[0], a.dilation[0]) &&
           fits(a.W, a.KW, a.stride[1], a.padding[1], a.dilation[1]) && a.KH * a.KW < kMaxCoordinate &&
           a.C < kMaxCoordinate && a.C * a.KH * a.KW < kMaxTaps && a.OC < kMaxCoordinate &&
           a.OC * a.PH * a.PW < kMaxImage && a.pool.sh < kMaxCoordinate && a.pool.sw < kMaxCoordinate;
}

// Of a block of output channels and a chunk.
int64_t weight_bytes(const TileKind& kind, const Tiling& t) {
    return int64_t(t.steps.all) * kind.tiles() * kind.slots() * kSlotBytes;
}

int64_t patch_bytes(const TileKind& kind, const Tiling& t) {
    return int64_t(kind.images / kTogether) * patch_pitch(t) * kPlaceBytes;
}

// Lays out shared memory for the tile; returns the bytes needed.
int64_t lay_out(const TileKind& kind, Tiling& t) {
    int64_t at = kind.key_words() * kWordBytes + kind.images * int64_t(sizeof(int64_t));
    const auto take = [&](int& from, int64_t bytes) { from = int(at), at = aligned16(at + bytes); };
    take(t.bias, int64_t(t.blocks) * kind.channels() * int64_t(sizeof(float)));
    take(t.places, int64_t(t.steps.all) * kind.step_units * int64_t(sizeof(int)));
    take(t.taps, int64_t(t.steps.all) * kind.step_units * kUnitWords * kind.word() * int64_t(sizeof(int)));
    take(t.weights, (t.resident ? t.chunks * t.blocks : 1) * weight_bytes(kind, t));
    // Images past S are multiplied, too, so they have their place.
    take(t.patch, t.patches * patch_bytes(kind, t));
    const int64_t pixels = int64_t(t.conv_h) * t.conv_w;
    take(t.values, kind.way == Way::windows ? pixels * kind.value_rows() * kind.value_pitch() * kWordBytes : 0);
    return at;
}

// How many words of a row of the patch lie in x as they are, together. Two bytes: TF32 is rounded on its way, and plain
// float has no hurry.
int copies(const ConvMixArgs& a, int word, const Units& u) {
    if (word != 2 || a.x_strides[1] != 1) return 0;
    for (int words = kUnitWords / u.rows; words > 0; --words) {
        const int run = words * word;  // elements
        bool fits = reinterpret_cast<uintptr_t>(a.x) % uintptr_t(words * kWordBytes) == 0;
        for (const int d : {0, 2}) fits = fits && a.x_strides[d] % run == 0;
        // Pixels begin with such a run; or they follow each other without a gap, and rows end with one.
        if (u.channels % run == 0) fits = fits && a.x_strides[3] % run == 0 && a.C % run == 0;
        else fits = fits && words == 1 && u.channels == a.C && a.x_strides[3] == a.C && a.W % run == 0;
        if (fits) return words;
    }
    return 0;
}

// K in as few units as can be: with gaps between the channels or none, of one row or two.
Units choose_units(const ConvMixArgs& a, int word, bool tails) {
    const int channels = int(a.C < kChunkChannels ? a.C : kChunkChannels);
    Units best = {};
    for (const int rows : {1, 2})
        for (const int gap : {0, 1, 2, 3}) {
            Units u = {rows, channels + gap, 0, 0, 0, 0};
            const int run = unit_run(u, word);
            // Windows begin with a unit, and so do the pixels of one where they are apart.
            if (a.stride[1] * u.channels % run || (a.dilation[1] > 1 && u.channels % run)) continue;
            if (rows == 2 && (a.stride[0] % 2 || a.dilation[0] > 1)) continue;
            // Words of x are words of the patch; a window of an odd number of elements may begin with half a one.
            u.phase = u.channels % word && copies(a, word, u) ? int(a.padding[1] % 2) : 0;
            const KernelRun of_row = kernel_run(a, u, word);
            u.tail = tails && a.KH % rows && a.dilation[1] == 1 ? int(ceil_div(of_row.all, kUnitWords)) : 0;
            u.all = int(u.tail ? a.KH / rows : ceil_div(a.KH, rows)) * of_row.all + u.tail;
            u.whole = int(a.KH) / rows * of_row.whole;
            if (best.all == 0 || u.all < best.all) best = u;
        }
    return best;
}

// Of the convolved pixels of a tile. Chunks after the first would come in again for each further pass.
int64_t max_pixels(const TileKind& kind, const Tiling& t) {
    return kind.walks() ? kMaxCoordinate : int64_t(kind.pass()) * (t.chunks == 1 ? kind.max_passes() : 1);
}

// In words: what a lane that fills a row of the patch is from the next one. Where pixels lie closer than channels in x,
// whole pixels; else what is read at once.
int span(const ConvMixArgs& a, int word, const Tiling& t) {
    if (a.x_strides[3] >= a.x_strides[1]) return t.copies > 1 ? t.copies : 1;
    return t.units.channels % word ? t.units.channels : t.units.channels / word;
}

// Fills in what follows from the tile's size; false where it does not fit.
bool fits(const ConvMixArgs& a, const TileKind& kind, int limit, Tiling& t) {
    const auto reach = [](int64_t n, int64_t kernel, int64_t stride) { return (n - 1) * stride + kernel; };
    const int64_t h = reach(t.tile_h, a.pool.kh, a.pool.sh) - kind.walks(), w = reach(t.tile_w, a.pool.kw, a.pool.sw);
    if (h * w > max_pixels(kind, t)) return false;
    const int64_t patch_h = reach(h, (a.KH - 1) * a.dilation[0] + 1, a.stride[0]);
    const int64_t patch_w = reach(w, (a.KW - 1) * a.dilation[1] + 1, a.stride[1]);
    if (patch_h * patch_w * t.units.channels * kind.element > limit) return false;
    t.conv_h = int(h), t.conv_w = int(w), t.passes = kind.walks() ? t.conv_h : int(ceil_div(h * w, kind.pass()));
    t.patch_h = int(patch_h), t.patch_w = int(patch_w);
    t.line = int(ceil_div(patch_words(t.units, kind.word(), patch_w), kUnitWords / t.units.rows));
    // Units of a step, of one row or two, then lie in places whose banks differ.
    while (kind.tensor() && (t.line - kernel_run(a, t.units, kind.word()).whole) % kPlacesOfBanks) ++t.line;
    t.spans = int(ceil_div(patch_words(t.units, kind.word(), patch_w), t.span));
    t.down = int(a.stride[0]) / t.units.rows * t.line;
    t.right = int(a.stride[1]) * t.units.channels / unit_run(t.units, kind.word());
    t.runs = int(ceil_div(t.tile_w, t.run));
    t.conv_inverse = inverse_of(t.conv_w), t.run_inverse = inverse_of(t.runs);
    t.pixel_inverse = inverse_of(t.units.channels);
    t.tiles_h = int(ceil_div(a.PH, t.tile_h)) + kind.walks(), t.tiles_w = int(ceil_div(a.PW, t.tile_w));
    const int64_t shared = lay_out(kind, t);
    t.shared = int(shared);
    return shared <= limit;
}

// Pixels of a row of y that are stored together: in NCHW, of a strip; where they went through windows, in planes of
// whole runs, so that one is there or is not, and is aligned.
int together(const ConvMixArgs& a, const TileKind& kind) {
    const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
    if (a.channels_last) return 1;
    if (kind.way == Way::store) return kind.strip();
    return a.PW % kind.neighbours() == 0 && aligned(a.y) && aligned(a.codes) ? kind.neighbours() : 1;
}

// A second patch, where it costs no block that would run beside this one.
void double_patch(const TileKind& kind, int limit, Tiling& t) {
    if (t.copies == 0) return;
    Tiling twice = t;
    twice.patches = 2;
    const int64_t shared = lay_out(kind, twice);
    if (shared > limit || (two_fit(t.shared, limit) && !two_fit(shared, limit))) return;
    t = twice, t.shared = int(shared);
}

// Of tiles as wide as `t` the best, where it is better than `best`, whose cost was `least`.
void best_height(const ConvMixArgs& a, const TileKind& kind, int limit, Tiling t, Tiling& best, int64_t& least) {
    for (t.tile_h = 1; t.tile_h <= a.PH && fits(a, kind, limit, t); ++t.tile_h) {
        const int64_t convolved = kind.walks() ? int64_t(t.conv_h) * t.conv_w : t.passes * kind.pass();
        const int64_t tiles = int64_t(t.tiles_h - kind.walks()) * t.tiles_w;
        const int64_t each = kPixelCost * convolved + t.patch_h * t.patch_w;
        // Where only one block fits, nothing runs while it waits.
        const int64_t cost = tiles * each * (two_fit(t.shared, limit) ? 2 : 3);
        if (best.tile_h == 0 || cost < least) best = t, least = cost;
    }
}

// The best of tiles; those of kind `common` in all but their size. Their rows: so many times `pixels`, or those of y.
Tiling best_size(const ConvMixArgs& a, const TileKind& kind, int limit, const Tiling& common, int pixels) {
    Tiling best = {}, t = common;
    int64_t least = 0;
    for (t.tile_w = 1; t.tile_w <= max_pixels(kind, t) && t.tile_w <= a.PW; ++t.tile_w)
        if (t.tile_w % pixels == 0 || t.tile_w == a.PW) best_height(a, kind, limit, t, best, least);
    return best;
}

// The same of a walk, which has one width. With a second patch, unless two blocks would fit without.
Tiling best_walk(const ConvMixArgs& a, const TileKind& kind, int limit, const Tiling& common) {
    Tiling best = {};
    for (const int patches : {2, 1}) {
        if (patches == 2 && common.copies == 0) continue;
        Tiling t = common, found = {};
        int64_t least = 0;
        t.tile_w = kind.walk_width(), t.run = 1, t.resident = true, t.patches = patches;
        best_height(a, kind, limit, t, found, least);
        if (best.tile_h == 0 || (!two_fit(best.shared, limit) && two_fit(found.shared, limit))) best = found;
    }
    return best;
}

}  // namespace

Way way_of(const ConvMixArgs& a, int images) {
    const Pool& p = a.pool;
    if (p.identity() && a.y_dtype == a.x_dtype) return Way::store;
    Way best = Way::windows;
    const bool walks = p.kh == 3 && p.kw == 3 && p.sh == 2 && p.sw == 2 && a.channels_last && a.y_dtype == a.x_dtype;
    if (!walks || a.OC <= TileKind{2, 4, images, best}.channels() || a.C > kChunkChannels) return best;
    // Convolved pixels of a row: a walk's, and those of tiles whose windows overlap in both directions.
    int64_t least = a.PW * kTilePixels / 10;
    for (const Way way : {Way::pool, Way::narrow}) {
        const TileKind kind = {2, 4, images, way};
        const int strips = kind.walk_width() / kind.results();
        const int64_t pixels = ceil_div(a.PW, kind.walk_width()) * strips * (2 * kind.results() + 1);
        if (pixels < least) best = way, least = pixels;
    }
    return best;
}

Tiling plan_tiles(const ConvMixArgs& a, const TileKind& kind, int limit) {
    if (a.key.size > kind.images || !small(a)) return {};
    Tiling common = {};
    common.units = choose_units(a, kind.word(), kind.tails());
    common.chunks = int(ceil_div(a.C, common.units.channels));
    common.steps = kind.steps(common.units.all, common.units.whole, common.units.tail);
    common.depth = kind.walks() ? int(ceil_div(a.OC, kWalkBlocks * kind.channels())) : 1;
    common.blocks = kind.walks() ? common.depth * kWalkBlocks : int(ceil_div(a.OC, kind.channels()));
    common.copies = copies(a, kind.word(), common.units);
    common.patches = 1;
    common.span = span(a, kind.word(), common), common.parts = common.copies ? 1 : common.span;
    const bool resident = int64_t(common.chunks) * common.blocks * weight_bytes(kind, common) <= kResidentBytes;
    if (kind.walks()) return resident ? best_walk(a, kind, limit, common) : Tiling{};  // warps are at several blocks
    // What takes more shared memory is tried first.
    Tiling best = {};
    for (const int pixels : {together(a, kind), 1})
        for (const bool stay : {resident, false}) {
            common.run = kind.way == Way::windows ? pixels : 1, common.resident = stay;
            if (best.tile_h == 0) best = best_size(a, kind, limit, common, pixels);
        }
    double_patch(kind, limit, best);
    return best;
}

}  // namespace facemix::cuda
