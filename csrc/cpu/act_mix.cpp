// act_mix: a = act(scale * x + shift + residual), p = maxpool(a), y = mix(p), written to the shuffled rows.
// Of each line (lines.h) tiles of the S images of a group are made in L1, then mixed.
#include "lines.h"
#include "mixing.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kPerItem = 8192;  // elements of one image in a work item, about: enough to hide its overhead

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

    // t[0..n): activated and pooled values of elements [e0, e0 + n) of a line of image b; codes where wanted.
    template <class E, bool WithCodes>
    void fill(T* t, int64_t b, int64_t line, int64_t e0, int64_t n) const {
        const Pool& p = a.pool;
        const E* x = static_cast<const E*>(a.x) + b * lines.plane();
        const E* residual = a.residual ? static_cast<const E*>(a.residual) + b * lines.plane() : nullptr;
        const T* scale = static_cast<const T*>(a.scale);
        const T* shift = static_cast<const T*>(a.shift);
        const Span rows = clip_window(lines.row(line), p.kh, p.sh, p.pad_h, lines.H);
        // Pooled columns whose windows lie inside the image can share a vector; those at the borders go one by one.
        const int64_t inside = ceil_div(p.pad_w, p.sw), outside = (lines.W + p.pad_w - p.kw) / p.sw + 1;
        for (int64_t e = 0, lanes; e < n; e += lanes) {
            int64_t column = lines.column(line, e0 + e);
            lanes = min64(n - e, kLanes<T>);
            if (!lines.channels_last) lanes = column < inside || column >= outside ? 1 : min64(lanes, outside - column);
            // The last vector of them is whole, and takes some again.
            const int64_t back = kLanes<T> - lanes;
            if (!lines.channels_last && lanes > 1 && e >= back && column - back >= inside)
                e -= back, column -= back, lanes = kLanes<T>;
            const Span columns = clip_window(column, p.kw, p.sw, p.pad_w, lines.W);
            const int64_t origin = lines.origin(line, e0 + e), c = lines.channel(line, e0 + e);
            WindowMax<T, WithCodes> window;
            bool first = true;
            for (int64_t kh = rows.begin; kh < rows.end; ++kh)
                for (int64_t kw = columns.begin; kw < columns.end; ++kw) {
                    const int64_t at = origin + kh * lines.row_step() + kw * lines.pixel_step();
                    Vec<T> z = load_strided<T>(x + at, lines.element_step(), lanes);
                    if (scale) z *= channel_values(scale + c, lanes);
                    if (shift) z += channel_values(shift + c, lanes);
                    if (residual) z += load_strided<T>(residual + at, lines.element_step(), lanes);
                    window.add(z, kh * p.kw + kw, a.activation, T(a.slope), first);
                    first = false;
                }
            store_as<T>(t + e, window.best, lanes);
            if constexpr (WithCodes)
                store_as<T>(a.codes + b * lines.pooled_plane() + line * lines.length() + e0 + e, window.code, lanes);
        }
    }
    Vec<T> channel_values(const T* p, int64_t lanes) const {
        return lines.channels_last ? load_as<T>(p, lanes) : Vec<T>{} + *p;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ActMix& self = *static_cast<const ActMix*>(ctx);
        const ActMixArgs& a = self.a;
        const Lines& lines = self.lines;
        const int64_t S = a.key.size, g = index / self.blocks;
        const Scratch s = self.carve(scratch);
        Coefficients<T> coeffs(a.key, g, false, s.c);
        const int64_t first = index % self.blocks * self.block, last = min64(lines.count(), first + self.block);
        for (int64_t line = first; line < last; ++line) {
            for (int64_t e0 = 0; e0 < lines.length(); e0 += kTile) {
                const int64_t n = min64(kTile, lines.length() - e0);
                with_dtype_of<T>(a.x_dtype, [&](auto tag) {
                    using E = typename decltype(tag)::type;
                    for (int64_t j = 0; j < S; ++j) {
                        T* t = s.t + j * kTile;
                        s.in[j] = t;
                        if (a.codes) self.template fill<E, true>(t, g * S + j, line, e0, n);
                        else self.template fill<E, false>(t, g * S + j, line, e0, n);
                    }
                });
                with_dtype_of<T>(a.y_dtype, [&](auto tag) {
                    auto* y = static_cast<typename decltype(tag)::type*>(a.y) + line * lines.length() + e0;
                    mix_tile<T>(s.in, coeffs.get(), S, 0, n, [&](int64_t i, int64_t e, Vec<T> v, int64_t lanes) {
                        store_as<T>(y + a.key.order[g * S + i] * lines.pooled_plane() + e, v, lanes);
                    });
                });
            }
        }
    }

    void run() const {
        prefer_large_pages(a.y, a.key.groups * a.key.size * lines.pooled_plane() * bytes_of(a.y_dtype));
        parallel_for(a.key.groups * blocks, a.threads, carve(nullptr).bytes, item, this);
    }
};

}  // namespace

void act_mix(const ActMixArgs& a) {
    if (a.x_dtype == Dtype::f64) ActMix<double>{a}.run();
    else ActMix<float>{a}.run();
}

}  // namespace facemix::FACEMIX_ISA
