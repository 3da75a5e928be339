// What conv_mix's blocks read of their patches, in cases that random ones do not meet.
#include "../cpp/support.h"
#include "cuda/conv_mix_tile.h"
#include "cuda/launch.h"

namespace test {
namespace {

using namespace facemix::cuda;
using facemix::ConvMixArgs;

// What is infinite stays so: places of K that are only there to fill a step do not multiply it by zero.
void infinities() {
    for (const bool tf32 : {false, true}) {
        Random random(2);
        const RandomKey key(random, 1, 4);
        Array x(Dtype::f32, 4 * 25), weight(Dtype::f32, 9), y(Dtype::f32, 4 * 9);
        for (int64_t i = 0; i < x.count(); ++i) x.set(i, 1);
        for (int64_t i = 0; i < weight.count(); ++i) weight.set(i, 1);
        static_cast<float*>(x.data())[12] = __builtin_huge_valf();
        ConvMixArgs a = {};
        a.x = x.data(), a.weight = weight.data(), a.y = y.data();
        a.x_strides[0] = 25, a.x_strides[1] = 25, a.x_strides[2] = 5, a.x_strides[3] = 1;
        a.C = a.OC = 1, a.H = a.W = 5, a.KH = a.KW = a.OH = a.OW = a.PH = a.PW = 3;
        for (int d = 0; d < 2; ++d) a.stride[d] = a.dilation[d] = 1;
        a.pool = {1, 1, 1, 1, 0, 0}, a.key = key.key(), a.tf32 = tf32;
        conv_mix(a, 0, nullptr);
        for (int64_t i = 0; i < y.count(); ++i) {
            const double value = y.get(i);
            expect(value > 1e30 || value < -1e30, "conv_mix: an infinite value became another");
        }
    }
}

// Two patches in turn, with weights that are brought in for every chunk: each output channel copies an input channel.
void turns() {
    constexpr int C = 128, OC = 336, S = 16, kPixels = 90;
    Random random(3);
    RandomKey key(random, 1, S);
    for (int k = 0; k < S * S; ++k) key.coeffs[size_t(k)] = k / S == k % S;
    Array x(Dtype::bf16, S * kPixels * C), weight(Dtype::bf16, OC * C), y(Dtype::bf16, S * kPixels * OC);
    for (int64_t i = 0; i < x.count(); ++i) x.set(i, double(i * 7 % 255));
    for (int64_t i = 0; i < weight.count(); ++i) weight.set(i, i % C == i / C % C);
    ConvMixArgs a = {};
    a.x = x.data(), a.weight = weight.data(), a.y = y.data(), a.x_dtype = a.y_dtype = Dtype::bf16;
    a.x_strides[0] = kPixels * C, a.x_strides[1] = 1, a.x_strides[2] = kPixels * C, a.x_strides[3] = C;
    a.C = C, a.OC = OC, a.W = a.OW = a.PW = kPixels, a.H = a.KH = a.KW = a.OH = a.PH = 1;
    for (int d = 0; d < 2; ++d) a.stride[d] = a.dilation[d] = 1;
    a.pool = {1, 1, 1, 1, 0, 0}, a.key = key.key(), a.channels_last = true;
    const Tiling t = plan_tiles(a, {2, 4, S}, 227 << 10);
    expect(t.patches == 2 && !t.resident && t.tiles_w > 1, "turns: this case has become another");
    conv_mix(a, 0, nullptr);
    for (int j = 0; j < S; ++j)
        for (int k = 0; k < kPixels * OC; ++k)
            expect(y.get(key.order[size_t(j)] * kPixels * OC + k) == x.get((j * kPixels + k / OC) * C + k % OC % C),
                   "conv_mix: another chunk's channel");
}

}  // namespace

void conv_mix_patches() {
    infinities();
    turns();
}

}  // namespace test
