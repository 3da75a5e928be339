// conv_mix: z = conv2d(x, weight) + bias, p = maxpool(act(z)), y = mix(p), written to the shuffled rows; one pass.
//
// A work item is a group and a block of output rows. The input rows it needs are copied, padded and widened, into a
// strip of S images that stays in L2, so that any strides, dtype and padding cost nothing in the inner loop. Then, for
// a block of output channels (the vector lanes) and a tile of pixels, a register-blocked micro-kernel convolves the S
// images into an L1 tile, which is activated, pooled and mixed before its only way to memory.
#include "mixing.h"
#include "window.h"

namespace facemix::FACEMIX_ISA {
namespace {

// Register block: kPixels x kVectors accumulators, kVectors weights, and a broadcast where the instruction set cannot
// take it from memory: 8x2 of 32 registers, 6x2 of 16.
constexpr int kVectors = 2;
constexpr int kPixels = kRegisters == 32 ? 8 : 6;
static_assert(kPixels * kVectors + kVectors + 1 <= kRegisters, "the micro-kernel would spill");
constexpr int kTilePixels = kRegisters == 32 ? 16 : 24;  // S tiles of this many pixels stay in L1
static_assert(kTilePixels % kPixels == 0);
constexpr int64_t kStripBytes = 384 << 10;  // the input strip's share of L2
constexpr int64_t kMinItems = 16;           // work items, at least, where there are rows enough: balance

template <class T>
constexpr int kChannels = kVectors * kLanes<T>;  // output channels of one block

// z[p][0..kChannels) = bias + sum_k in[off[k] + p * step] * w[k][0..kChannels), then the activation.
template <class T, int Step>
inline void micro(const T* in, const int32_t* off, int64_t K, int64_t step, const T* w, const T* bias,
                  Activation activation, T slope, T* z) {
    constexpr int W = kLanes<T>;
    if constexpr (Step > 0) step = Step;
    Vec<T> acc[kPixels][kVectors];
    for (int p = 0; p < kPixels; ++p)
        for (int v = 0; v < kVectors; ++v) acc[p][v] = load(bias + v * W);
    for (int64_t k = 0; k < K; ++k) {
        const T* a = in + off[k];
        Vec<T> b[kVectors];
        for (int v = 0; v < kVectors; ++v) b[v] = load(w + k * kChannels<T> + v * W);
        for (int p = 0; p < kPixels; ++p)
            for (int v = 0; v < kVectors; ++v) acc[p][v] += a[p * step] * b[v];
    }
    for (int p = 0; p < kPixels; ++p)
        for (int v = 0; v < kVectors; ++v) store(z + p * kChannels<T> + v * W, activate(acc[p][v], activation, slope));
}

template <class T>
struct ConvMix {
    static constexpr int N = kChannels<T>;
    const ConvMixArgs& a;
    const T* weight;     // [blocks][K][N], zero past OC
    const T* bias;       // [blocks][N]
    const int32_t* off;  // [K]: offset in the strip of each weight's input
    int64_t K, blocks, rows, row_blocks, conv_rows, strip_rows, strip_width, width;
    bool streaming;
    bool windows;  // pooled, or codes wanted: convolved rows are kept until their windows are complete

    explicit ConvMix(const ConvMixArgs& args) : a(args) {
        const int64_t S = a.key.size, G = a.key.groups;
        K = a.C * a.KH * a.KW;
        blocks = ceil_div(a.OC, N);
        streaming = G * S * a.OC * a.PH * a.PW * int64_t(sizeof(T)) >= kStreamBytes;
        windows = !a.pool.identity() || a.codes;
        width = ceil_div(a.OW, kPixels) * kPixels;
        strip_width = (width - 1) * a.stride[1] + (a.KW - 1) * a.dilation[1] + 1;
        const int64_t most = ceil_div(a.PH, max64(1, ceil_div(kMinItems, max64(1, G))));
        const int64_t row_bytes = S * a.C * strip_width * int64_t(sizeof(T));
        for (rows = 1; rows < most && strip_height(rows + 1) * row_bytes <= kStripBytes;) ++rows;
        conv_rows = convolved(rows);
        strip_rows = strip_height(rows);
        row_blocks = ceil_div(a.PH, rows);
    }
    int64_t convolved(int64_t pooled) const { return (pooled - 1) * a.pool.sh + a.pool.kh; }
    int64_t strip_height(int64_t pooled) const {
        return (convolved(pooled) - 1) * a.stride[0] + (a.KH - 1) * a.dilation[0] + 1;
    }

