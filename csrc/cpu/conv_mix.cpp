// conv_mix: z = conv2d(x, weight) + bias, p = maxpool(act(z)), y = mix(p), written to the shuffled rows; one pass.
//
// A work item is a group and a range of output rows, walked in blocks. The input of a block is copied into a strip
// (strip.h) that stays in L2. A register-blocked inner loop (conv_micro.h) convolves a tile of all S images into L1, or
// whole rows where there are windows to reduce (conv_window.h); the tile is mixed, and goes to memory once.
#include "conv_mix_plan.h"
#include "conv_mix_rows.h"
#include "conv_window.h"

namespace facemix::FACEMIX_ISA {
namespace {

template <class P>
struct ConvMix {
    using T = typename P::Sum;
    using Elem = typename P::Elem;
    using Part = typename P::Part;
    static constexpr int W = kLanes<T>;
    static constexpr int64_t kWindowPixels = max64(8, W);                                // of a tile of reduced windows
    static constexpr int64_t kBlockChannels = max64(kTileChannels, kChannelVectors* W);  // of a block, at most

    const ConvMixArgs& a;
    const Plan<P> plan{a};
    const Strip<P> strip{a, plan.block_rows, plan.strip_width, plan.pixel_lanes};
    const int64_t S = a.key.size, G = a.key.groups, K = strip.channels * a.KH * a.KW;
    const int64_t plane = a.PH * a.PW;
    const int64_t channels = ceil_div(a.OC, W) * W;  // OC, rounded up
    // From one image's tile to the next. The tiles are packed, or no power of two apart: they share L1.
    const int64_t tile_step = plan.windows       ? kWindowPixels * kBlockChannels + W
                              : plan.pixel_lanes ? kChannelRows * plan.run_vectors * W
                                                 : pixel_rows(kChannelVectors) * kBlockChannels;
    const Elem* weight = nullptr;  // parts of n output channels, each [K][n], zero past OC
    const T* bias = nullptr;
    const int32_t* off = nullptr;  // [K]: offset in the strip of each weight's input

    explicit ConvMix(const ConvMixArgs& args) : a(args) {}

    struct Scratch {
        T *c, *row, *best, *code, *tile, *tile_code, *mixed, *lines;
        Elem* strip;
        const T** in;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        const int64_t ring = plan.windows ? a.pool.kh * S * a.PW * channels : 0;
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.strip = carver.take<Elem>(S * strip.image_step);
        s.row = carver.take<T>(plan.windows ? a.OW * kBlockChannels : 0);
        s.best = carver.take<T>(ring);
        s.code = carver.take<T>(a.codes ? ring : 0);
        s.tile = carver.take<T>(S * tile_step + kPage / int64_t(sizeof(T)));
        s.tile_code = carver.take<T>(a.codes ? tile_step : 0);
        s.mixed = carver.take<T>(plan.windows && !a.channels_last ? S * tile_step : 0);
        s.lines = carver.take<T>(plan.in_lines ? S * lines_step() : 0);
        s.in = carver.take<const T*>(S);
        s.bytes = carver.used();
        return s;
    }

    // Output channels [oc, oc + n) of a tile. The inner loop takes `part` of them at once: where they are the lanes,
    // `vectors` vectors.
    struct Block {
        int64_t oc, n, part;
        int vectors;
    };
    template <class F>
    void for_blocks(F&& f) const {
        for (int64_t oc = 0; oc < a.OC;) {
            const int64_t left = ceil_div(a.OC - oc, W);
            const int vectors = left >= kChannelVectors ? kChannelVectors : left >= 2 ? 2 : 1;
            const int64_t part = plan.pixel_lanes ? Micro<P>::pixel_lanes(1, a.OC - oc).rows : vectors * W;
            const int64_t most = plan.pixel_lanes || vectors < kChannelVectors ? 1 : max64(1, kTileChannels / part);
            const Block b{oc, part * min64(most, max64(1, (a.OC - oc) / part)), part, vectors};
            f(b);
            oc += b.n;
        }
    }

