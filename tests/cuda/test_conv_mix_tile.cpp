// The geometry of conv_mix's tiles, function by function, against what it says it is.
#include <array>
#include <set>
#include <vector>

#include "../cpp/support.h"
#include "cuda/conv_mix_tile.h"

namespace test {
namespace {

using namespace facemix::cuda;
using facemix::ConvMixArgs;

void columns() {
    for (const bool channels_last : {false, true}) {
        std::set<int> seen;
        for (int tile = 0; tile < 2; ++tile)
            for (int column = 0; column < 8; ++column) seen.insert(pixel_of_column(tile, column, channels_last));
        expect(seen.size() == 16 && *seen.begin() == 0 && *seen.rbegin() == 15, "pixel_of_column: not one to one");
    }
    for (int t = 0; t < 4; ++t)
        for (int k = 0; k < 4; ++k)
            expect(pixel_of_column(k / 2, 2 * t + k % 2, false) == 4 * t + k, "pixel_of_column: no neighbours");
}

void quotients() {
    for (int d = 1; d < 1024; ++d)
        for (int n = 0; n * d < 1 << 20; ++n) expect(quotient(n, inverse_of(d)) == n / d, "quotient: another");
}

void rows() {
    for (const int tiles : {1, 2, 4})
        for (int run = 2; run <= 2 * tiles; run *= 2) {
            std::set<int> seen;
            for (int tile = 0; tile < tiles; ++tile)
                for (int row = 0; row < 16; ++row) seen.insert(channel_of_row(tile, row, run));
            expect(int(seen.size()) == 16 * tiles && *seen.rbegin() == 16 * tiles - 1,
                   "channel_of_row: not one to one");
            for (int g = 0; g < 8; ++g)
                for (int k = 0; k < 2 * tiles; ++k)
                    expect(channel_of_row(k / 2, g + k % 2 * 8, run) ==
                               channel_of_row(k / run * (run / 2), g, run) + k % run,
                           "channel_of_row: a run with gaps");
        }
}

void strides(ConvMixArgs& a, bool channels_last) {
    a.channels_last = channels_last;
    a.x_strides[0] = a.C * a.H * a.W, a.x_strides[1] = channels_last ? 1 : a.H * a.W;
    a.x_strides[2] = channels_last ? a.W * a.C : a.W, a.x_strides[3] = channels_last ? a.C : 1;
}

// All words of a patch have places of their own, and the warps together meet each of them once, where its row is in x.
void patches(const ConvMixArgs& a, const Tiling& t, const TileKind& kind) {
    const int rows = patch_lines(t) * t.units.rows, words = t.line * kUnitWords / t.units.rows, images = kind.images;
    std::vector<int> seen(size_t(images / kTogether * patch_pitch(t) * kTogether * kUnitWords));
    for (int at = 0; at < words; ++at) {
        for (int image = 0; image < images; ++image)
            for (int row = 0; row < rows; ++row) ++seen.at(size_t(patch_word(t, image, row, at)));
        for (int warp = 0; warp < kTileWarps; ++warp)
            for (int image = 0; image < images; ++image)
                for (PatchRows walk(a, t, warp, image); walk.more(); walk.next()) {
                    const int to = walk.to + patch_word(t.units, at);
                    expect(to == patch_word(t, image, walk.row, at) && walk.row < rows &&
                               walk.from == image * a.x_strides[0] + walk.row * a.x_strides[2],
                           "PatchRows: not where it should be");
                    --seen.at(size_t(to));
                }
    }
    for (const int count : seen) expect(count == 0, "PatchRows: not every row once");
    std::set<int> places;
    for (int image = 0; image < images; ++image)
        for (int row = 0; row < rows; ++row)
            for (int at = 0; at < words; ++at) places.insert(patch_word(t, image, row, at));
    expect(places.size() == seen.size() && *places.rbegin() == int(seen.size()) - 1, "patch_word: not one to one");
}

// All words of a row of the patch come to one lane, once; words of pixels that are apart in x, to lanes side by side.
void words(const Tiling& t, const TileKind& kind) {
    const int count = patch_words(t.units, kind.word(), t.patch_w), step = t.copies > 1 ? t.copies : 1;
    std::vector<int> seen(size_t(count), 0);
    for (int lane = 0; lane < kRowLanes; ++lane)
        for (PatchWords along(t, lane); along.more(); along.next())
            for (int k = 0; k < step && along.word() + k < count; ++k) ++seen.at(size_t(along.word() + k));
    for (const int times : seen) expect(times == 1, "PatchWords: not every word once");
    expect(t.span * kind.word() % (t.copies || t.span == 1 ? 1 : t.units.channels) == 0, "span: cuts a pixel");
}

// Of the units of K: each weight of a chunk is that of one element, whole units come first, and what a window reads of
// the patch for an element was put there for it.
void units(const ConvMixArgs& a, const Tiling& t, const TileKind& kind) {
    const Units& u = t.units;
    const int word = kind.word(), size = int(a.KH * a.KW), count = t.steps.all * kind.step_units;
    expect(count - u.all >= 0 && count - u.all < kind.step_units, "plan_tiles: other steps than units");
    std::set<int> seen;
    for (int q = 0; q < count; ++q) {
        const KernelUnit unit = kernel_unit(a, u, word, q);
        const int split = unit_is_split(a, u, word, unit);
        const int last = window_place(t, t.conv_h - 1, t.conv_w - 1) + unit_place(a, t, word, unit);
        expect(last + split < patch_pitch(t), "unit_place: reads past the patch");
        int weightless = 0;
        for (int k = 0; k < kUnitWords * word; ++k) {
            const int w = k / word, e = k % word, tap = kernel_tap(a, u, word, unit, w, e);
            weightless += tap < 0;
            if (tap < 0) continue;
            expect(seen.insert(tap).second, "kernel_tap: a weight that counts twice");
            const int c = tap / size, kh = tap % size / int(a.KW), kw = tap % int(a.KW);
            for (const int p : {0, t.conv_w - 1, t.conv_h * t.conv_w - 1}) {
                const int row = p / t.conv_w * int(a.stride[0]) + kh * int(a.dilation[0]);
                const int column = p % t.conv_w * int(a.stride[1]) + kw * int(a.dilation[1]);
                const int at = u.phase + column * u.channels + c;
                const int place = window_place(t, p / t.conv_w, p % t.conv_w) + unit_place(a, t, word, unit);
                expect(
                    row < t.patch_h && at < patch_words(u, word, t.patch_w) * word && at % word == e &&
                        (place + w * split) * kTogether * kUnitWords + w * !split == patch_word(t, 0, row, at / word),
                    "unit_place: reads what is not there");
            }
        }
        expect((weightless == 0) == (q < u.whole) || q >= u.all - u.tail, "kernel_unit: whole units are not the first");
        expect(!split || q >= u.all - u.tail, "kernel_unit: units are split before the tail");
        expect((weightless == kUnitWords * word) == (q >= u.all), "kernel_unit: units without weights before the last");
    }
    expect(int(seen.size()) == u.channels * size && *seen.rbegin() == int(seen.size()) - 1, "kernel_unit: a gap in K");
}

ConvMixArgs common(int channels, int kernel, int stride, int padding, bool channels_last) {
    ConvMixArgs a = {};
    a.C = channels, a.OC = 64, a.KH = a.KW = kernel, a.H = a.W = a.OH = a.OW = a.PH = a.PW = 64;
    for (int d = 0; d < 2; ++d) a.stride[d] = stride, a.padding[d] = padding, a.dilation[d] = 1;
    a.pool = {1, 1, 1, 1, 0, 0}, a.key.groups = 1, a.key.size = 8;
    strides(a, channels_last);
    return a;
}

// Words are copied only where they are as x has them, and no more at once than its addresses allow.
void copies() {
    const auto copied = [](const ConvMixArgs& a) { return plan_tiles(a, {2, 4, 8, Way::store}, 227 << 10).copies; };
    ConvMixArgs wide = common(64, 3, 1, 1, true), stem = common(3, 7, 2, 3, true);
    expect(copied(wide) == 2 && copied(stem) == 1, "plan_tiles: words that could be copied are not");
    wide.x = reinterpret_cast<const void*>(uintptr_t(kWordBytes));
    expect(copied(wide) == 1, "plan_tiles: copies of 8 bytes from an address of 4");
    wide.x = reinterpret_cast<const void*>(uintptr_t(kWordBytes / 2));
    expect(copied(wide) == 0, "plan_tiles: copies from an odd address");
    ConvMixArgs rgb = common(3, 3, 1, 1, true);  // of pixels with a fourth channel
    rgb.x_strides[3] = 4, rgb.x_strides[2] = 4 * rgb.W, rgb.x_strides[0] = rgb.x_strides[2] * rgb.H;
    expect(copied(rgb) == 0, "plan_tiles: copies a channel that is none");
}

// Steps that kernels are compiled for are those that are planned.
void steps() {
    struct Case {
        int kernel, stride, channels, padding;
        bool channels_last;
        Steps (*of)(const TileKind& kind);
    };
    for (const Case& c : {Case{7, 2, 3, 3, true, [](const TileKind& kind) { return kind.steps_7x7(); }},
                          Case{7, 2, 3, 3, false, [](const TileKind& kind) { return kind.steps_7x7(); }},
                          Case{7, 2, 3, 2, true, [](const TileKind& kind) { return kind.steps_7x7(); }},
                          Case{3, 1, 3, 1, true, [](const TileKind& kind) { return kind.steps_3x3(); }},
                          Case{3, 1, 64, 1, true, [](const TileKind& kind) { return kind.steps_wide_3x3(); }}})
        for (const int element : {2, 4}) {
            const ConvMixArgs a = common(c.channels, c.kernel, c.stride, c.padding, c.channels_last);
            const TileKind kind = {element, 4, 8, Way::store};
            const Tiling t = plan_tiles(a, kind, 227 << 10);
            expect(t.tile_h > 0, "steps: nothing is planned");
            if (element == 2) {
                const Steps of = c.of(kind);
                expect(t.steps.all == of.all && t.steps.whole == of.whole && t.steps.joined == of.joined,
                       "steps: others are planned");
            }
            const int right = c.kernel == 7 ? kRight7x7 : kRight3x3;
            if (element == 2 && c.channels == 3) expect(t.right == right, "steps: windows lie further apart");
            const int words = c.channels % 4 == 0 ? 2 : c.stride == 2 ? 1 : 0;
            expect(t.copies == (element == 2 && c.channels_last ? words : 0),
                   "plan_tiles: words that could be copied are not");
        }
}

ConvMixArgs draw(Random& random) {
    ConvMixArgs a = {};
    a.C = random.among({1, 2, 3, 4, 5, 7, 16, 17, 32, 64, 100}), a.OC = random.among({1, 16, 64, 300});
    a.KH = random.between(1, 7), a.KW = random.between(1, 7);
    for (int d = 0; d < 2; ++d) {
        a.stride[d] = random.between(1, 4), a.dilation[d] = random.chance(3) ? 2 : 1,
        a.padding[d] = random.between(0, 3);
        (d ? a.OW : a.OH) = random.among({random.between(1, 20), random.between(100, 5000)});
    }
    a.H = a.OH * a.stride[0] + 20, a.W = a.OW * a.stride[1] + 20;  // near enough: their use is to be large
    a.pool = random_pool(random, a.OH, a.OW);
    a.PH = pooled(a.OH, a.pool.kh, a.pool.sh, a.pool.pad_h), a.PW = pooled(a.OW, a.pool.kw, a.pool.sw, a.pool.pad_w);
    strides(a, random.chance(2));
    a.key.groups = 1, a.key.size = random.among({2, 4, 8, 11, 16});
    a.y = reinterpret_cast<void*>(random.among({1024, 1024, 1032}));
    return a;
}

// The pools that are walked down, and how; where tiles of results fill their strips badly, they are not.
void ways() {
    ConvMixArgs a = common(3, 7, 2, 3, true);
    a.OH = a.OW = 112;
    const auto expect_way = [&](Way expected, int width, int images) {
        a.PW = width;
        expect(way_of(a, images) == expected, "way_of: another way");
    };
    expect_way(Way::store, 112, 8);
    a.pool = {3, 3, 2, 2, 1, 1};
    for (const int images : {4, 8, 16}) expect_way(Way::pool, 56, images);
    for (const int images : {4, 8}) expect_way(Way::narrow, 45, images);
    expect_way(Way::pool, 48, 16), expect_way(Way::windows, 4, 8), expect_way(Way::windows, 17, 8);
    const auto refused = [&](auto&& change) {
        const ConvMixArgs before = a;
        change(), expect_way(Way::windows, 56, 8);
        a = before;
    };
    refused([&] { a.pool.kw = 2; }), refused([&] { a.pool.sh = 3; }), refused([&] { a.channels_last = false; });
    refused([&] { a.OC = 32; }), refused([&] { a.C = 17; }), refused([&] { a.y_dtype = Dtype::i8; });
}

// Walks: blocks of a grid store each row of each column of tiles once, each behind the one above it; what their warps
// convolve is in the patch, and it all fits.
void walks() {
    Random random(2);
    int64_t found = 0, twice = 0;
    for (int n = 0; n < 400; ++n) {
        ConvMixArgs a = draw(random);
        a.C = random.among({1, 3, 4, 16}), a.OC = random.among({33, 64, 130, 300}), strides(a, true);
        a.pool = {3, 3, 2, 2, random.between(0, 1), random.between(0, 1)};
        a.PH = random.between(1, 60), a.PW = random.between(1, 100);
        a.OH = 2 * a.PH + 1, a.OW = 2 * a.PW + 1;  // near enough
        const int images = a.key.size <= 4 ? 4 : a.key.size <= 8 ? 8 : 16, element = int(random.among({2, 2, 4}));
        const TileKind kind = {element, 4, images, random.chance(2) ? Way::pool : Way::narrow};
        const int limit = int(random.among({99 << 10, 163 << 10, 227 << 10}));
        const Tiling t = plan_tiles(a, kind, limit);
        if (t.tile_h == 0) continue;
        ++found, twice += t.patches == 2;
        expect(t.resident && t.chunks == 1 && t.blocks == kWalkBlocks * t.depth && t.blocks * kind.channels() >= a.OC &&
                   (t.blocks - kWalkBlocks) * kind.channels() < a.OC,
               "walks: channels that no warp has");
        expect(t.conv_h == 2 * t.tile_h && t.passes == t.conv_h && t.conv_w == 2 * t.tile_w + 1 &&
                   t.tile_w == kWalkStrips * kind.results() * (images == 4 ? 2 : 1) &&
                   kind.columns() == (2 * kind.results() + 1) * kind.sets() && t.tile_w * t.tiles_w >= a.PW &&
                   t.tile_h * (t.tiles_h - 1) >= a.PH,
               "walks: rows or columns of convolved pixels that no warp has");
        expect(t.shared <= limit && (t.patches == 1 || t.copies > 0), "walks: a second patch that nothing comes to");
        units(a, t, kind), patches(a, t, kind);
        const int groups = int(random.between(1, 3)), blocks = int(random.between(1, 9));
        const int64_t tiles = groups * tiles_of_group(t);
        std::set<std::array<int, 4>> seen;
        int64_t only = 0;
        for (int block = 0; block < blocks && blocks <= tiles; ++block) {
            const Turns turns = turns_of_block(t, true, tiles, block, blocks);
            TilePlace above = {};
            for (int tile = turns.first; tile < turns.end; tile += turns.step) {
                const TilePlace place = place_of_tile(t, true, tile);
                const bool last_row = only_last_row(t, turns, tile);
                expect(last_row || (place.group == above.group && place.ph == above.ph + t.tile_h &&
                                    place.pw == above.pw && place.block == above.block),
                       "walks: a tile that is not below the one before");
                expect(place.ph >= 0 || (last_row && place.ph == -t.tile_h), "walks: stores above the map");
                if (last_row) ++only;
                else
                    expect(seen.insert({place.group, place.ph, place.pw, place.block}).second && place.pw < a.PW &&
                               place.ph < a.PH && place.block < t.blocks && place.group < groups,
                           "walks: stores twice, or past the map");
                above = place;
            }
        }
        if (blocks > tiles) continue;
        expect(int64_t(seen.size()) == int64_t(groups) * t.depth * t.tiles_w * (t.tiles_h - 1),
               "walks: tiles that nobody stores");
        expect(only < int64_t(groups) * t.depth * t.tiles_w + blocks, "walks: more rows twice than need be");
    }
    expect(found > 200 && twice > 50, "walks: too few cases fit to say much");
}

// Layers that fit only with the weights of one chunk at a time, or with tiles narrower than NCHW would like.
void least() {
    for (const auto& [kernel, channels, results, element, stride, limit] : {std::array{3, 32, 64, 4, 2, 163 << 10},
                                                                            {5, 32, 64, 4, 2, 163 << 10},
                                                                            {11, 3, 96, 4, 4, 163 << 10},
                                                                            {3, 64, 64, 2, 1, 99 << 10}}) {
        ConvMixArgs a = common(channels, kernel, stride, 1, false);
        a.OC = results, a.key.size = 16;
        const Tiling t = plan_tiles(a, {element, element == 4 ? 1 : 4, 16, Way::store}, limit);
        expect(t.tile_h > 0 && t.shared <= limit, "plan_tiles: nothing fits");
    }
}

// The tiles cover y once, hold what they need, and fit.
void tilings() {
    Random random(1);
    int64_t found = 0, twice = 0, two_rows = 0, tails = 0, phases = 0, runs = 0, spans = 0;
    for (int n = 0; n < 2000; ++n) {
        const ConvMixArgs a = draw(random);
        const int images = a.key.size <= 4 ? 4 : a.key.size <= 8 ? 8 : 16;
        const int element = int(random.among({2, 2, 4})), step_units = element == 2 ? 4 : int(random.among({1, 4}));
        const TileKind kind = {element, step_units, images,
                               a.pool.identity() && !random.chance(4) ? Way::store : Way::windows};
        const int limit = int(random.among({48 << 10, 99 << 10, 163 << 10, 227 << 10}));
        const Tiling t = plan_tiles(a, kind, limit);
        if (t.tile_h == 0) continue;
        ++found;
        const int pixels = t.conv_h * t.conv_w;
        expect(pixels <= t.passes * kind.pass() && pixels > (t.passes - 1) * kind.pass(),
               "plan_tiles: other passes than pixels");
        expect(t.passes == 1 || (t.chunks == 1 && kind.tensor()), "plan_tiles: passes over chunks");
        expect(t.tile_h * t.tiles_h >= a.PH && t.tile_h * (t.tiles_h - 1) < a.PH && t.tile_w * t.tiles_w >= a.PW &&
                   t.tile_w * (t.tiles_w - 1) < a.PW,
               "plan_tiles: y is not covered once");
        expect(t.run * t.runs >= t.tile_w && t.run * (t.runs - 1) < t.tile_w, "plan_tiles: a row is no runs");
        if (t.run > 1) {
            ++runs;
            expect(kind.way == Way::windows && kind.tensor() && !a.channels_last &&
                       reinterpret_cast<uintptr_t>(a.y) % 16 == 0,
                   "plan_tiles: runs that nobody can store at once");
            expect(a.PW % t.run == 0 && t.tile_w % t.run == 0, "plan_tiles: runs across an edge");
        }
        expect(t.chunks * t.units.channels >= a.C && (t.chunks - 1) * t.units.channels < a.C,
               "plan_tiles: channels without a chunk");
        const int parts[] = {0, t.bias, t.places, t.taps, t.weights, t.patch, t.values, t.shared};
        for (int k = 1; k < 8; ++k)
            expect(parts[k] % 16 == 0 && parts[k] >= parts[k - 1], "plan_tiles: parts of shared memory overlap");
        expect(t.shared <= limit, "plan_tiles: more shared memory than there is");
        patches(a, t, kind);
        words(t, kind);
        spans += t.parts > 1;
        units(a, t, kind);
        two_rows += t.units.rows == 2, tails += t.units.tail > 0, phases += t.units.phase;
        const int patch = images / kTogether * patch_pitch(t) * kPlaceBytes;
        expect(t.values - t.patch >= t.patches * patch, "plan_tiles: patches overlap");
        if (t.patches == 2) {
            ++twice;
            expect(t.copies > 0, "plan_tiles: a second patch that nothing comes to");
            const auto two = [&](int shared) { return 2 * (shared + 1024) <= limit + 1024; };
            expect(two(t.shared) || !two(t.shared - patch), "plan_tiles: a second patch costs a block");
        }
        const int map = t.tiles_h * t.tiles_w, tile = int(random.between(0, map - 1));
        const TilePlace place = place_of_tile(t, false, 3 * map + tile);
        expect(place.group == 3 && place.ph / t.tile_h * t.tiles_w + place.pw / t.tile_w == tile,
               "place_of_tile: another tile's");
    }
    expect(found > 1500 && twice > 20 && two_rows > 20 && tails > 10 && phases > 20 && runs > 20 && spans > 20,
           "plan_tiles: too few cases fit to say much");
}

}  // namespace

void conv_mix_tiles() {
    quotients();
    columns();
    rows();
    copies();
    steps();
    ways();
    walks();
    least();
    tilings();
}

}  // namespace test
