// act_mix: a = act(scale * x + shift + residual), p = maxpool(a), y = mix(p), written to the shuffled rows.
// And its linearisation at the recorded codes, for the backward passes of act_mix and conv_mix:
//     jvp  y = mix(f * z[winner])          vjp  z[winner] += f * unmix(y),   f = code negative ? neg : pos
//
// Work is cut into lines: one channel's plane (NCHW), or one pixel row's channels (NHWC). Of each line, tiles of the S
// images of a group are made in L1, then mixed.
#include "mixing.h"
#include "window.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kTile = 512;      // elements of one image in a tile
constexpr int64_t kPerItem = 8192;  // elements of one image in a work item, about: enough to hide its overhead

// Where the tiles of a dense [B, C, H, W] tensor lie. In NCHW a line is (channel, pooled row) and its elements are
// pooled columns; in NHWC a line is (pooled row, pooled column) and its elements are channels. Without a pool the
// plane (NCHW) is one long row, so that its tiles are long.
struct Lines {
    bool channels_last;
    int64_t C, H, W, PH, PW;
    Pool pool;

    Lines(bool channels_last, int64_t C, int64_t H, int64_t W, int64_t PH, int64_t PW, const Pool& pool)
        : channels_last(channels_last), C(C), H(H), W(W), PH(PH), PW(PW), pool(pool) {
        if (pool.identity() && !channels_last) this->W = H * W, this->H = 1, this->PW = PH * PW, this->PH = 1;
    }
    int64_t count() const { return channels_last ? PH * PW : C * PH; }
    int64_t length() const { return channels_last ? C : PW; }
    int64_t plane() const { return C * H * W; }
    int64_t pooled_plane() const { return C * PH * PW; }

    // First channel, pooled row and column of element e of a line.
    int64_t channel(int64_t line, int64_t e) const { return channels_last ? e : line / PH; }
    int64_t row(int64_t line) const { return channels_last ? line / PW : line % PH; }
    int64_t column(int64_t line, int64_t e) const { return channels_last ? line % PW : e; }
    // Offset of pixel (h, w) of channel c in the image.
    int64_t at(int64_t c, int64_t h, int64_t w) const {
        return channels_last ? (h * W + w) * C + c : (c * H + h) * W + w;
    }
};

template <class T>
struct ActMix {
    const ActMixArgs& a;
    Lines lines{a.channels_last, a.C, a.H, a.W, a.PH, a.PW, a.pool};
    int64_t block = max64(1, kPerItem / max64(1, lines.length()));  // lines an item
    int64_t blocks = ceil_div(lines.count(), block);

    struct Scratch {
        T *c, *t;
        const T** in;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        const int64_t S = a.key.size;
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.t = carver.take<T>(S * kTile);
        s.in = carver.take<const T*>(S);
        s.bytes = carver.used();
        return s;
    }

    // t[0..n): activated and pooled values of image b; codes likewise when asked for.
    template <class E>
    void fill(T* t, int64_t b, int64_t line, int64_t e0, int64_t n) const {
        const E* x = static_cast<const E*>(a.x) + b * lines.plane();
        const E* residual = a.residual ? static_cast<const E*>(a.residual) + b * lines.plane() : nullptr;
        const T* scale = static_cast<const T*>(a.scale);
        const T* shift = static_cast<const T*>(a.shift);
        uint8_t* codes = a.codes ? a.codes + b * lines.pooled_plane() + line * lines.length() + e0 : nullptr;
        const Pool& p = a.pool;
        const Span rows = clip_window(lines.row(line), p.kh, p.sh, p.pad_h, lines.H);
        for (int64_t e = 0; e < n; ++e) {
            const int64_t c = lines.channel(line, e0 + e), pw = lines.column(line, e0 + e);
            const T k = scale ? scale[c] : T(1), d = shift ? shift[c] : T(0);
            const Span columns = clip_window(pw, p.kw, p.sw, p.pad_w, lines.W);
            T best = T(0);
            int code = 0;
            bool empty = true;
            for (int64_t kh = rows.begin; kh < rows.end; ++kh)
                for (int64_t kw = columns.begin; kw < columns.end; ++kw) {
                    const int64_t at = lines.at(c, lines.row(line) * p.sh - p.pad_h + kh, pw * p.sw - p.pad_w + kw);
                    const T z = widen<T>(x[at]) * k + d + (residual ? widen<T>(residual[at]) : T(0));
                    const T v = activate_one(z, a.activation, T(a.slope));
                    if (empty || v > best || v != v) {
                        best = v;
                        code = int(kh * p.kw + kw) | (z > T(0) ? 0 : kCodeNegative);
                    }
                    empty = false;
                }
            t[e] = best;
            if (codes) codes[e] = uint8_t(code);
        }
    }