    // One group's share of an item.
    struct Task {
        Scratch s;
        ConvMixRows<T> rows;
        int64_t g, last;  // its rows end before `last`
    };

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ConvMix& self = *static_cast<const ConvMix*>(ctx);
        self.walk(index / self.plan.items, index % self.plan.items * self.plan.item_rows, self.carve(scratch));
    }
    void walk(int64_t g, int64_t first, const Scratch& s) const {
        const int64_t last = min64(a.PH, first + plan.item_rows);
        const Coefficients<T> coeffs(a.key, g, false, s.c);
        const Task task{s, {a, s.in, coeffs.get(), g, plan.streaming}, g, last};
        const int64_t begin = max64(0, first * a.pool.sh - a.pool.pad_h);
        const int64_t end = min64(a.OH, (last - 1) * a.pool.sh - a.pool.pad_h + a.pool.kh);
        int64_t next = first;  // the first output row that is not written yet
        int64_t kept = 0;      // input rows that the block before leaves in the strip
        for (int64_t oh = begin; oh < end; oh += plan.block_rows) {
            const int64_t rows = min64(plan.block_rows, end - oh);
            for (int64_t j = 0; j < S; ++j) {
                Elem* image = s.strip + j * strip.image_step;
                if (kept) strip.advance(image, plan.block_rows);
                strip.fill(image, g * S + j, oh, rows, kept);
            }
            kept = strip.shared(rows);
            int64_t written = next;
            for_blocks([&](Block b) {
                if (plan.windows) written = window_rows(task, b, oh, rows, next);
                else if (plan.pixel_lanes) pixel_lane_rows(task, b, oh, rows);
                else channel_lane_rows(task, b, oh, rows);
            });
            next = written;
        }
        finish_streaming();
    }

    // The tiles of what goes to element `at` of y and those behind it. A load waits for a store of shortly before whose
    // address has the same last twelve bits, so the tiles keep their distance from y in those.
    T* tiles(const Task& t, int64_t at) const {
        const uintptr_t base = reinterpret_cast<uintptr_t>(t.s.tile);
        const uintptr_t wanted = reinterpret_cast<uintptr_t>(a.y) + uintptr_t(at * bytes_of(a.y_dtype)) + kAhead;
        T* tile = reinterpret_cast<T*>(base + (wanted - base) % kPage / 64 * 64);
        for (int64_t j = 0; j < S; ++j) t.s.in[j] = tile + j * tile_step;
        return tile;
    }

    // --- without windows ---------------------------------------------------------------------------------------------

    void channel_lane_rows(const Task& t, Block b, int64_t oh, int64_t rows) const {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t w = 0; w < a.OW;) {
                const auto choice = Micro<P>::channel_lanes(b.vectors, a.OW - w);
                const int64_t at = ((oh + r) * a.PW + w) * a.OC + b.oc;
                convolve(t, choice.run, b, 0, S, r, w, tiles(t, at), b.n);
                t.rows.write(at, choice.rows, a.OC, b.n / W, a.OC - b.oc);
                w += choice.rows;
            }
    }
    // A tile from pixel w of row r of the strip on, of `images` images from the j-th on; its rows lie z_step apart.
    void convolve(const Task& t, typename Micro<P>::Block run, Block b, int64_t j, int64_t images, int64_t r, int64_t w,
                  T* z, int64_t z_step) const {
        const Elem* in = t.s.strip + j * strip.image_step + r * strip.convolved_row_step() + w * strip.pixel_step();
        for (int64_t c = 0; c < b.n; c += b.part)
            run({in, strip.image_step, images, off, K, strip.pixel_step(), weight + (b.oc + c) * K, bias + b.oc + c,
                 a.codes ? Activation::none : a.activation, T(a.slope), z + c, z_step, tile_step});
    }