    struct Scratch {
        T *c, *strip, *z, *t, *mixed;
        const T** in;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        const int64_t S = a.key.size;
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.strip = carver.take<T>(S * a.C * strip_rows * strip_width);
        s.z = carver.take<T>(windows ? a.pool.kh * S * width * N : 0);  // ring of rows
        s.t = carver.take<T>(S * kTilePixels * N);
        s.mixed = carver.take<T>(kMixRows * kTilePixels * N);
        s.in = carver.take<const T*>(S);
        s.bytes = carver.used();
        return s;
    }

    // Padded rows [h0, h0 + strip_rows) of image b, from the column -padding on.
    template <class E>
    void fill_strip(T* image, int64_t b, int64_t h0) const {
        const E* x = static_cast<const E*>(a.x) + b * a.x_strides[0];
        const int64_t left = min64(a.padding[1], strip_width), right = min64(strip_width, a.padding[1] + a.W);
        for (int64_t r = 0; r < strip_rows; ++r)
            for (int64_t c = 0; c < a.C; ++c) {
                T* strip = image + (c * strip_rows + r) * strip_width;
                const int64_t h = h0 + r;
                if (h < 0 || h >= a.H) {
                    for (int64_t w = 0; w < strip_width; ++w) strip[w] = T(0);
                    continue;
                }
                const E* row = x + c * a.x_strides[1] + h * a.x_strides[2] - a.padding[1] * a.x_strides[3];
                for (int64_t w = 0; w < left; ++w) strip[w] = T(0);
                if (a.x_strides[3] == 1)
                    for (int64_t w = left; w < right; ++w) strip[w] = widen<T>(row[w]);
                else
                    for (int64_t w = left; w < right; ++w) strip[w] = widen<T>(row[w * a.x_strides[3]]);
                for (int64_t w = max64(left, right); w < strip_width; ++w) strip[w] = T(0);
            }
    }

    // z[0..n) pixels from column w0 on of one image's row at `strip`; n a multiple of kPixels.
    void convolve(T* z, const T* strip, int64_t w0, int64_t n, int64_t block, Activation activation) const {
        const T *w = weight + block * K * N, *d = bias + block * N, slope = T(a.slope);
        const int64_t step = a.stride[1];
        for (int64_t p = 0; p < n; p += kPixels) {
            const T* in = strip + (w0 + p) * step;
            if (step == 1) micro<T, 1>(in, off, K, step, w, d, activation, slope, z + p * N);
            else if (step == 2) micro<T, 2>(in, off, K, step, w, d, activation, slope, z + p * N);
            else micro<T, 0>(in, off, K, step, w, d, activation, slope, z + p * N);
        }
    }

    // t[p][0..N): the maxima of the windows of pooled row ph, columns [w0, w0 + n), from the ring of image j = b % S.
    template <bool WithCodes>
    void reduce(T* t, const T* ring, int64_t j, int64_t b, int64_t ph, int64_t w0, int64_t n, int64_t block) const {
        const Pool& p = a.pool;
        const Span span_h = clip_window(ph, p.kh, p.sh, p.pad_h, a.OH);
        // Without codes the rows were activated as they were made.
        const Activation activation = WithCodes ? a.activation : Activation::none;
        for (int64_t q = 0; q < n; ++q) {
            const Span span_w = clip_window(w0 + q, p.kw, p.sw, p.pad_w, a.OW);
            for (int v = 0; v < kVectors; ++v) {
                WindowMax<T, WithCodes> window;
                for (int64_t kh = span_h.begin; kh < span_h.end; ++kh) {
                    const int64_t oh = ph * p.sh - p.pad_h + kh;
                    const T* row = ring + ((oh % p.kh) * a.key.size + j) * width * N + v * kLanes<T>;
                    for (int64_t kw = span_w.begin; kw < span_w.end; ++kw)
                        window.add(load(row + ((w0 + q) * p.sw - p.pad_w + kw) * N), kh * p.kw + kw, activation,
                                   T(a.slope));
                }
                store(t + q * N + v * kLanes<T>, window.best);
                if constexpr (WithCodes) write_codes(window.code, b, ph, w0 + q, block * N + v * kLanes<T>);
            }
        }
    }
    void write_codes(Vec<T> code, int64_t b, int64_t ph, int64_t pw, int64_t oc) const {
        const int64_t pixel = ph * a.PW + pw, plane = a.PH * a.PW;
        uint8_t* codes = a.codes + b * a.OC * plane + (a.channels_last ? pixel * a.OC + oc : oc * plane + pixel);
        const int64_t lanes = min64(kLanes<T>, a.OC - oc), step = a.channels_last ? 1 : plane;
        T c[kLanes<T>];
        store(c, code);
        for (int64_t l = 0; l < lanes; ++l) codes[l * step] = uint8_t(c[l]);
    }

