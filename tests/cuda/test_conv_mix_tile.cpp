// The geometry of conv_mix's tiles, function by function, against what it says it is.
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

void walks() {
    for (int height = 1; height < 40; ++height)
        for (int width = 1; width < 200; width += width < 10 ? 1 : 13) {
            Tiling t = {};
            t.patch_h = height, t.patch_w = width;
            for (const int first : {0, 1, kTileThreads - 1}) {
                PatchWalk walk(t, first);
                for (int p = first; p < 5 * height * width; p += kTileThreads, walk.next())
                    expect((walk.image * height + walk.row) * width + walk.column == p && walk.row < height &&
                               walk.column < width,
                           "PatchWalk: not where it should be");
            }
        }
}

// What a lane reads of the patch is what was put there for it; no two things go to one place, nor to that of zeros.
void patches(const ConvMixArgs& a, const Tiling& t, const TileKind& kind) {
    const int together = kind.together(), pitch = patch_pitch(t, together), places = t.patch_h * t.patch_w * t.units;
    std::vector<int> seen(size_t(kind.images / together * pitch));
    for (int image = 0; image < kind.images; ++image)
        for (int k = 0; k < places; ++k) {
            const int pixel = k / t.units;
            ++seen.at(size_t(patch_unit(t, together, image, pixel / t.patch_w, pixel % t.patch_w, k % t.units)));
        }
    for (int k = 0; k < int(seen.size()); ++k)
        expect(seen[size_t(k)] == (k % pitch < pitch - together), "patch_unit: not one to one");
    for (int p = 0; p < t.conv_h * t.conv_w; ++p)
        for (int q = 0; q < int(a.KH * a.KW) * t.units; ++q) {
            const int h = p / t.conv_w, w = p % t.conv_w, tap = q / t.units;
            const int row = h * int(a.stride[0]) + tap / int(a.KW) * int(a.dilation[0]);
            const int column = w * int(a.stride[1]) + tap % int(a.KW) * int(a.dilation[1]);
            expect((pixel_offset(a, t, h, w) + unit_offset(a, t, q)) * together ==
                       patch_unit(t, together, 0, row, column, q % t.units),
                   "unit_offset: reads what is not there");
        }
}

// Steps that kernels are compiled for are those that are planned, and full but for the last.
void steps() {
    for (const int element : {2, 4})
        for (const int kernel : {1, 3, 5, 7})
            for (int channels = 1; channels <= kChunkChannels; ++channels) {
                const TileKind kind = {element, 4, 8};
                ConvMixArgs a = {};
                a.C = channels, a.OC = 64, a.KH = a.KW = kernel, a.H = a.W = a.OH = a.OW = a.PH = a.PW = 64;
                for (int d = 0; d < 2; ++d) a.stride[d] = a.dilation[d] = 1;
                a.pool = {1, 1, 1, 1, 0, 0}, a.key.groups = 1, a.key.size = 8;
                const Tiling t = plan_tiles(a, kind, 227 << 10);
                expect(t.tile_h > 0 && t.steps == kind.steps(kernel, channels), "steps: others are planned");
                const int units = kernel * kernel * t.units;
                expect((t.steps - 1) * 4 < units && units <= t.steps * 4, "steps: a gap before the last");
            }
}

ConvMixArgs draw(Random& random) {
    ConvMixArgs a = {};
    a.C = random.among({1, 3, 4, 16, 32, 64, 100}), a.OC = random.among({1, 16, 64, 300});
    a.KH = random.between(1, 7), a.KW = random.between(1, 7);
    for (int d = 0; d < 2; ++d) {
        a.stride[d] = random.between(1, 3), a.dilation[d] = random.between(1, 2);
        (d ? a.OW : a.OH) = random.among({random.between(1, 20), random.between(100, 5000)});
    }
    a.H = a.OH * a.stride[0] + 20, a.W = a.OW * a.stride[1] + 20;  // near enough: their use is to be large
    a.pool = random_pool(random, a.OH, a.OW);
    a.PH = pooled(a.OH, a.pool.kh, a.pool.sh, a.pool.pad_h), a.PW = pooled(a.OW, a.pool.kw, a.pool.sw, a.pool.pad_w);
    a.channels_last = random.chance(2);
    a.x_strides[0] = a.C * a.H * a.W, a.x_strides[1] = a.channels_last ? 1 : a.H * a.W;
    a.x_strides[2] = a.channels_last ? a.W * a.C : a.W, a.x_strides[3] = a.channels_last ? a.C : 1;
    a.key.groups = 1, a.key.size = random.among({2, 4, 8, 11, 16});
    return a;
}

// The tiles cover y once, hold what they need, and fit.
void tilings() {
    Random random(1);
    int64_t found = 0, twice = 0;
    for (int n = 0; n < 2000; ++n) {
        const ConvMixArgs a = draw(random);
        const int images = a.key.size <= 4 ? 4 : a.key.size <= 8 ? 8 : 16;
        const TileKind kind = {int(random.among({2, 2, 4})), int(random.among({1, 4})), images};
        const int limit = int(random.among({48 << 10, 99 << 10, 227 << 10}));
        const Tiling t = plan_tiles(a, kind, limit);
        if (t.tile_h == 0) continue;
        ++found;
        expect(t.conv_h * t.conv_w <= kTilePixels, "plan_tiles: more pixels than threads have");
        expect(t.tile_h * t.tiles_h >= a.PH && t.tile_h * (t.tiles_h - 1) < a.PH && t.tile_w * t.tiles_w >= a.PW &&
                   t.tile_w * (t.tiles_w - 1) < a.PW,
               "plan_tiles: y is not covered once");
        expect(t.chunks * t.units * kind.unit() >= a.C && (t.chunks - 1) * t.units * kind.unit() < a.C,
               "plan_tiles: channels without a chunk");
        const int parts[] = {0, t.bias, t.offsets, t.weights, t.patch, t.values, t.shared};
        for (int k = 1; k < 7; ++k)
            expect(parts[k] % 16 == 0 && parts[k] >= parts[k - 1], "plan_tiles: parts of shared memory overlap");
        expect(t.shared <= limit, "plan_tiles: more shared memory than there is");
        // The last unit of K at the last convolved pixel is the patch's last.
        const int units = int(a.KH * a.KW) * t.units;
        expect(pixel_offset(a, t, t.conv_h - 1, t.conv_w - 1) + unit_offset(a, t, units - 1) + 1 ==
                   t.patch_h * t.patch_w * t.units,
               "plan_tiles: a patch of another size than is read");
        patches(a, t, kind);
        const int patch = images / kind.together() * patch_pitch(t, kind.together()) * kUnitBytes;
        expect(t.values - t.patch >= t.patches * patch, "plan_tiles: patches overlap");
        if (t.patches == 2) {
            ++twice;
            expect(t.async && t.chunks > 1, "plan_tiles: a second patch that nothing comes to");
            expect(t.shared <= limit / 2 || t.shared - patch > limit / 2, "plan_tiles: a second patch costs a block");
        }
        const int64_t tile = random.between(0, int64_t(t.tiles_h) * t.tiles_w - 1);
        const TilePlace place = place_of_tile(t, 3 * int64_t(t.tiles_h) * t.tiles_w + tile);
        expect(place.group == 3 && place.ph / t.tile_h * t.tiles_w + place.pw / t.tile_w == tile,
               "place_of_tile: another tile's");
    }
    expect(found > 1500 && twice > 20, "plan_tiles: too few cases fit to say much");
}

}  // namespace

void conv_mix_tiles() {
    columns();
    rows();
    walks();
    steps();
    tilings();
}

}  // namespace test