    // Calls f(w, vectors) for up to `most` vectors of pixels at a time, from w to `end`.
    template <class F>
    static void for_pixels(int64_t w, int64_t end, int64_t most, F&& f) {
        for (int64_t vectors; w < end; w += vectors * W) {
            const int64_t left = ceil_div(end - w, W);
            vectors = most == 3 && left == 4 ? 2 : min64(left, most);
            f(w, vectors);
        }
    }
    void pixel_lane_rows(const Task& t, Block b, int64_t oh, int64_t rows) const {
        if (plan.in_lines) return pixel_lane_lines(t, b, oh, rows);
        for (int64_t r = 0; r < rows; ++r)
            for_pixels(0, a.OW, plan.run_vectors, [&](int64_t first, int64_t run) {
                const int64_t at = b.oc * plane + (oh + r) * a.PW + first;
                T* z = tiles(t, at);
                for_pixels(first, first + run * W, plan.pixel_vectors, [&](int64_t w, int64_t vectors) {
                    convolve(t, Micro<P>::pixel_lanes(vectors, b.n).run, b, 0, S, r, w, z + (w - first), run * W);
                });
                t.rows.write(at, b.n, plane, run, a.OW - first);
            });
    }

    // The lines of an image, one a channel: all rows of a block, as they follow one another in y, and at the same place
    // in a line of the cache. What a tile computes beyond its row, the next row overwrites.
    int64_t line_step() const {
        const int64_t least = plan.block_rows * a.PW + kPixelVectors * W;
        return least + (plane - least % W + W) % W;
    }
    int64_t lines_step() const { return ceil_div(kChannelRows * line_step(), W) * W + W; }
    void pixel_lane_lines(const Task& t, Block b, int64_t oh, int64_t rows) const {
        const int64_t at = b.oc * plane + oh * a.PW;
        T* lines = t.s.lines + (reinterpret_cast<uintptr_t>(a.y) / bytes_of(a.y_dtype) + at) % W;
        for (int64_t j = 0; j < S; ++j)
            for (int64_t r = 0; r < rows; ++r)
                for_pixels(0, a.OW, plan.pixel_vectors, [&](int64_t w, int64_t vectors) {
                    convolve(t, Micro<P>::pixel_lanes(vectors, b.n).run, b, j, 1, r, w,
                             lines + j * lines_step() + r * a.PW + w, line_step());
                });
        for (int64_t c = 0; c < b.n; ++c) {
            for (int64_t j = 0; j < S; ++j) t.s.in[j] = lines + j * lines_step() + c * line_step();
            t.rows.write_run(at + c * plane, rows * a.PW);
        }
    }

    // --- with windows: a pool, or codes for the backward pass --------------------------------------------------------

