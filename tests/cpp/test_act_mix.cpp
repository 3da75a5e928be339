// act_mix, and its linearisation at given codes with the adjoint of that, against plain loops in double.
#include <algorithm>
#include <cmath>

#include "support.h"

namespace test {
namespace {

struct Shape {
    int64_t G, S, C, H, W;
    Pool pool;
    int64_t PH, PW;
    bool channels_last;
    int64_t offset;
    int threads;
    int64_t B() const { return G * S; }
    Layout in() const { return {channels_last, C, H, W}; }
    Layout out() const { return {channels_last, C, PH, PW}; }
};

Shape draw(Random& random, bool many) {
    Shape s;
    s.G = random.among({0, 1, 1, 1, 2, 3});
    s.S = random_group_size(random);
    s.C = random.chance(2) ? random.among({1, 3, 16, 31, 32, 33, 64}) : random.between(1, 40);
    s.H = random.between(1, 9);
    s.W = random.chance(2) ? random.among({1, 7, 8, 9, 15, 16, 17, 33}) : random.between(1, 40);
    if (many) s.G = kManyGroups, s.S = 3, s.C = 1, s.W = 3;
    s.pool = random_pool(random, s.H, s.W);
    s.PH = pooled(s.H, s.pool.kh, s.pool.sh, s.pool.pad_h), s.PW = pooled(s.W, s.pool.kw, s.pool.sw, s.pool.pad_w);
    s.channels_last = random.chance(2);
    s.offset = random.among({0, 0, 1, 5});
    s.threads = int(random.among({1, 2, 3}));
    return s;
}

std::string summary(const Shape& s) {
    return show("G,S", {s.G, s.S}) + show("C,H,W", {s.C, s.H, s.W}) + show(s.pool) + show("PH,PW", {s.PH, s.PW}) +
           show("channels_last", {s.channels_last}) + show("offset,threads", {s.offset, s.threads});
}

template <class Args>
void set_shape(Args& a, const Shape& s, const RandomKey& key) {
    a.C = s.C, a.H = s.H, a.W = s.W, a.PH = s.PH, a.PW = s.PW;
    a.channels_last = s.channels_last, a.pool = s.pool, a.threads = s.threads, a.key = key.key();
}

}  // namespace

void act_mix_case(const CpuKernels& kernels, Random& random, int64_t index) {
    const Shape s = draw(random, index < 4 && on_cuda(kernels));
    const RandomKey key(random, s.G, s.S);
    facemix::ActMixArgs a{};
    set_shape(a, s, key);
    a.x_dtype = Dtype(random.between(0, 3));
    a.y_dtype = a.x_dtype == Dtype::f64 ? Dtype::f64 : Dtype(random.among({0, 2, 3}));
    a.activation = Activation(random.between(0, 2));
    a.slope = random.among({1, 25, -50, 150}) / 100.0;
    const bool whole = random.chance(2);
    const int64_t count = s.B() * s.C * s.H * s.W, results = s.B() * s.C * s.PH * s.PW;
    const Dtype compute = compute_dtype(a.x_dtype);
    Array x(a.x_dtype, count, s.offset), residual(a.x_dtype, count, s.offset), y(a.y_dtype, results, s.offset);
    Array scale(compute, s.C, s.offset), shift(compute, s.C, s.offset);
    for (Array* array : {&x, &residual, &scale, &shift}) array->fill(random, whole);
    std::vector<uint8_t> codes(whole && random.chance(2) ? size_t(results) : 0, 0xee);
    a.x = x.data(), a.y = y.data(), a.codes = codes.empty() ? nullptr : codes.data();
    a.scale = random.chance(2) ? scale.data() : nullptr, a.shift = random.chance(2) ? shift.data() : nullptr;
    a.residual = random.chance(2) ? residual.data() : nullptr;
    describe(summary(s) + show("x,y_dtype", {int(a.x_dtype), int(a.y_dtype)}) +
             show("scale,shift,residual,whole", {!!a.scale, !!a.shift, !!a.residual, whole}) +
             show("activation,codes", {int(a.activation), !codes.empty()}));
    const float slope = float(a.slope);
    const bool trained = on_cuda(kernels) && random.chance(2);
    if (trained) a.slope_at = &slope, a.slope = NAN;
    kernels.act_mix(a);

    std::vector<Sum> z(static_cast<size_t>(count));
    for (int64_t b = 0; b < s.B(); ++b)
        for (int64_t c = 0; c < s.C; ++c)
            for (int64_t i = 0; i < s.H * s.W; ++i) {
                const int64_t at = s.in().at(b, c, i / s.W, i % s.W);
                Sum& sum = z[size_t(at)];
                sum.add(a.scale ? scale.get(c) : 1, exact(x.get(at)));
                if (a.shift) sum.add(1, exact(shift.get(c)));
                if (a.residual) sum.add(1, exact(residual.get(at)));
            }
    std::vector<int> expected_codes;
    const std::vector<Sum> plain =
        activate_and_pool(z, s.B(), s.in(), s.out(), a.activation, trained ? double(slope) : a.slope, s.pool,
                          codes.empty() ? nullptr : &expected_codes);
    const std::vector<Sum> expected = mix(plain, key, s.C * s.PH * s.PW, false);
    y.check_guards("y");
    for (int64_t i = 0; i < results; ++i) check_near("y", y, i, expected[size_t(i)], s.S + 8);
    if (!std::equal(codes.begin(), codes.end(), expected_codes.begin())) throw Failure("codes differ");
}

void act_mix_linear_case(const CpuKernels& kernels, Random& random, int64_t index) {
    const Shape s = draw(random, index < 4 && on_cuda(kernels));
    const Pool& p = s.pool;
    const RandomKey key(random, s.G, s.S);
    facemix::ActMixLinearArgs a{};
    set_shape(a, s, key);
    a.dtype = Dtype(random.between(0, 3));
    a.pos = random.real(), a.neg = random.real();
    const bool adjoint = random.chance(2);
    const int64_t count = s.B() * s.C * s.H * s.W, row = s.C * s.PH * s.PW;
    Array z(a.dtype, count, s.offset), y(a.dtype, s.B() * row, s.offset);
    (adjoint ? y : z).fill(random, false);

    const Winners winners = random_winners(random, s.B(), s.in(), s.out(), p);
    a.z = z.data(), a.y = y.data(), a.codes = winners.codes.data();
    describe(summary(s) + show("dtype,adjoint", {int(a.dtype), adjoint}));
    const float neg = float(a.neg);
    const bool trained = on_cuda(kernels) && random.chance(2);
    if (trained) a.neg_at = &neg, a.neg = NAN;
    (adjoint ? kernels.act_mix_vjp : kernels.act_mix_jvp)(a);
    if (trained) a.neg = double(neg);

    const auto factor = [&](size_t i) { return winners.factor(i, a.pos, a.neg); };
    std::vector<Sum> rows(winners.codes.size());
    if (adjoint) {
        for (size_t i = 0; i < rows.size(); ++i) rows[i] = exact(y.get(int64_t(i)));
        rows = mix(rows, key, row, true);
        std::vector<Sum> expected(static_cast<size_t>(count));
        for (size_t i = 0; i < rows.size(); ++i) expected[size_t(winners.at[i])].add(factor(i), rows[i]);
        z.check_guards("z");
        for (int64_t i = 0; i < count; ++i) check_near("z", z, i, expected[size_t(i)], s.S + p.kh * p.kw + 5);
    } else {
        for (size_t i = 0; i < rows.size(); ++i) rows[i].add(factor(i), exact(z.get(winners.at[i])));
        rows = mix(rows, key, row, false);
        y.check_guards("y");
        for (size_t i = 0; i < rows.size(); ++i) check_near("y", y, int64_t(i), rows[i], s.S + 5);
    }
}

}  // namespace test