    // Mixes the S tiles of n pixels at s.t and writes them to (ph, w0..) of their destination rows.
    void emit(const Scratch& s, const T* c, int64_t g, int64_t ph, int64_t w0, int64_t n, int64_t block) const {
        with_dtype_of<T>(a.y_dtype, [&](auto tag) {
            emit_as(static_cast<typename decltype(tag)::type*>(a.y), s, c, g, ph, w0, n, block);
        });
    }
    template <class O>
    void emit_as(O* out, const Scratch& s, const T* c, int64_t g, int64_t ph, int64_t w0, int64_t n,
                 int64_t block) const {
        const int64_t S = a.key.size, oc0 = block * N, plane = a.PH * a.PW;
        const int64_t channels = min64(N, a.OC - oc0);
        for (int64_t i0 = 0; i0 < S; i0 += kMixRows) {
            const int64_t i1 = min64(S, i0 + kMixRows);
            if (a.channels_last) {
                O* y[kMixRows];
                for (int64_t i = i0; i < i1; ++i)
                    y[i - i0] = out + row_offset(g * S + i) + (ph * a.PW + w0) * a.OC + oc0;
                mix_tile<T>(s.in, c, S, i0, i1, n * N, [&](int64_t i, int64_t e, Vec<T> v, int64_t) {
                    const int64_t lane = e % N, lanes = channels - lane;
                    if (lanes > 0) write_as<T>(y[i - i0] + e / N * a.OC + lane, v, lanes, streaming);
                });
            } else {
                mix_tile<T>(s.in, c, S, i0, i1, n * N, [&](int64_t i, int64_t e, Vec<T> v, int64_t) {
                    store(s.mixed + (i - i0) * kTilePixels * N + e, v);
                });
                for (int64_t i = i0; i < i1; ++i)
                    to_planes(out + row_offset(g * S + i) + oc0 * plane + ph * a.PW + w0,
                              s.mixed + (i - i0) * kTilePixels * N, plane, channels, n);
            }
        }
    }
    int64_t row_offset(int64_t b) const { return a.key.order[b] * a.OC * a.PH * a.PW; }

    // [n pixels][N channels] in cache to `channels` planes.
    template <class O>
    void to_planes(O* y, const T* tile, int64_t plane, int64_t channels, int64_t n) const {
        constexpr int W = kLanes<T>;
        for (int64_t oc = 0; oc < channels; oc += W)
            for (int64_t p = 0; p < n; p += W) {
                Vec<T> r[W];
                for (int k = 0; k < W; ++k) r[k] = load(tile + min64(p + k, kTilePixels - 1) * N + oc);
                transpose<T>(r);
                const int64_t rows = min64(W, channels - oc);
                for (int64_t k = 0; k < rows; ++k) write_as<T>(y + (oc + k) * plane + p, r[k], n - p, streaming);
            }
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ConvMix& self = *static_cast<const ConvMix*>(ctx);
        const ConvMixArgs& a = self.a;
        const int64_t S = a.key.size, g = index / self.row_blocks, first = index % self.row_blocks * self.rows;
        const int64_t last = min64(a.PH, first + self.rows);
        const Scratch s = self.carve(scratch);
        Coefficients<T> coeffs(a.key, g, false, s.c);
        const int64_t oh0 = first * a.pool.sh - a.pool.pad_h;  // may lie in the pool's padding
        const int64_t image = a.C * self.strip_rows * self.strip_width;
        for (int64_t j = 0; j < S; ++j) {
            with_dtype_of<T>(a.x_dtype, [&](auto tag) {
                using E = typename decltype(tag)::type;
                self.template fill_strip<E>(s.strip + j * image, g * S + j, oh0 * a.stride[0] - a.padding[0]);
            });
            s.in[j] = s.t + j * kTilePixels * N;
        }
        for (int64_t block = 0; block < self.blocks; ++block) {
            if (self.windows) self.pooled_rows(s, coeffs.get(), g, first, last, oh0, image, block);
            else self.plain_rows(s, coeffs.get(), g, first, last, image, block);
        }
        finish_streaming();
    }