    // Without pool, codes and residual the loop is one that the compiler vectorises.
    template <class E>
    void fill_plain(T* t, int64_t b, int64_t line, int64_t e0, int64_t n) const {
        const E* x = static_cast<const E*>(a.x) + b * lines.plane() + line * lines.length() + e0;
        const T* scale = static_cast<const T*>(a.scale);
        const T* shift = static_cast<const T*>(a.shift);
        const int64_t c = lines.channel(line, e0);
        const Vec<T> zero = {};
        for (int64_t e = 0; e < n; e += kLanes<T>) {
            Vec<T> v = load_as<T>(x + e, n - e);
            if (a.channels_last) {
                if (scale) v *= load_as<T>(scale + c + e, n - e);
                if (shift) v += load_as<T>(shift + c + e, n - e);
            } else {
                if (scale) v *= zero + scale[c];
                if (shift) v += zero + shift[c];
            }
            store_as<T>(t + e, activate(v, a.activation, T(a.slope)), n - e);
        }
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ActMix& self = *static_cast<const ActMix*>(ctx);
        const ActMixArgs& a = self.a;
        const Lines& lines = self.lines;
        const int64_t S = a.key.size, g = index / self.blocks;
        const Scratch s = self.carve(scratch);
        Coefficients<T> coeffs(a.key, g, false, s.c);
        const bool plain = a.pool.identity() && !a.codes && !a.residual;
        const int64_t first = index % self.blocks * self.block, last = min64(lines.count(), first + self.block);
        for (int64_t line = first; line < last; ++line) {
            for (int64_t e0 = 0; e0 < lines.length(); e0 += kTile) {
                const int64_t n = min64(kTile, lines.length() - e0);
                for (int64_t j = 0; j < S; ++j) {
                    T* t = s.t + j * kTile;
                    s.in[j] = t;
                    with_dtype_of<T>(a.x_dtype, [&](auto tag) {
                        using E = typename decltype(tag)::type;
                        if (plain) self.template fill_plain<E>(t, g * S + j, line, e0, n);
                        else self.template fill<E>(t, g * S + j, line, e0, n);
                    });
                }
                with_dtype_of<T>(a.y_dtype, [&](auto tag) {
                    auto* y = static_cast<typename decltype(tag)::type*>(a.y) + line * lines.length() + e0;
                    mix_tile<T>(s.in, coeffs.get(), S, 0, S, n, [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
                        store_as<T>(y + a.key.order[g * S + i] * lines.pooled_plane() + e, v, lanes);
                    });
                });
            }
        }
    }

    void run() const { parallel_for(a.key.groups * blocks, a.threads, carve(nullptr).bytes, item, this); }
};

// jvp and vjp. An item is a group and a run of channels: windows overlap, so that all that may write one element of
// z lies in one item, in a fixed order.
template <class E, bool Adjoint>
struct ActMixLinear {
    using T = Compute<E>;
    static constexpr int64_t kChannels = 32;  // NHWC: channels of one item
    const ActMixLinearArgs& a;
    Lines lines{a.channels_last, a.C, a.H, a.W, a.PH, a.PW, a.pool};
    int64_t blocks = a.channels_last ? ceil_div(a.C, kChannels) : a.C;

    struct Scratch {
        T *c, *t, *sum;
        const T** in;
        const E** rows;
        size_t bytes;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        const int64_t S = a.key.size;
        Scratch s;
        s.c = carver.take<T>(S * S);
        s.t = carver.take<T>(S * kTile);
        // Overlapping windows are summed in T, then rounded once.
        s.sum = carver.take<T>(Adjoint && !kSame<T, E> ? S * lines.H * lines.W * (a.channels_last ? kChannels : 1) : 0);
        s.in = carver.take<const T*>(S);
        s.rows = carver.take<const E*>(S);
        s.bytes = carver.used();
        return s;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ActMixLinear& self = *static_cast<const ActMixLinear*>(ctx);
        const ActMixLinearArgs& a = self.a;
        const Lines& lines = self.lines;
        const int64_t g = index / self.blocks, block = index % self.blocks;
        const Scratch s = self.carve(scratch);
        Coefficients<T> coeffs(a.key, g, Adjoint, s.c);
        if constexpr (Adjoint) self.clear(g, block, s.sum);
        const int64_t first = a.channels_last ? 0 : block * lines.PH;
        const int64_t last = a.channels_last ? lines.count() : first + lines.PH;
        const int64_t begin = a.channels_last ? block * kChannels : 0;
        const int64_t end = a.channels_last ? min64(a.C, begin + kChannels) : lines.length();
        for (int64_t line = first; line < last; ++line)
            for (int64_t e0 = begin; e0 < end; e0 += kTile)
                self.tile(s, coeffs.get(), g, block, line, e0, min64(kTile, end - e0));
        if constexpr (Adjoint) self.round(g, block, s.sum);
    }

    T factor(uint8_t code) const { return T(code & kCodeNegative ? a.neg : a.pos); }

