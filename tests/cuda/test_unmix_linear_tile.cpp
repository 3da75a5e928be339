// Which tiles unmix_linear takes on which device, that both sizes say the same, and what they leave behind.
#include <algorithm>
#include <vector>

#include "../cpp/support.h"
#include "cuda/launch.h"
#include "cuda/unmix_linear_block.h"

namespace test {
namespace {

using namespace facemix::cuda;

constexpr int kH100 = 132, kPlenty = 1 << 20;  // multiprocessors

struct Shape {
    int64_t G, S, M, K, N;
};

struct Result {
    std::vector<double> out;
    dim3 grid;  // outputs across, rows down
};

// Of small whole numbers, with a key of such: any order of sums is exact.
Result run(const Shape& s, Dtype dtype, bool tf32, int multiprocessors) {
    Random random(5);
    RandomKey key(random, s.G, s.S);
    for (double& c : key.coeffs) c = double(random.between(-2, 2));
    Array y(dtype, s.G * s.S * s.M * s.K), weight(dtype, s.N * s.K), bias(dtype, s.N),
        out(dtype, s.G * s.S * s.M * s.N);
    for (Array* array : {&y, &weight, &bias})
        for (int64_t i = 0; i < array->count(); ++i) array->set(i, double(random.between(-1, 1)));
    facemix::UnmixLinearArgs a{};
    a.y = y.data(), a.weight = weight.data(), a.bias = bias.data(), a.out = out.data(), a.dtype = dtype, a.tf32 = tf32;
    a.M = s.M, a.K = s.K, a.N = s.N, a.key = key.key();
    const emulation::AnotherDevice here(multiprocessors);
    unmix_linear(a, 0, nullptr);
    out.check_guards("out");
    return {out.values(), gridDim};
}

void expect_tiles(const Shape& s, int multiprocessors, int64_t rows, int64_t outputs) {
    const dim3 grid = run(s, Dtype::f32, false, multiprocessors).grid;
    const int64_t groups = rows / s.S, down = (s.G * s.M + groups - 1) / groups;
    expect(grid.x == (s.N + outputs - 1) / outputs && grid.y == (down < 1024 ? down : 1024),
           "unmix_linear: other tiles than expected");
}

// Few rows leave a large device idle, unless tiles are small; many rows do not, and then small tiles would copy more.
void choice() {
    expect_tiles({32, 8, 1, 1, 80}, kH100, 16, 16);
    expect_tiles({32, 8, 1, 1, 80}, 2, 64, 64);
    expect_tiles({512, 8, 1, 1, 80}, kH100, 64, 64);
    expect_tiles({1, 16, 1, 1, 80}, kH100, 16, 16);
    expect_tiles({1, 17, 1, 1, 80}, kH100, 64, 64);
    expect_tiles({1, 5, 1, 1, 1}, 1, 16, 16);
}

// On a device that takes small tiles wherever it can, and on one that takes large ones.
void both_sizes(const Shape& s, Dtype dtype, bool tf32) {
    const Result small = run(s, dtype, tf32, kPlenty), large = run(s, dtype, tf32, 1);
    expect(small.grid.x > large.grid.x, "both_sizes: this case has become another");
    expect(small.out == large.out, "unmix_linear: tiles of another size say something else");
}

// Where the coefficients were, all of S x S for as many groups as a tile has.
template <class Tile>
void wiped(int multiprocessors) {
    run({16, 8, 1, 1, 1}, Dtype::f32, false, multiprocessors);
    const auto* coeffs = reinterpret_cast<const float*>(dynamic_shared + kCoeffsAt<MultiplyAdd<float, Tile>>);
    expect(std::all_of(coeffs, coeffs + Tile::kSide * 8, [](float c) { return c == 0; }),
           "unmix_linear: the key is still in shared memory");
}

}  // namespace

void unmix_linear_tiles() {
    choice();
    wiped<SmallTile>(kPlenty);
    wiped<LargeTile>(1);
    // K shorter than a step, or several turns of the stages long.
    for (const Shape& s : {Shape{3, 8, 1, 1, 70}, {5, 5, 3, 700, 34}, {2, 16, 2, 333, 50}, {70, 1, 1, 2000, 34}}) {
        both_sizes(s, Dtype::f32, false);
        both_sizes(s, Dtype::f32, true);
        for (const Dtype dtype : {Dtype::f64, Dtype::bf16, Dtype::f16}) both_sizes(s, dtype, false);
    }
    both_sizes({kManyGroups, 16, 1, 4, 17}, Dtype::f32, false);  // blocks take several small tiles
}

}  // namespace test
