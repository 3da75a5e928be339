// conv_mix against plain loops in double: layouts, strides, dtypes, pools and codes, at sizes around vectors and tiles.
#include <algorithm>
#include <cmath>

#include "support.h"

namespace test {
namespace {

constexpr int64_t kWork = 1 << 20;  // multiply-adds of one case, at most,
constexpr int64_t kWalk = 4;        // and so many times that of one that walks

struct Case {
    facemix::ConvMixArgs a{};
    int64_t G, S;
    int64_t x_layout;  // see strides_of
    bool bias, whole;
    int64_t offset;  // of the arrays, in elements from an aligned address
    int64_t work() const { return G * S * a.OC * a.OH * a.OW * a.C * a.KH * a.KW; }
};

Case draw(Random& random, int64_t index) {
    static const std::vector<int64_t> kWidths = {5, 12, 16, 24, 48, 89}, kChannels = {16, 32, 64, 65};
    const bool listed = index < 48;
    Case c;
    facemix::ConvMixArgs& a = c.a;
    c.G = listed ? 1 : random.among({0, 1, 1, 1, 2, 3});
    c.S = random.among(listed ? std::vector<int64_t>{2, 3, 8} : std::vector<int64_t>{1, 2, 3, 4, 7, 8, 8, 16, 17});
    a.C = random.among({1, 2, 3, 3, 3, 4, 5, 64});
    a.OC = listed             ? kChannels[size_t(index / 6 % 4)]
           : random.chance(2) ? random.among({1, 16, 32, 64, 65})
                              : random.between(1, 70);
    a.KH = random.among({1, 2, 3, 3, 3, 5, 7});
    a.KW = random.chance(2) ? a.KH : random.between(1, 5);
    for (int d = 0; d < 2; ++d) {
        a.stride[d] = random.among({1, 1, 1, 2, 2, 3, 5});
        a.dilation[d] = random.among({1, 1, 1, 1, 2, 3});
        a.padding[d] = random.chance(2) ? (span_of(a, d) - 1) / 2 : random.between(0, 4);
    }
    const int64_t OW = listed             ? kWidths[size_t(index % 6)]
                       : random.chance(2) ? random.among({1, 5, 11, 12, 13, 15, 16, 17, 24, 48, 89})
                                          : random.between(1, 40);
    size_for(random, a, 0, listed ? random.between(1, 4) : random.between(1, 12));
    size_for(random, a, 1, OW);
    a.channels_last = listed ? index / 24 : random.chance(2);
    c.x_layout = random.chance(3) ? random.between(0, 4) : a.channels_last;
    a.x_dtype = Dtype(random.among({0, 0, 0, 1, 2, 3}));
    a.y_dtype = a.x_dtype == Dtype::f64 ? Dtype::f64 : Dtype(random.among({0, 0, 2, 3, 4, 4}));
    a.activation = Activation(random.between(0, 2));
    a.slope = random.among({1, 25, -50, 150}) / 100.0;
    a.pool = random_pool(random, a.OH, a.OW);
    a.threads = int(random.among({1, 1, 2, 3, 40}));
    c.bias = !random.chance(3);
    c.whole = random.chance(3);
    c.offset = random.among({0, 0, 0, 1, 5});
    a.tf32 = random.chance(2);
    return c;
}

// Around the tiles of the CUDA kernels: 64 pixels, 16 output channels, 8 bytes of input channels, 4, 8 or 16 images.
Case at_tile_edges(Random& random, int64_t index) {
    static const Pool kPools[] = {{1, 1, 1, 1, 0, 0}, {1, 1, 1, 1, 0, 0}, {3, 3, 2, 2, 1, 1}, {2, 2, 2, 2, 0, 0}};
    Case c = draw(random, index);
    facemix::ConvMixArgs& a = c.a;
    c.G = random.among({1, 1, 2}), c.S = random.among({3, 4, 5, 8, 15, 16});
    a.C = random.among({1, 3, 4, 5, 16, 17, 64}), a.OC = random.among({1, 8, 15, 16, 17, 32, 33, 64, 72});
    a.KH = a.KW = random.among({1, 3, 3, 7});
    const bool chunks = index % 4 == 3;  // of channels, several, copied as they are
    if (chunks) {
        c.S = random.among({3, 4, 8, 16}), a.C = random.among({20, 32, 64}), a.KH = a.KW = random.among({1, 1, 3});
        a.OC = random.among({1, 17, 33, 72});
        c.x_layout = a.channels_last = true, c.offset = 0;
    }
    a.stride[0] = a.stride[1] = random.among({1, 1, 2}), a.dilation[0] = a.dilation[1] = 1;
    if (index % 8 == 6)
        a.C = 2, a.KH = 5, a.KW = 4, a.stride[0] = 2, a.stride[1] = 1;  // as many steps as 3x3 on colours
    a.padding[0] = random.among({0, a.KH / 2, 9}), a.padding[1] = random.among({0, a.KW / 2, 70});
    size_for(random, a, 0, random.among({1, 3, 4, 5, 9}));
    size_for(random, a, 1, random.among({1, 7, 15, 16, 17, 31, 33, 64, 65}));
    a.pool = kPools[random.between(0, 3)];
    if (a.OH < a.pool.kh || a.OW < a.pool.kw) a.pool = kPools[0];
    a.x_dtype = Dtype(chunks ? random.among({2, 3}) : random.among({0, 2, 2, 3}));
    a.y_dtype = Dtype(random.among({0, 2, 3, 4}));
    return c;
}

// Around the strips that the CUDA kernels walk down under a 3x3 pool of stride 2, in channels last: 7 columns of
// results or 6, of two warps, and twice as many of 4 images.
Case walk(Random& random, int64_t index) {
    Case c = draw(random, index);
    facemix::ConvMixArgs& a = c.a;
    c.G = random.among({1, 1, 2}), c.S = random.among({3, 4, 8, 8, 13, 16});
    a.C = random.among({1, 1, 3, 4, 16}), a.OC = random.among({33, 64, 64, 72, 130});
    a.KH = a.KW = random.among({1, 3, 3, 7});
    a.stride[0] = a.stride[1] = random.among({1, 2}), a.dilation[0] = a.dilation[1] = 1;
    a.padding[0] = random.among({0, a.KH / 2}), a.padding[1] = random.among({0, a.KW / 2});
    const int64_t pad = random.among({0, 1, 1});
    a.pool = {3, 3, 2, 2, pad, random.chance(4) ? 1 - pad : pad};
    const int64_t columns = c.S <= 4 ? 28 : c.S <= 8 ? 14 : 6;
    size_for(random, a, 0, random.among({3, 4, 7, 8, 9, 17, 26}));
    size_for(random, a, 1, 2 * columns - random.among({-1, 0, 1, 2, 3, 4, 5, 8, 9}));
    if (random.chance(2)) a.slope = -0.5;
    c.whole = random.chance(2), c.x_layout = random.chance(4) ? random.between(0, 4) : 1, a.channels_last = true;
    a.x_dtype = a.y_dtype = Dtype(random.among({0, 2, 2, 3}));
    return c;
}

// Results above 4 MiB are written past the caches of a CPU: every way there, for elements of 4, 2 and 1 bytes.
Case large(Random& random, int64_t index, bool cuda) {
    static const std::vector<int64_t> kDtypes[] = {{0}, {2, 3}, {4}};
    Case c = draw(random, index);
    facemix::ConvMixArgs& a = c.a;
    const bool pooled = index & 4;
    a.x_dtype = Dtype::f32, a.y_dtype = Dtype(random.among(kDtypes[index / 8]));
    const bool whole = a.y_dtype == Dtype::i8;
    c.G = 1, c.S = 8, a.C = 1, a.OC = 64, a.KH = a.KW = 1;
    a.pool = !pooled ? Pool{1, 1, 1, 1, 0, 0} : whole ? Pool{1, 2, 1, 2, 0, 0} : Pool{2, 2, 2, 2, 0, 0};
    a.H = a.OH = (cuda ? 24 : 180) / facemix::bytes_of(a.y_dtype) * a.pool.kh;
    a.W = a.OW = random.among({47, whole ? 64 : 48}) * a.pool.kw;
    for (int d = 0; d < 2; ++d) a.stride[d] = a.dilation[d] = 1, a.padding[d] = 0;
    a.channels_last = index & 1;
    c.offset = index & 2 ? 1 : 0;
    return c;
}

// x[b, c, h, w] at base + b*s[0] + c*s[1] + h*s[2] + w*s[3] of an array of `count` elements.
int64_t strides_of(const Case& c, int64_t (&s)[4], int64_t* base) {
    const int64_t B = c.G * c.S, C = c.a.C, H = c.a.H, W = c.a.W;
    const auto set = [&](int64_t b, int64_t ch, int64_t h, int64_t w) { s[0] = b, s[1] = ch, s[2] = h, s[3] = w; };
    *base = 0;
    switch (c.x_layout) {
        case 0: set(C * H * W, H * W, W, 1); return B * C * H * W;                        // NCHW
        case 1: set(C * H * W, 1, W * C, C); return B * C * H * W;                        // NHWC
        case 2: set(C * H * (W + 3), H * (W + 3), W + 3, 1); return B * C * H * (W + 3);  // rows with gaps
        case 3: set(C * H * W, H * W, 1, H); return B * C * H * W;                        // columns first
        default: set(C * H * W, H * W, -W, -1), *base = H * W - 1; return B * C * H * W;  // turned upside down
    }
}

std::string summary(const Case& c) {
    const facemix::ConvMixArgs& a = c.a;
    return show("G,S", {c.G, c.S}) + show("C,H,W", {a.C, a.H, a.W}) + show("OC,KH,KW", {a.OC, a.KH, a.KW}) +
           show("stride", {a.stride[0], a.stride[1]}) + show("padding", {a.padding[0], a.padding[1]}) +
           show("dilation", {a.dilation[0], a.dilation[1]}) + show("OH,OW", {a.OH, a.OW}) + show(a.pool) +
           show("PH,PW", {a.PH, a.PW}) + show("x_layout", {c.x_layout}) + show("channels_last", {a.channels_last}) +
           show("x,y_dtype", {int(a.x_dtype), int(a.y_dtype)}) + show("activation", {int(a.activation)}) +
           show("tf32", {a.tf32}) +
           show("bias,whole,codes,offset,threads", {c.bias, c.whole, a.codes != nullptr, c.offset, a.threads});
}

std::vector<Sum> convolve(const Case& c, const Array& x, int64_t base, const Array& weight, const Array& bias,
                          const Layout& layout) {
    const facemix::ConvMixArgs& a = c.a;
    const std::vector<double> in = x.values(), w = weight.values(), d = bias.values();
    const int64_t row = a.OC * a.OH * a.OW;
    std::vector<Sum> z(size_t(c.G * c.S * row));
    for (int64_t b = 0; b < c.G * c.S; ++b)
        for (int64_t i = 0; i < row; ++i) {
            const auto [oc, oh, ow] = layout.place(i);
            Sum sum = c.bias ? exact(d[size_t(oc)]) : Sum{};
            int64_t k = oc * a.C * a.KH * a.KW;
            for (int64_t ch = 0; ch < a.C; ++ch)
                for (int64_t kh = 0; kh < a.KH; ++kh)
                    for (int64_t kw = 0; kw < a.KW; ++kw, ++k) {
                        const int64_t h = oh * a.stride[0] - a.padding[0] + kh * a.dilation[0];
                        const int64_t v = ow * a.stride[1] - a.padding[1] + kw * a.dilation[1];
                        if (h < 0 || h >= a.H || v < 0 || v >= a.W) continue;
                        const int64_t at =
                            base + b * a.x_strides[0] + ch * a.x_strides[1] + h * a.x_strides[2] + v * a.x_strides[3];
                        sum.add(w[size_t(k)], exact(in[size_t(at)]));
                    }
            z[size_t(b * row + i)] = sum;
        }
    return z;
}

}  // namespace

void conv_mix_case(const CpuKernels& kernels, Random& random, int64_t index) {
    Case c = draw(random, index);
    const bool walks = index >= 128 && index % 4 == 0;
    if (index >= 72 && index < 128) c = at_tile_edges(random, index);
    if (walks) c = walk(random, index);
    if (index >= 48 && index < 72) c = large(random, index - 48, on_cuda(kernels));
    else
        while (c.work() > (walks ? kWalk : 1) * kWork)
            c = walks ? walk(random, index) : index < 128 ? at_tile_edges(random, index) : draw(random, index);
    facemix::ConvMixArgs& a = c.a;
    const Pool& p = a.pool;
    a.PH = pooled(a.OH, p.kh, p.sh, p.pad_h), a.PW = pooled(a.OW, p.kw, p.sw, p.pad_w);
    RandomKey key(random, c.G, c.S);
    a.key = key.key();
    // Halves of whole numbers, with many ties.
    const bool whole_y = a.y_dtype == Dtype::i8, halves = whole_y && c.whole;
    if (halves)
        for (double& coefficient : key.coeffs) coefficient = double(random.between(-1, 1)) / 2;

    int64_t base;
    const int64_t x_count = strides_of(c, a.x_strides, &base), B = c.G * c.S, results = B * a.OC * a.PH * a.PW;
    Array x(a.x_dtype, x_count, c.offset), weight(a.x_dtype, a.OC * a.C * a.KH * a.KW, c.offset);
    Array bias(a.x_dtype, a.OC, c.offset), y(a.y_dtype, results, c.offset);
    const int64_t element = facemix::bytes_of(a.x_dtype);
    // Coarse: as TF32 has them.
    const bool coarse = a.tf32 && a.x_dtype == Dtype::f32;
    const auto value = [&] {
        const double real = c.whole ? double(random.between(-3, 3)) : random.real();
        return coarse ? std::nearbyint(real * 256) / 256 : real;
    };
    for (int64_t b = 0; b < B; ++b)
        for (int64_t i = 0; i < a.C * a.H * a.W; ++i) {
            const int64_t at = base + b * a.x_strides[0] + i / (a.H * a.W) * a.x_strides[1] +
                               i / a.W % a.H * a.x_strides[2] + i % a.W * a.x_strides[3];
            x.set(at, value());
        }
    // Of int8 as many values as it has, and some beyond.
    const double scale = whole_y && !c.whole ? 60 / std::sqrt(double(a.C * a.KH * a.KW * c.S)) : 1;
    for (int64_t i = 0; i < weight.count(); ++i) weight.set(i, coarse ? value() : scale * value());
    bias.fill(random, c.whole);
    const Layout in{a.channels_last, a.OC, a.OH, a.OW}, out{a.channels_last, a.OC, a.PH, a.PW};
    const std::vector<Sum> z = convolve(c, x, base, weight, bias, in);
    // CUDA's tensor cores have the convolution's result in the format of their operands when they mix it.
    const double loss = on_cuda(kernels) ? coarse ? roundoff(Dtype::f16) : element < 4 ? roundoff(a.x_dtype) : 0 : 0;
    // And float16 has the least of them as denormal numbers.
    const double denormal = on_cuda(kernels) && a.x_dtype == Dtype::f16 ? std::ldexp(double(c.S), -25) : 0;
    const auto exact = [&](const Sum& sum) { return std::fabs(sum.value) * loss <= 1; };
    // Codes are compared where sums are exact, with many ties: elsewhere rounding may pick another winner.
    const bool wanted = c.whole && random.chance(2) && std::all_of(z.begin(), z.end(), exact);
    std::vector<uint8_t> codes(wanted ? size_t(results) : 0, 0xee);
    a.x = static_cast<char*>(x.data()) + base * element;
    a.weight = weight.data(), a.bias = c.bias ? bias.data() : nullptr, a.y = y.data();
    a.codes = codes.empty() ? nullptr : codes.data();
    describe(summary(c));
    kernels.conv_mix(a);

    std::vector<int> expected_codes;
    std::vector<Sum> plain =
        activate_and_pool(z, B, in, out, a.activation, a.slope, p, codes.empty() ? nullptr : &expected_codes);
    const std::vector<Sum> expected = mix(plain, key, a.OC * a.PH * a.PW, false);
    for (Sum& sum : plain) sum.magnitude = std::fabs(sum.value);
    const std::vector<Sum> rounded = mix(plain, key, a.OC * a.PH * a.PW, false);
    y.check_guards("y");
    const int64_t terms = a.C * a.KH * a.KW + c.S + 5;
    const bool exactly = halves && loss == 0 && a.activation != Activation::leaky;
    for (int64_t i = 0; i < results; ++i) {
        const double lost = loss * rounded[size_t(i)].magnitude + denormal;
        if (whole_y) check_whole("y", y, i, expected[size_t(i)], terms, exactly, lost);
        else check_near("y", y, i, expected[size_t(i)], terms, lost);
    }
    for (size_t i = 0; i < codes.size(); ++i)
        if (codes[i] != expected_codes[i])
            throw Failure("codes[" + std::to_string(i) + "] is " + std::to_string(codes[i]) + ", expected " +
                          std::to_string(expected_codes[i]));
}

}  // namespace test