    void tile(const Scratch& s, const T* c, int64_t g, int64_t block, int64_t line, int64_t e0, int64_t n) const {
        const int64_t S = a.key.size, offset = line * lines.length() + e0;
        if constexpr (Adjoint) {
            for (int64_t i = 0; i < S; ++i)
                s.rows[i] = static_cast<const E*>(a.y) + a.key.order[g * S + i] * lines.pooled_plane() + offset;
            mix_tile<T>(s.rows, c, S, 0, S, n, [&](int64_t j, int64_t e, Vec<T> v, int64_t lanes) {
                store_as<T>(s.t + j * kTile + e, v, lanes);
            });
            for (int64_t j = 0; j < S; ++j) scatter(s, g * S + j, j, block, line, e0, n);
        } else {
            for (int64_t j = 0; j < S; ++j) {
                s.in[j] = s.t + j * kTile;
                gather(s.t + j * kTile, g * S + j, line, e0, n);
            }
            E* y = static_cast<E*>(a.y) + offset;
            mix_tile<T>(s.in, c, S, 0, S, n, [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
                store_as<T>(y + a.key.order[g * S + i] * lines.pooled_plane() + e, v, lanes);
            });
        }
    }

    void gather(T* t, int64_t b, int64_t line, int64_t e0, int64_t n) const {
        const E* z = static_cast<const E*>(a.z) + b * lines.plane();
        const uint8_t* codes = a.codes + b * lines.pooled_plane() + line * lines.length() + e0;
        for (int64_t e = 0; e < n; ++e) {
            const int64_t pixel = winner(codes[e], a.pool, lines.row(line), lines.column(line, e0 + e), lines.W);
            t[e] = factor(codes[e]) * widen<T>(z[lines.at(lines.channel(line, e0 + e), 0, pixel)]);
        }
    }

    // Where pixel `p` of channel c of image b is summed: z itself where it is of type T, else the scratch copy.
    T* sum_at(T* sum, int64_t b, int64_t j, int64_t block, int64_t c, int64_t p) const {
        if constexpr (kSame<T, E>) return static_cast<T*>(a.z) + b * lines.plane() + lines.at(c, 0, p);
        const int64_t width = a.channels_last ? kChannels : 1, first = block * width;
        return sum + (j * lines.H * lines.W + p) * width + c - first;
    }

    void scatter(const Scratch& s, int64_t b, int64_t j, int64_t block, int64_t line, int64_t e0, int64_t n) const {
        const T* t = s.t + j * kTile;
        const uint8_t* codes = a.codes + b * lines.pooled_plane() + line * lines.length() + e0;
        for (int64_t e = 0; e < n; ++e) {
            const int64_t pixel = winner(codes[e], a.pool, lines.row(line), lines.column(line, e0 + e), lines.W);
            *sum_at(s.sum, b, j, block, lines.channel(line, e0 + e), pixel) += factor(codes[e]) * t[e];
        }
    }

    // f(b, j, c, p) over every element of z in the item.
    template <class F>
    void each(int64_t g, int64_t block, F&& f) const {
        const int64_t first = a.channels_last ? block * kChannels : block;
        const int64_t last = a.channels_last ? min64(a.C, first + kChannels) : block + 1;
        for (int64_t j = 0; j < a.key.size; ++j)
            for (int64_t p = 0; p < lines.H * lines.W; ++p)
                for (int64_t c = first; c < last; ++c) f(g * a.key.size + j, j, c, p);
    }
    void clear(int64_t g, int64_t block, T* sum) const {
        each(g, block, [&](int64_t b, int64_t j, int64_t c, int64_t p) { *sum_at(sum, b, j, block, c, p) = T(0); });
    }
    void round(int64_t g, int64_t block, T* sum) const {
        if constexpr (!kSame<T, E>)
            each(g, block, [&](int64_t b, int64_t j, int64_t c, int64_t p) {
                static_cast<E*>(a.z)[b * lines.plane() + lines.at(c, 0, p)] =
                    narrow<E>(*sum_at(sum, b, j, block, c, p));
            });
    }

    void run() const { parallel_for(a.key.groups * blocks, a.threads, carve(nullptr).bytes, item, this); }
};

}  // namespace

void act_mix(const ActMixArgs& a) {
    if (a.x_dtype == Dtype::f64) ActMix<double>{a}.run();
    else ActMix<float>{a}.run();
}

void act_mix_jvp(const ActMixLinearArgs& a) {
    with_dtype(a.dtype, [&](auto tag) { ActMixLinear<typename decltype(tag)::type, false>{a}.run(); });
}

void act_mix_vjp(const ActMixLinearArgs& a) {
    with_dtype(a.dtype, [&](auto tag) { ActMixLinear<typename decltype(tag)::type, true>{a}.run(); });
}

}  // namespace facemix::FACEMIX_ISA
