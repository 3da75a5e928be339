// How act_mix and its derivatives walk a dense [B, C, H, W] tensor and its pooled [B, C, PH, PW] counterpart.
#pragma once

#include "window.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kTile = 512;  // elements of one image in a tile: S such tiles stay in L1 or L2

// In NCHW a line is (channel, pooled row) and its elements are pooled columns; in NHWC a line is (pooled row, pooled
// column) and its elements are channels. Without a pool an NCHW plane is one long row, so that its tiles are long.
struct Lines {
    bool channels_last;
    int64_t C, H, W, PH, PW;
    Pool pool;

    Lines(bool last, int64_t c, int64_t h, int64_t w, int64_t ph, int64_t pw, const Pool& p)
        : channels_last(last), C(c), H(h), W(w), PH(ph), PW(pw), pool(p) {
        if (pool.identity() && !channels_last) W = H * W, H = 1, PW = PH * PW, PH = 1;
    }
    int64_t count() const { return channels_last ? PH * PW : C * PH; }
    int64_t length() const { return channels_last ? C : PW; }
    int64_t plane() const { return C * H * W; }
    int64_t pooled_plane() const { return C * PH * PW; }

    // Channel, pooled row and pooled column of element e of a line.
    int64_t channel(int64_t line, int64_t e) const { return channels_last ? e : line / PH; }
    int64_t row(int64_t line) const { return channels_last ? line / PW : line % PH; }
    int64_t column(int64_t line, int64_t e) const { return channels_last ? line % PW : e; }

    // Offset, in its image, of the first pixel of the window of element e of a line (it may lie in the padding), and
    // the distances to the next element of the line, the next pixel of a row, and the next row.
    int64_t origin(int64_t line, int64_t e) const {
        const int64_t pixel = (row(line) * pool.sh - pool.pad_h) * W + column(line, e) * pool.sw - pool.pad_w;
        return channels_last ? pixel * C + e : channel(line, e) * H * W + pixel;
    }
    int64_t element_step() const { return channels_last ? 1 : pool.sw; }
    int64_t pixel_step() const { return channels_last ? C : 1; }
    int64_t row_step() const { return W * pixel_step(); }
};

// Where in z a winner lies, from the origin of its window on.
struct Winners {
    int64_t offset[kCodeWindow + 1];
    explicit Winners(const Lines& lines) {
        for (int64_t k = 0; k <= kCodeWindow; ++k)
            offset[k] = k / lines.pool.kw * lines.row_step() + k % lines.pool.kw * lines.pixel_step();
    }
    int64_t operator[](uint8_t code) const { return offset[code & kCodeWindow]; }
};

}  // namespace
}  // namespace facemix::FACEMIX_ISA
