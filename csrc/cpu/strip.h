// The input of a block of convolved rows, padded and in the type that the inner loop reads, so that strides, dtype and
// padding of the input cost nothing there.
#pragma once

#include "element.h"

namespace facemix::FACEMIX_ISA {
namespace {

template <class To, class From>
inline void copy_line(To* to, int64_t to_step, const From* from, int64_t from_step, int64_t n) {
    if (to_step == 1 && from_step == 1)
        for (int64_t i = 0; i < n; ++i) to[i] = widen<To>(from[i]);
    else if (to_step == 1 && from_step == 2)
        for (int64_t i = 0; i < n; ++i) to[i] = widen<To>(from[2 * i]);
    else
        for (int64_t i = 0; i < n; ++i) to[i * to_step] = widen<To>(from[i * from_step]);
}
template <class To>
inline void zero_line(To* to, int64_t step, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i * step] = To{};
}

// Offsets and steps count elements (P::Elem). Two orders:
//     interleaved   [row][column][channel]                                   an NHWC line is one copy
//     planar        [channel][row][column % phases][column / phases]         pixels under a stride lie side by side
template <class P>
struct Strip {
    using Elem = typename P::Elem;
    using Part = typename P::Part;
    const ConvInput& a;
    bool interleaved;
    int64_t channels, columns, phases, column_step, phase_step, row_step, channel_step, image_step;

    // `width` pixels of a convolved row are computed, in `rows` rows.
    Strip(const ConvInput& args, int64_t rows, int64_t width, bool pixel_lanes) : a(args) {
        channels = ceil_div(a.C, P::kPack);
        const int64_t reach = (a.KW - 1) * a.dilation[1], stride = a.stride[1];
        phases = pixel_lanes ? stride : 1;
        columns = pixel_lanes ? width + reach / stride : (width - 1) * stride + reach + 1;
        const int64_t lines = height(rows);
        interleaved = !pixel_lanes && a.x_strides[1] == 1;
        if (interleaved) {
            channel_step = 1, column_step = channels, phase_step = 0, row_step = columns * channels;
            image_step = lines * row_step;
        } else {
            column_step = 1, phase_step = columns, row_step = phases * columns, channel_step = lines * row_step;
            image_step = channels * channel_step;
        }
    }
    int64_t height(int64_t rows) const { return (rows - 1) * a.stride[0] + (a.KH - 1) * a.dilation[0] + 1; }
    // From one convolved pixel to the next, and from one convolved row to the next.
    int64_t pixel_step() const { return a.stride[1] / phases * column_step; }
    int64_t convolved_row_step() const { return a.stride[0] * row_step; }
    int64_t offset(int64_t channel, int64_t kh, int64_t kw) const {
        const int64_t column = kw * a.dilation[1];
        return channel * channel_step + kh * a.dilation[0] * row_step + column % phases * phase_step +
               column / phases * column_step;
    }

    // Image b's input rows for convolved rows [oh, oh + rows), of which `kept` are there already.
    void fill(Elem* image, int64_t b, int64_t oh, int64_t rows, int64_t kept) const {
        with_dtype_of<typename P::Sum>(a.x_dtype, [&](auto tag) {
            using E = typename decltype(tag)::type;
            if constexpr (P::kPack == 1 || kSame<E, Part>)
                fill_from(reinterpret_cast<Part*>(image), static_cast<const E*>(a.x) + b * a.x_strides[0], oh, rows,
                          kept);
        });
    }
    // Input rows that `rows` convolved rows share with those that follow, and those rows moved to where they are then.
    int64_t shared(int64_t rows) const { return max64(0, height(rows) - rows * a.stride[0]); }
    void advance(Elem* image, int64_t rows) const {
        const int64_t planes = interleaved ? 1 : channels, n = shared(rows) * row_step;
        for (int64_t c = 0; c < planes; ++c) {
            Elem* to = image + c * channel_step;
            memmove(to, to + rows * a.stride[0] * row_step, size_t(n) * sizeof(Elem));
        }
    }

  private:
    template <class E>
    void fill_from(Part* image, const E* x, int64_t oh, int64_t rows, int64_t kept) const {
        const bool whole_lines = interleaved && a.x_strides[3] == a.C && a.C == channels * P::kPack;
        for (int64_t r = kept; r < height(rows); ++r) {
            const int64_t h = oh * a.stride[0] - a.padding[0] + r;
            const bool inside = h >= 0 && h < a.H;
            Part* row = image + r * row_step * P::kPack;
            const E* from = x + h * a.x_strides[2];
            if (whole_lines) {
                line(row, 1, from, 1, a.padding[1] * a.C, inside ? a.W * a.C : 0, columns * a.C);
                continue;
            }
            for (int64_t c = 0; c < channels * P::kPack; ++c)
                for (int64_t p = 0; p < phases; ++p) {
                    // Column q of phase p is q * phases + p - padding of the image.
                    const int64_t before = ceil_div(max64(0, a.padding[1] - p), phases);
                    const int64_t end = ceil_div(max64(0, a.padding[1] + a.W - p), phases);
                    const E* start = from + c * a.x_strides[1] + (before * phases + p - a.padding[1]) * a.x_strides[3];
                    Part* to = row + (c / P::kPack * channel_step + p * phase_step) * P::kPack + c % P::kPack;
                    line(to, column_step * P::kPack, start, phases * a.x_strides[3], before,
                         inside && c < a.C ? end - before : 0, columns);
                }
        }
    }
    // `before` zeros, `n` elements (as many as there is room for), zeros up to `total`.
    template <class E>
    static void line(Part* to, int64_t step, const E* from, int64_t from_step, int64_t before, int64_t n,
                     int64_t total) {
        before = min64(before, total), n = max64(0, min64(n, total - before));
        zero_line(to, step, before);
        copy_line(to + before * step, step, from, from_step, n);
        zero_line(to + (before + n) * step, step, total - before - n);
    }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