    void plain_rows(const Scratch& s, const T* c, int64_t g, int64_t first, int64_t last, int64_t image,
                    int64_t block) const {
        for (int64_t oh = first; oh < last; ++oh)
            for (int64_t w0 = 0; w0 < a.OW; w0 += kTilePixels) {
                const int64_t n = min64(kTilePixels, a.OW - w0);
                for (int64_t j = 0; j < a.key.size; ++j)
                    convolve(s.t + j * kTilePixels * N, s.strip + j * image + (oh - first) * a.stride[0] * strip_width,
                             w0, ceil_div(n, kPixels) * kPixels, block, a.activation);
                emit(s, c, g, oh, w0, n, block);
            }
    }

    void pooled_rows(const Scratch& s, const T* c, int64_t g, int64_t first, int64_t last, int64_t oh0, int64_t image,
                     int64_t block) const {
        const int64_t S = a.key.size;
        const Activation activation = a.codes ? Activation::none : a.activation;
        int64_t done = max64(oh0, 0);  // rows before this one are in the ring
        for (int64_t ph = first; ph < last; ++ph) {
            const int64_t end = min64(a.OH, ph * a.pool.sh - a.pool.pad_h + a.pool.kh);
            done = max64(done, ph * a.pool.sh - a.pool.pad_h);
            for (; done < end; ++done)
                for (int64_t j = 0; j < S; ++j)
                    convolve(s.z + ((done % a.pool.kh) * S + j) * width * N,
                             s.strip + j * image + (done - oh0) * a.stride[0] * strip_width, 0, width, block,
                             activation);
            for (int64_t w0 = 0; w0 < a.PW; w0 += kTilePixels) {
                const int64_t n = min64(kTilePixels, a.PW - w0);
                for (int64_t j = 0; j < S; ++j) {
                    T* t = s.t + j * kTilePixels * N;
                    if (a.codes) reduce<true>(t, s.z, j, g * S + j, ph, w0, n, block);
                    else reduce<false>(t, s.z, j, g * S + j, ph, w0, n, block);
                }
                emit(s, c, g, ph, w0, n, block);
            }
        }
    }

    // Offsets, weights and bias in the order that the micro-kernel reads them.
    struct Packed {
        int32_t* off;
        T *weight, *bias;
        size_t bytes;
    };
    Packed carve_packed(char* base) const {
        Carver carver(base);
        Packed p;
        p.off = carver.take<int32_t>(K);
        p.weight = carver.take<T>(blocks * K * N);
        p.bias = carver.take<T>(blocks * N);
        p.bytes = carver.used();
        return p;
    }
    template <class E>
    void pack(const Packed& p) {
        const E* w = static_cast<const E*>(a.weight);
        const E* d = static_cast<const E*>(a.bias);
        for (int64_t c = 0, k = 0; c < a.C; ++c)
            for (int64_t kh = 0; kh < a.KH; ++kh)
                for (int64_t kw = 0; kw < a.KW; ++kw, ++k)
                    p.off[k] = int32_t((c * strip_rows + kh * a.dilation[0]) * strip_width + kw * a.dilation[1]);
        for (int64_t oc = 0; oc < blocks * N; ++oc) {
            const bool real = oc < a.OC;
            p.bias[oc] = real && d ? widen<T>(d[oc]) : T(0);
            T* out = p.weight + oc / N * K * N + oc % N;
            for (int64_t k = 0; k < K; ++k) out[k * N] = real ? widen<T>(w[oc * K + k]) : T(0);
        }
        weight = p.weight, bias = p.bias, off = p.off;
    }

    void run() {
        const Packed packed = carve_packed(workspace(carve_packed(nullptr).bytes));
        with_dtype_of<T>(a.x_dtype, [&](auto tag) { pack<typename decltype(tag)::type>(packed); });
        prefer_large_pages(a.y, a.key.groups * a.key.size * a.OC * a.PH * a.PW * bytes_of(a.y_dtype));
        parallel_for(a.key.groups * row_blocks, a.threads, carve(nullptr).bytes, item, this);
    }
};

}  // namespace

void conv_mix(const ConvMixArgs& a) {
    if (a.x_dtype == Dtype::f64) ConvMix<double>(a).run();
    else ConvMix<float>(a).run();
}

}  // namespace facemix::FACEMIX_ISA
