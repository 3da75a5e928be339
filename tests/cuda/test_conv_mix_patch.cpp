// What conv_mix's blocks read of their patches, in cases that random ones do not meet.
#include <algorithm>
#include <vector>

#include "../cpp/support.h"
#include "cuda/conv_mix_tile.h"
#include "cuda/launch.h"

namespace test {
namespace {

using namespace facemix::cuda;
using facemix::ConvMixArgs;

// What is infinite reaches the windows that hold it and no others: not where it is beside a window of an odd number of
// elements, between the rows of x, or in a row that is read with the last of it; and it is not multiplied by the zeros
// that fill K, or by those of a key for other images, or another pixel's. Tiles follow each other in a block, so that
// words that are copied take turns. Into y of another dtype it goes through shared memory.
void infinities(Dtype dtype, bool tf32, int kernel, int stride, bool channels_last, int W, int row_pixels, int S,
                Dtype y_dtype) {
    constexpr int C = 3, H = 18;
    const int padding = kernel / 2, OH = (H + 2 * padding - kernel) / stride + 1,
              OW = (W + 2 * padding - kernel) / stride + 1;
    Random random(2);
    RandomKey key(random, 2, S);
    for (int k = 0; k < 2 * S * S; ++k) key.coeffs[size_t(k)] = 1;
    Array x(dtype, 2 * S * C * H * row_pixels), weight(dtype, C * kernel * kernel), y(y_dtype, 2 * S * OH * OW);
    for (int64_t i = 0; i < weight.count(); ++i) weight.set(i, 1);
    ConvMixArgs a = {};
    a.x = x.data(), a.weight = weight.data(), a.y = y.data(), a.x_dtype = dtype, a.y_dtype = y_dtype;
    a.x_strides[0] = C * H * row_pixels, a.x_strides[1] = channels_last ? 1 : H * row_pixels;
    a.x_strides[2] = channels_last ? row_pixels * C : row_pixels, a.x_strides[3] = channels_last ? C : 1;
    a.C = C, a.OC = 1, a.H = H, a.W = W, a.KH = a.KW = kernel, a.OH = a.PH = OH, a.OW = a.PW = OW;
    for (int d = 0; d < 2; ++d) a.stride[d] = stride, a.padding[d] = padding, a.dilation[d] = 1;
    a.pool = {1, 1, 1, 1, 0, 0}, a.key = key.key(), a.tf32 = tf32, a.channels_last = channels_last;
    struct Spot {
        int image, row, column;
    };
    std::vector<Spot> spots;
    const auto set = [&](int image, int c, int row, int column, double value) {
        x.set(image * a.x_strides[0] + c * a.x_strides[1] + row * a.x_strides[2] + column * a.x_strides[3], value);
    };
    for (int64_t i = 0; i < x.count(); ++i) x.set(i, __builtin_huge_valf());  // what is between rows
    for (int k = 0; k < 2 * S * C * H * W; ++k) set(k / W / H / C, k / W / H % C, k / W % H, k % W, 0);
    for (int k = 0; k < 8; ++k) {
        const Spot at = {int(random.between(0, 2 * S - 1)), int(random.between(0, H - 1)),
                         int(random.between(0, W - 1))};
        set(at.image, int(random.between(0, C - 1)), at.row, at.column, __builtin_huge_valf());
        spots.push_back(at);
    }
    conv_mix(a, 0, nullptr);
    for (int i = 0; i < 2 * S * OH * OW; ++i) {
        const int h = i / OW % OH * stride - padding, v = i % OW * stride - padding;
        const auto sent = std::find(key.order.begin(), key.order.end(), i / OW / OH);
        const int group = int(sent - key.order.begin()) / S;
        const bool held = std::any_of(spots.begin(), spots.end(), [&](const Spot& at) {
            return at.image / S == group && at.row >= h && at.row < h + kernel && at.column >= v &&
                   at.column < v + kernel;
        });
        expect(y.get(i) == (held ? double(__builtin_huge_valf()) : 0), "conv_mix: an infinite value went astray");
    }
}

// Two patches in turn, chunk after chunk with weights that are brought in for each, or tile after tile: each output
// channel copies an input channel.
void turns(int C, int OC, int pixels, bool resident) {
    constexpr int S = 16;
    Random random(3);
    RandomKey key(random, 1, S);
    for (int k = 0; k < S * S; ++k) key.coeffs[size_t(k)] = k / S == k % S;
    Array x(Dtype::bf16, S * pixels * C), weight(Dtype::bf16, OC * C), y(Dtype::bf16, S * pixels * OC);
    for (int64_t i = 0; i < x.count(); ++i) x.set(i, double(i * 7 % 255));
    for (int64_t i = 0; i < weight.count(); ++i) weight.set(i, i % C == i / C % C);
    ConvMixArgs a = {};
    a.x = x.data(), a.weight = weight.data(), a.y = y.data(), a.x_dtype = a.y_dtype = Dtype::bf16;
    a.x_strides[0] = pixels * C, a.x_strides[1] = 1, a.x_strides[2] = pixels * C, a.x_strides[3] = C;
    a.C = C, a.OC = OC, a.W = a.OW = a.PW = pixels, a.H = a.KH = a.KW = a.OH = a.PH = 1;
    for (int d = 0; d < 2; ++d) a.stride[d] = a.dilation[d] = 1;
    a.pool = {1, 1, 1, 1, 0, 0}, a.key = key.key(), a.channels_last = true;
    const Tiling t = plan_tiles(a, {2, 4, S, Way::store}, 227 << 10);
    expect(t.patches == 2 && t.resident == resident && t.blocks > 1 && t.tiles_w > (t.chunks > 1 ? 1 : 2),
           "turns: this case has become another");
    conv_mix(a, 0, nullptr);
    for (int j = 0; j < S; ++j)
        for (int k = 0; k < pixels * OC; ++k)
            expect(y.get(key.order[size_t(j)] * pixels * OC + k) == x.get((j * pixels + k / OC) * C + k % OC % C),
                   "conv_mix: another chunk's channel");
}

// The plan of a call is not that of another one whose x begins where words cannot be copied.
void moved() {
    constexpr int S = 4, C = 16, pixels = 9;
    Random random(4);
    RandomKey key(random, 1, S);
    for (int k = 0; k < S * S; ++k) key.coeffs[size_t(k)] = k / S == k % S;
    Array x(Dtype::bf16, S * pixels * C + 1), weight(Dtype::bf16, C * C), y(Dtype::bf16, S * pixels * C);
    for (int64_t i = 0; i < x.count(); ++i) x.set(i, double(i * 7 % 255));
    for (int64_t i = 0; i < weight.count(); ++i) weight.set(i, i % C == i / C);
    ConvMixArgs a = {};
    a.weight = weight.data(), a.y = y.data(), a.x_dtype = a.y_dtype = Dtype::bf16;
    a.x_strides[0] = pixels * C, a.x_strides[1] = 1, a.x_strides[2] = pixels * C, a.x_strides[3] = C;
    a.C = a.OC = C, a.W = a.OW = a.PW = pixels, a.H = a.KH = a.KW = a.OH = a.PH = 1;
    for (int d = 0; d < 2; ++d) a.stride[d] = a.dilation[d] = 1;
    a.pool = {1, 1, 1, 1, 0, 0}, a.key = key.key(), a.channels_last = true;
    for (const int by : {0, 1}) {
        a.x = static_cast<const char*>(x.data()) + by * facemix::bytes_of(a.x_dtype);
        expect(plan_tiles(a, {2, 4, S, Way::store}, 227 << 10).copies == (by ? 0 : 2),
               "moved: this case has become another");
        conv_mix(a, 0, nullptr);
        for (int j = 0; j < S; ++j)
            for (int k = 0; k < pixels * C; ++k)
                expect(y.get(key.order[size_t(j)] * pixels * C + k) == x.get(j * pixels * C + k + by),
                       "conv_mix: another x");
    }
}

}  // namespace

void conv_mix_patches() {
    moved();
    for (const bool channels_last : {false, true})
        for (const int kernel : {3, 7})
            for (const int stride : {1, 2}) {
                infinities(Dtype::bf16, false, kernel, stride, channels_last, 30, 30, 3, Dtype::bf16);
                infinities(Dtype::f32, kernel == 7, kernel, stride, channels_last, 29, 30, 3, Dtype::f32);
            }
    infinities(Dtype::bf16, false, 7, 2, true, 29, 30, 3, Dtype::bf16);
    infinities(Dtype::bf16, false, 7, 2, true, 30, 31, 3, Dtype::bf16);
    for (const int S : {4, 5, 9})
        for (const Dtype y_dtype : {Dtype::f32, Dtype::bf16}) {
            infinities(Dtype::bf16, false, 3, 1, true, 29, 29, S, y_dtype);
            infinities(Dtype::f32, true, 3, 1, true, 29, 29, S, y_dtype);
        }
    turns(128, 336, 90, false);
    turns(16, 100, 200, true);
}

}  // namespace test