    // Convolves the rows, and writes the output rows from `next` on that they complete; returns the next one after.
    int64_t window_rows(const Task& t, Block b, int64_t oh, int64_t rows, int64_t next) const {
        const Pool& p = a.pool;
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t row = oh + r;
            if (row < next * p.sh - p.pad_h) continue;  // between two windows
            for (int64_t j = 0; j < S; ++j) {
                for (int64_t w = 0; w < a.OW;) {
                    const auto choice = Micro<P>::channel_lanes(b.vectors, a.OW - w);
                    convolve(t, choice.run, b, j, 1, r, w, t.s.row + w * b.n, b.n);
                    w += choice.rows;
                }
                T* best = ring(t.s.best, b, row, j);
                if (a.codes) reduce_row<T, true>(a, t.s.row, b.n, a.activation, best, ring(t.s.code, b, row, j));
                else reduce_row<T, false>(a, t.s.row, b.n, Activation::none, best, nullptr);
            }
            for (; next < t.last && row + 1 == min64(a.OH, next * p.sh - p.pad_h + p.kh); ++next)
                for (int64_t q = 0; q < a.PW; q += kWindowPixels)
                    window_tile(t, b, next, q, min64(kWindowPixels, a.PW - q));
        }
        return next;
    }
    // Row `row` of image j among the last p.kh convolved rows.
    T* ring(T* base, Block b, int64_t row, int64_t j) const {
        return base + a.PW * (a.pool.kh * S * b.oc + (row % a.pool.kh * S + j) * b.n);
    }

    // n pixels from column q of output row ph.
    void window_tile(const Task& t, Block b, int64_t ph, int64_t q, int64_t n) const {
        const Pool& p = a.pool;
        const Span span = clip_window(ph, p.kh, p.sh, p.pad_h, a.OH);
        T* const first = tiles(t, (ph * a.PW + q) * a.OC + b.oc);
        for (int64_t j = 0; j < S; ++j) {
            T* tile = first + j * tile_step;
            for (int64_t kh = span.begin; kh < span.end; ++kh) {
                const int64_t row = ph * p.sh - p.pad_h + kh;
                const T* best = ring(t.s.best, b, row, j) + q * b.n;
                if (a.codes)
                    reduce_column<T, true>(best, ring(t.s.code, b, row, j) + q * b.n, n * b.n, kh == span.begin,
                                           kh * p.kw, tile, t.s.tile_code);
                else reduce_column<T, false>(best, nullptr, n * b.n, kh == span.begin, 0, tile, nullptr);
            }
            if (a.codes)
                t.rows.place(t.s.tile_code, a.codes + (t.g * S + j) * a.OC * plane, b.oc, b.n, ph * a.PW + q, n);
        }
        if (a.channels_last) {
            t.rows.write((ph * a.PW + q) * a.OC + b.oc, n, a.OC, b.n / W, a.OC - b.oc);
            return;
        }
        t.rows.mix_to([&](int64_t i) { return t.s.mixed + i * tile_step; }, n, b.n, b.n / W, b.n, false);
        t.rows.write_mixed(t.s.mixed, tile_step, b.oc, b.n, ph * a.PW + q, n);
    }

    // --- weights -----------------------------------------------------------------------------------------------------

    struct Packed {
        int32_t* off;
        Elem* weight;
        T* bias;
        size_t bytes;
    };
    Packed carve_packed(char* base) const {
        Carver carver(base);
        Packed p;
        p.off = carver.take<int32_t>(K);
        p.weight = carver.take<Elem>(channels * K);
        p.bias = carver.take<T>(channels);
        p.bytes = carver.used();
        return p;
    }
    // Offsets, weights and bias in the order that the inner loop reads them: kh, kw, channel.
    template <class E>
    void pack(const Packed& p) {
        const E* w = static_cast<const E*>(a.weight);
        const E* d = static_cast<const E*>(a.bias);
        const int64_t taps = a.KH * a.KW;
        for (int64_t tap = 0, k = 0; tap < taps; ++tap)
            for (int64_t c = 0; c < strip.channels; ++c, ++k)
                p.off[k] = int32_t(strip.offset(c, tap / a.KW, tap % a.KW));
        for (int64_t oc = 0; oc < channels; ++oc) p.bias[oc] = oc < a.OC && d ? widen<T>(d[oc]) : T(0);
        for_blocks([&](Block b) {
            for (int64_t first = b.oc; first < b.oc + b.n; first += b.part) {
                Part* out = reinterpret_cast<Part*>(p.weight + first * K);
                for (int64_t tap = 0; tap < taps; ++tap)
                    for (int64_t c = 0; c < strip.channels; ++c)
                        for (int64_t oc = first; oc < first + b.part; ++oc)
                            for (int64_t pack = 0; pack < P::kPack; ++pack, ++out) {
                                const int64_t ic = c * P::kPack + pack;
                                const bool real = oc < a.OC && ic < a.C;
                                *out = real ? widen<Part>(w[(oc * a.C + ic) * taps + tap]) : Part{};
                            }
            }
        });
        weight = p.weight, bias = p.bias, off = p.off;
    }

    void run() {
        const Packed packed = carve_packed(workspace(carve_packed(nullptr).bytes));
        with_dtype_of<T>(a.x_dtype, [&](auto tag) {
            using E = typename decltype(tag)::type;
            if constexpr (P::kPack == 1 || kSame<E, Part>) pack<E>(packed);
        });
        prefer_large_pages(a.y, G * S * a.OC * plane * bytes_of(a.y_dtype));
        parallel_for(G * plan.items, a.threads, carve(nullptr).bytes, item, this);
    }
};

}  // namespace

void conv_mix(const ConvMixArgs& a) {
    if (a.x_dtype == Dtype::f64) return ConvMix<Single<double>>(a).run();
#if defined(__AVX512BF16__)
    if (a.x_dtype == Dtype::bf16) return ConvMix<BfloatPairs>(a).run();
#endif
    ConvMix<Single<float>>(a).run();
}

}  // namespace facemix::FACEMIX_ISA
