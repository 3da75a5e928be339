// conv_mix_vjp against plain loops in double: layouts, strides, dtypes and pools, at sizes around vectors and blocks.
#include "support.h"

namespace test {
namespace {

constexpr int64_t kWork = 1 << 20;  // multiply-adds of one case, at most

struct Case {
    facemix::ConvMixVjpArgs a{};
    int64_t G, S;
    bool x_last, codes;
    int64_t offset;  // of the arrays, in elements from an aligned address
    int64_t B() const { return G * S; }
    int64_t K() const { return a.C * a.KH * a.KW; }
    int64_t work() const { return B() * a.OC * a.OH * a.OW * K(); }
    Layout in() const { return {x_last, a.C, a.H, a.W}; }
    Layout convolved() const { return {a.channels_last, a.OC, a.OH, a.OW}; }
    Layout out() const { return {a.channels_last, a.OC, a.PH, a.PW}; }
};

Case draw(Random& random, bool many_rows) {
    Case c;
    facemix::ConvMixVjpArgs& a = c.a;
    c.G = random.among({0, 1, 1, 1, 2, 3});
    c.S = random.among({1, 2, 3, 4, 7, 8, 8, 16, 17});
    a.C = random.among({1, 2, 3, 3, 3, 4, 5, 64});
    a.OC = random.chance(2) ? random.among({1, 16, 32, 64, 65}) : random.between(1, 70);
    a.KH = random.among({1, 2, 3, 3, 3, 5, 7});
    a.KW = random.chance(2) ? a.KH : random.between(1, 5);
    int64_t rows = random.between(1, 12);
    int64_t columns = random.chance(2) ? random.among({1, 5, 15, 16, 17, 48, 89}) : random.between(1, 40);
    // More blocks than items, a row each: an item keeps input rows from one block to the next, but not to another
    // group.
    if (many_rows) c.G = 3, c.S = 1, a.C = 64, a.OC = 1, a.KH = 3, a.KW = 1, rows = 40, columns = 530;
    for (int d = 0; d < 2; ++d) {
        a.stride[d] = many_rows ? 1 : random.among({1, 1, 1, 2, 2, 3, 5});
        a.dilation[d] = random.among({1, 1, 1, 1, 2, 3});
        a.padding[d] = random.chance(2) ? (span_of(a, d) - 1) / 2 : random.between(0, 4);
        size_for(random, a, d, d ? columns : rows);
    }
    a.channels_last = random.chance(2);
    c.x_last = random.chance(3) ? random.chance(2) : a.channels_last;
    a.x_dtype = Dtype(random.among({0, 0, 0, 1, 2, 3}));
    a.neg = random.among({0, 0, 25, -50}) / 100.0;
    a.pool = random_pool(random, a.OH, a.OW);
    a.PH = pooled(a.OH, a.pool.kh, a.pool.sh, a.pool.pad_h), a.PW = pooled(a.OW, a.pool.kw, a.pool.sw, a.pool.pad_w);
    a.threads = int(random.among({1, 1, 2, 3, 40}));
    c.codes = !a.pool.identity() || random.chance(2);
    c.offset = random.among({0, 0, 0, 1, 5});
    return c;
}

std::string summary(const Case& c) {
    const facemix::ConvMixVjpArgs& a = c.a;
    return show("G,S", {c.G, c.S}) + show("C,H,W", {a.C, a.H, a.W}) + show("OC,KH,KW", {a.OC, a.KH, a.KW}) +
           show("stride", {a.stride[0], a.stride[1]}) + show("padding", {a.padding[0], a.padding[1]}) +
           show("dilation", {a.dilation[0], a.dilation[1]}) + show("OH,OW", {a.OH, a.OW}) + show(a.pool) +
           show("PH,PW", {a.PH, a.PW}) + show("x,y channels_last", {c.x_last, a.channels_last}) +
           show("dtype", {int(a.x_dtype)}) + show("codes,offset,threads", {c.codes, c.offset, a.threads});
}

// The gradient before the activation, in the order c.convolved().
std::vector<Sum> preactivation(const Case& c, const Array& y, const RandomKey& key, const Winners& winners) {
    std::vector<Sum> rows(size_t(y.count()));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = exact(y.get(int64_t(i)));
    rows = mix(rows, key, c.a.OC * c.a.PH * c.a.PW, true);
    if (!c.codes) return rows;
    std::vector<Sum> u(size_t(c.B() * c.a.OC * c.a.OH * c.a.OW));
    for (size_t i = 0; i < rows.size(); ++i) u[size_t(winners.at[i])].add(winners.factor(i, 1, c.a.neg), rows[i]);
    return u;
}

}  // namespace

void conv_mix_vjp_case(const CpuKernels& kernels, Random& random, int64_t index) {
    const bool many_rows = index < 2;
    Case c = draw(random, many_rows);
    while (!many_rows && c.work() > kWork) c = draw(random, false);
    facemix::ConvMixVjpArgs& a = c.a;
    const RandomKey key(random, c.G, c.S);
    a.key = key.key();
    const Layout in = c.in();
    Array x(a.x_dtype, c.B() * a.C * a.H * a.W, c.offset), y(a.x_dtype, c.B() * a.OC * a.PH * a.PW, c.offset);
    Array weight(a.x_dtype, a.OC * c.K(), c.offset), bias(a.x_dtype, a.OC, c.offset);
    x.fill(random, false), y.fill(random, false);
    const Winners winners = random_winners(random, c.B(), c.convolved(), c.out(), a.pool);
    a.x = x.data(), a.y = y.data(), a.weight = weight.data(), a.bias = bias.data();
    a.codes = c.codes ? winners.codes.data() : nullptr;
    a.x_strides[0] = a.C * a.H * a.W, a.x_strides[1] = in.at(0, 1, 0, 0);
    a.x_strides[2] = in.at(0, 0, 1, 0), a.x_strides[3] = in.at(0, 0, 0, 1);
    describe(summary(c));
    kernels.conv_mix_vjp(a);

    const std::vector<Sum> u = preactivation(c, y, key, winners);
    const int64_t pixels = c.B() * a.OH * a.OW, taps = a.KH * a.KW, terms = pixels + c.S + a.pool.kh * a.pool.kw + 5;
    weight.check_guards("weight"), bias.check_guards("bias");
    for (int64_t oc = 0; oc < a.OC; ++oc) {
        std::vector<Sum> sums(size_t(c.K()));
        Sum of_bias;
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            const int64_t b = pixel / (a.OH * a.OW), oh = pixel / a.OW % a.OH, ow = pixel % a.OW;
            const Sum& here = u[size_t(c.convolved().at(b, oc, oh, ow))];
            of_bias.add(1, here);
            for (int64_t k = 0; k < c.K(); ++k) {
                const int64_t h = oh * a.stride[0] - a.padding[0] + k / a.KW % a.KH * a.dilation[0];
                const int64_t w = ow * a.stride[1] - a.padding[1] + k % a.KW * a.dilation[1];
                if (h < 0 || h >= a.H || w < 0 || w >= a.W) continue;
                sums[size_t(k)].add(x.get(in.at(b, k / taps, h, w)), here);
            }
        }
        for (int64_t k = 0; k < c.K(); ++k) check_near("weight", weight, oc * c.K() + k, sums[size_t(k)], terms);
        check_near("bias", bias, oc, of_bias, terms);
    }
}

}  // namespace test
