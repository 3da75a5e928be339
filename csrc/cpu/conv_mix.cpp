// conv_mix: z = conv2d(x, weight) + bias, p = maxpool(act(z)), y = mix(p), written to the shuffled rows; one pass.
//
// A work item is a group and a range of output rows, walked in blocks. The input of a block is copied into a strip
// (strip.h) that stays in L2. A register-blocked inner loop (conv_micro.h) convolves a tile of all S images into L1, or
// whole rows where there are windows to reduce (conv_window.h); the tile is mixed, and goes to memory once.
#include "conv_micro.h"
#include "conv_window.h"
#include "mixing.h"
#include "strip.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kStripBytes = 384 << 10;  // the strip's share of L2
constexpr int64_t kTileBytes = 24 << 10;    // the input of a tile of all images stays in L1 up to here
constexpr int64_t kMinItems = 16;           // work items, at least, where there are rows enough: balance

// How the work is cut and laid out.
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
    int64_t pixel_vectors;  // of a tile in NCHW, at most

    explicit Plan(const ConvMixArgs& a) {
        const int64_t G = a.key.groups, S = a.key.size;
        windows = !a.pool.identity() || a.codes;
        pixel_lanes = !a.channels_last && !windows;
        strip_width = pixel_lanes ? ceil_div(a.OW, W) * W : a.OW;
        const bool large = G * S * a.OC * a.PH * a.PW * bytes_of(a.y_dtype) >= kStreamBytes;
        // Lines of the cache are written whole, or they would go to memory in pieces.
        const int64_t line = max64(W, 64 / bytes_of(a.y_dtype));
        const bool aligned = reinterpret_cast<uintptr_t>(a.y) % 64 == 0 && (a.channels_last ? a.OC : a.PW) % line == 0;
        const int64_t whole = kPixelVectors * W / line * line / W;
        pixel_vectors = whole ? whole : kPixelVectors;
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

template <class P>
struct ConvMix {
    using T = typename P::Sum;
    using Elem = typename P::Elem;
    using Part = typename P::Part;
    static constexpr int W = kLanes<T>;
    static constexpr int64_t kWindowPixels = max64(8, W);  // of a tile of reduced windows

    const ConvMixArgs& a;
    const Plan<P> plan{a};
    const Strip<P> strip{a, plan.block_rows, plan.strip_width, plan.pixel_lanes};
    const int64_t S = a.key.size, G = a.key.groups, K = strip.channels * a.KH * a.KW;
    const int64_t channels = ceil_div(a.OC, W) * W;  // OC, rounded up
    // From one image's tile to the next. The tiles are packed, or no power of two apart: they share L1.
    const int64_t tile_step =
        plan.windows ? kWindowPixels * kChannelVectors * W + W
                     : max64(pixel_rows(kChannelVectors) * kChannelVectors, kChannelRows* kPixelVectors) * W;
    const Elem* weight = nullptr;  // blocks of n output channels, each [K][n], zero past OC
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
        s.row = carver.take<T>(plan.windows ? a.OW * kChannelVectors * W : 0);
        s.best = carver.take<T>(ring);
        s.code = carver.take<T>(a.codes ? ring : 0);
        s.tile = carver.take<T>(S * tile_step);
        s.tile_code = carver.take<T>(a.codes ? tile_step : 0);
        s.mixed = carver.take<T>(plan.windows && !a.channels_last ? S * tile_step : 0);
        s.lines = carver.take<T>(plan.in_lines ? S * lines_step() : 0);
        s.in = carver.take<const T*>(S);
        s.bytes = carver.used();
        return s;
    }

    // Output channels [oc, oc + n), in `vectors` vectors where they are the lanes.
    struct Block {
        int64_t oc, n;
        int vectors;
    };
    template <class F>
    void for_blocks(F&& f) const {
        for (int64_t oc = 0; oc < a.OC;) {
            const int64_t left = ceil_div(a.OC - oc, W);
            const int vectors = left >= kChannelVectors ? kChannelVectors : left >= 2 ? 2 : 1;
            const int64_t n = plan.pixel_lanes ? Micro<P>::pixel_lanes(1, a.OC - oc).rows : vectors * W;
            const Block b{oc, n, vectors};
            f(b);
            oc += b.n;
        }
    }

    // One group's share of an item.
    struct Task {
        Scratch s;
        const T* c;
        int64_t g, last;  // its rows end before `last`
    };

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ConvMix& self = *static_cast<const ConvMix*>(ctx);
        self.walk(index / self.plan.items, index % self.plan.items * self.plan.item_rows, self.carve(scratch));
    }
    void walk(int64_t g, int64_t first, const Scratch& s) const {
        const int64_t last = min64(a.PH, first + plan.item_rows);
        const Coefficients<T> coeffs(a.key, g, false, s.c);
        const Task task{s, coeffs.get(), g, last};
        for (int64_t j = 0; j < S; ++j) s.in[j] = s.tile + j * tile_step;
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

    // --- without windows ---------------------------------------------------------------------------------------------

    void channel_lane_rows(const Task& t, Block b, int64_t oh, int64_t rows) const {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t w = 0; w < a.OW;) {
                const auto choice = Micro<P>::channel_lanes(b.vectors, a.OW - w);
                convolve(t, choice.run, b, 0, S, r, w, t.s.tile, b.n);
                write(t, ((oh + r) * a.PW + w) * a.OC + b.oc, choice.rows, a.OC, b.vectors, a.OC - b.oc);
                w += choice.rows;
            }
    }
    // A tile from pixel w of row r of the strip on, of `images` images from the j-th on; its rows lie z_step apart.
    void convolve(const Task& t, typename Micro<P>::Block run, Block b, int64_t j, int64_t images, int64_t r, int64_t w,
                  T* z, int64_t z_step) const {
        const Elem* in = t.s.strip + j * strip.image_step + r * strip.convolved_row_step() + w * strip.pixel_step();
        run({in, strip.image_step, images, off, K, strip.pixel_step(), weight + b.oc * K, bias + b.oc,
             a.codes ? Activation::none : a.activation, T(a.slope), z, z_step, tile_step});
    }

    // Calls f(w, vectors) for tiles that make up a row.
    template <class F>
    void for_pixel_tiles(F&& f) const {
        for (int64_t w = 0, vectors; w < a.OW; w += vectors * W) {
            const int64_t left = ceil_div(a.OW - w, W);
            vectors = left == 4 ? min64(2, plan.pixel_vectors) : min64(left, plan.pixel_vectors);
            f(w, vectors);
        }
    }
    void pixel_lane_rows(const Task& t, Block b, int64_t oh, int64_t rows) const {
        if (plan.in_lines) return pixel_lane_lines(t, b, oh, rows);
        for (int64_t r = 0; r < rows; ++r)
            for_pixel_tiles([&](int64_t w, int64_t vectors) {
                convolve(t, Micro<P>::pixel_lanes(vectors, b.n).run, b, 0, S, r, w, t.s.tile, vectors * W);
                write(t, b.oc * plane() + (oh + r) * a.PW + w, b.n, plane(), vectors, a.OW - w);
            });
    }

    // The lines of an image, one a channel: all rows of a block, as they follow one another in y, and at the same place
    // in a line of the cache. What a tile computes beyond its row, the next row overwrites.
    int64_t line_step() const {
        const int64_t least = plan.block_rows * a.PW + kPixelVectors * W;
        return least + (plane() - least % W + W) % W;
    }
    int64_t lines_step() const { return ceil_div(kChannelRows * line_step(), W) * W + W; }
    void pixel_lane_lines(const Task& t, Block b, int64_t oh, int64_t rows) const {
        const int64_t at = b.oc * plane() + oh * a.PW;
        T* lines = t.s.lines + (reinterpret_cast<uintptr_t>(a.y) / bytes_of(a.y_dtype) + at) % W;
        for (int64_t j = 0; j < S; ++j)
            for (int64_t r = 0; r < rows; ++r)
                for_pixel_tiles([&](int64_t w, int64_t vectors) {
                    convolve(t, Micro<P>::pixel_lanes(vectors, b.n).run, b, j, 1, r, w,
                             lines + j * lines_step() + r * a.PW + w, line_step());
                });
        with_dtype_of<T>(a.y_dtype, [&](auto tag) {
            using O = typename decltype(tag)::type;
            for (int64_t c = 0; c < b.n; ++c) {
                for (int64_t j = 0; j < S; ++j) t.s.in[j] = lines + j * lines_step() + c * line_step();
                O* y = static_cast<O*>(a.y) + at + c * plane();
                mix_run(t, y, rows * a.PW);
            }
        });
    }
    // Mixes n elements of t.s.in to the rows of y, past the caches where lines of the cache are whole.
    template <class O>
    void mix_run(const Task& t, O* y, int64_t n) const {
        constexpr int64_t kLine = max64(W, 64 / int64_t(sizeof(O)));
        const int64_t over = int64_t(reinterpret_cast<uintptr_t>(y) / sizeof(O) % kLine);
        const int64_t head = over ? min64(n, kLine - over) : 0, whole = (n - head) / kLine * kLine;
        const auto to = [&](int64_t i, int64_t e) { return y + sent_row(t, i) * row_size() + e; };
        const auto part = [&](int64_t e, int64_t count) {
            mix_tile<T>(t.s.in, t.c, S, e, count,
                        [&](int64_t i, int64_t at, Vec<T> v, int64_t lanes) { store_as<T>(to(i, at), v, lanes); });
        };
        part(0, head);
        mix_tile<T>(t.s.in, t.c, S, head, whole,
                    [&](int64_t i, int64_t at, Vec<T> v, int64_t) { stream_as<T>(to(i, at), v); });
        part(head + whole, n - head - whole);
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
        for (int64_t j = 0; j < S; ++j) {
            T* tile = t.s.tile + j * tile_step;
            for (int64_t kh = span.begin; kh < span.end; ++kh) {
                const int64_t row = ph * p.sh - p.pad_h + kh;
                const T* best = ring(t.s.best, b, row, j) + q * b.n;
                if (a.codes)
                    reduce_column<T, true>(best, ring(t.s.code, b, row, j) + q * b.n, n * b.n, kh == span.begin,
                                           kh * p.kw, tile, t.s.tile_code);
                else reduce_column<T, false>(best, nullptr, n * b.n, kh == span.begin, 0, tile, nullptr);
            }
            if (a.codes) place(t.s.tile_code, a.codes + (t.g * S + j) * row_size(), b, ph, q, n);
        }
        if (a.channels_last) {
            write(t, (ph * a.PW + q) * a.OC + b.oc, n, a.OC, b.vectors, a.OC - b.oc);
            return;
        }
        mix_to(t, [&](int64_t i) { return t.s.mixed + i * tile_step; }, n, b.n, b.vectors, b.n, false);
        with_dtype_of<T>(a.y_dtype, [&](auto tag) {
            using O = typename decltype(tag)::type;
            for (int64_t i = 0; i < S; ++i)
                place(t.s.mixed + i * tile_step, static_cast<O*>(a.y) + sent_row(t, i) * row_size(), b, ph, q, n);
        });
    }
    // A tile [n pixels][b.n channels] to its place in an image of the layout of y.
    template <class O>
    void place(const T* tile, O* image, Block b, int64_t ph, int64_t q, int64_t n) const {
        const int64_t pixel = ph * a.PW + q, plane = a.PH * a.PW, real = min64(b.n, a.OC - b.oc);
        if (a.channels_last) {
            for (int64_t k = 0; k < n; ++k)
                for (int64_t c = 0; c < real; c += W)
                    store_as<T>(image + (pixel + k) * a.OC + b.oc + c, load(tile + k * b.n + c), real - c);
            return;
        }
        for (int64_t c = 0; c < real; c += W)
            for (int64_t k = 0; k < n; k += W) {
                Vec<T> v[W];
                for (int l = 0; l < W; ++l) v[l] = load(tile + min64(k + l, n - 1) * b.n + c);
                transpose<T>(v);
                for (int64_t l = 0; l < min64(W, real - c); ++l)
                    store_as<T>(image + (b.oc + c + l) * plane + pixel + k, v[l], n - k);
            }
    }

    // --- the mix -----------------------------------------------------------------------------------------------------

    int64_t plane() const { return a.PH * a.PW; }
    int64_t row_size() const { return a.OC * plane(); }
    int64_t sent_row(const Task& t, int64_t i) const { return a.key.order[t.g * S + i]; }

    // Mixes the S tiles, `rows` rows of `vectors` vectors each, to elements `at + r * step` of the rows of y, of which
    // `lanes` exist.
    void write(const Task& t, int64_t at, int64_t rows, int64_t step, int64_t vectors, int64_t lanes) const {
        with_dtype_of<T>(a.y_dtype, [&](auto tag) {
            auto* base = static_cast<typename decltype(tag)::type*>(a.y) + at;
            mix_to(
                t, [&](int64_t i) { return base + sent_row(t, i) * row_size(); }, rows, step, vectors, lanes,
                plan.streaming);
        });
    }
    template <class Out>
    void mix_to(const Task& t, Out&& out, int64_t rows, int64_t step, int64_t vectors, int64_t lanes,
                bool streaming) const {
        for_row_blocks(S, [&](auto block, int64_t i0) {
            constexpr int I = decltype(block)::count;
            decltype(out(0)) y[I];
            for (int i = 0; i < I; ++i) y[i] = out(i0 + i);
            if (streaming) mix_rows<I, true>(t, y, i0, rows, step, vectors, lanes);
            else mix_rows<I, false>(t, y, i0, rows, step, vectors, lanes);
        });
    }
    template <int I, bool Streaming, class O>
    void mix_rows(const Task& t, O* const (&y)[I], int64_t i0, int64_t rows, int64_t step, int64_t vectors,
                  int64_t lanes) const {
        for (int64_t r = 0; r < rows; ++r) {
            int64_t v = 0;
            for (; v + kMixVectors <= vectors; v += kMixVectors)
                mix_vectors<I, kMixVectors, Streaming>(t, y, i0, (r * vectors + v) * W, r * step + v * W,
                                                       lanes - v * W);
            for (; v < vectors; ++v)
                mix_vectors<I, 1, Streaming>(t, y, i0, (r * vectors + v) * W, r * step + v * W, lanes - v * W);
        }
    }
    template <int I, int V, bool Streaming, class O>
    __attribute__((always_inline)) inline void mix_vectors(const Task& t, O* const (&y)[I], int64_t i0, int64_t e,
                                                           int64_t at, int64_t lanes) const {
        Vec<T> sums[I][V];
        mix_sums<T>(sums, t.s.in, t.c, S, i0, e, W);
        FACEMIX_UNROLL
        for (int q = 0; q < I * V; ++q) {
            const int i = q / V, v = q % V;
            O* to = y[i] + at + v * W;
            if (lanes >= V * W) {
                if constexpr (Streaming) stream_as<T>(to, sums[i][v]);
                else store_as<T>(to, sums[i][v], W);
            } else if (lanes > v * W) {
                store_as<T>(to, sums[i][v], lanes - v * W);
            }
        }
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
            Part* out = reinterpret_cast<Part*>(p.weight + b.oc * K);
            for (int64_t tap = 0; tap < taps; ++tap)
                for (int64_t c = 0; c < strip.channels; ++c)
                    for (int64_t l = 0; l < b.n; ++l)
                        for (int64_t part = 0; part < P::kPack; ++part, ++out) {
                            const int64_t oc = b.oc + l, ic = c * P::kPack + part;
                            const bool real = oc < a.OC && ic < a.C;
                            *out = real ? widen<Part>(w[(oc * a.C + ic) * taps + tap]) : Part{};
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
        prefer_large_pages(a.y, G * S * row_size() * bytes_of(a.y_dtype));
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
