// Keys for training: the generator against its published answers; matrices are orthogonal and have the moments of the
// Haar measure, orders are permutations and uniform. Seeded, so that a bound holds or never does.
#include <algorithm>
#include <cmath>
#include <set>

#include "../cpp/support.h"
#include "cuda/launch.h"
#include "cuda/philox.h"

namespace test {
namespace {

constexpr double kSigmas = 5;  // standard errors of a mean

// Those of kat_vectors in Random123, the authors' own library.
void known_answers() {
    const struct {
        uint32_t counter[4];
        uint64_t key;
        uint32_t answer[4];
    } vectors[] = {
        {{0, 0, 0, 0}, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, ~uint64_t(0), {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         0x299f31d0a4093822,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (const auto& v : vectors) {
        const facemix::cuda::Philox random(v.counter, v.key);
        expect(std::equal(random.word, random.word + 4, v.answer), "Philox4x32-10: not the published answer");
        expect(random.half(1) == (uint64_t(v.answer[3]) << 32 | v.answer[2]), "Philox4x32-10: not its second half");
    }
}

// [groups][n][n], in guarded memory.
std::vector<double> matrices(int64_t groups, int64_t n, int64_t seed) {
    Array a(Dtype::f64, groups * n * n);
    facemix::cuda::sample_orthogonal(static_cast<double*>(a.data()), groups, n, &seed, 0, nullptr);
    a.check_guards("coeffs");
    return a.values();
}

std::vector<int64_t> permutation(int64_t n, int64_t seed) {
    std::vector<int64_t> order(size_t(n), -1);
    facemix::cuda::sample_permutation(order.data(), n, &seed, 0, nullptr);
    return order;
}

// Whether the mean of independent samples is `expected`, to kSigmas standard errors.
class Mean {
  public:
    void add(double x) { ++count_, sum_ += x, squares_ += x * x; }
    void expect_near(double expected, const char* what) const {
        const double mean = sum_ / count_, error = std::sqrt((squares_ / count_ - mean * mean) / count_);
        expect(std::fabs(mean - expected) <= kSigmas * error, std::string("the mean is off: ") + what);
    }

  private:
    double count_ = 0, sum_ = 0, squares_ = 0;
};

// By elimination; a is orthogonal, so that partial pivots do.
double determinant(std::vector<double> a, int64_t n) {
    double det = 1;
    for (int64_t k = 0; k < n; ++k) {
        int64_t pivot = k;
        for (int64_t i = k + 1; i < n; ++i)
            if (std::fabs(a[size_t(i * n + k)]) > std::fabs(a[size_t(pivot * n + k)])) pivot = i;
        if (pivot != k) det = -det;
        for (int64_t j = 0; j < n; ++j) std::swap(a[size_t(k * n + j)], a[size_t(pivot * n + j)]);
        det *= a[size_t(k * n + k)];
        for (int64_t i = k + 1; i < n; ++i)
            for (int64_t j = n - 1; j >= k; --j)
                a[size_t(i * n + j)] -= a[size_t(i * n + k)] / a[size_t(k * n + k)] * a[size_t(k * n + j)];
    }
    return det;
}

void orthogonal(int64_t n) {
    constexpr int64_t kGroups = 3;
    const std::vector<double> a = matrices(kGroups, n, 7);
    for (int64_t g = 0; g < kGroups; ++g)
        for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < n; ++j) {
                double dot = i == j ? -1 : 0;
                for (int64_t k = 0; k < n; ++k) dot += a[size_t((g * n + k) * n + i)] * a[size_t((g * n + k) * n + j)];
                expect(std::fabs(dot) < 1e-12, "the matrix is not orthogonal");
            }
    expect(matrices(kGroups, n, 7) == a, "a seed gives two keys");
    expect(n == 1 || matrices(kGroups, n, 8) != a, "two seeds give one key");
    const std::vector<double> more = matrices(kGroups + 2, n, 7);
    expect(std::equal(a.begin(), a.end(), more.begin()), "a matrix depends on how many there are");
}

// As in tests/ops/test_sample_orthogonal.py, which names the sources.
void haar(int64_t n, int64_t groups) {
    const std::vector<double> all = matrices(groups, n, 100 + n);
    std::vector<Mean> first(size_t(n * n)), second(size_t(n * n)), fourth(size_t(n * n));
    Mean diagonals, cycles, traces, squared_traces, traces_of_squares, reflections;
    std::set<std::vector<double>> distinct;
    for (int64_t g = 0; g < groups; ++g) {
        const std::vector<double> a(all.begin() + g * n * n, all.begin() + (g + 1) * n * n);
        distinct.insert(a);
        double trace = 0, of_square = 0;
        for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < n; ++j) {
                const size_t at = size_t(i * n + j);
                first[at].add(a[at]);
                second[at].add(a[at] * a[at]);
                fourth[at].add(std::pow(a[at], 4));
                trace += i == j ? a[at] : 0;
                of_square += a[at] * a[size_t(j * n + i)];
            }
        const double p = a[0] * a[size_t(n + 1)];
        diagonals.add(p * p);
        cycles.add(p * a[1] * a[size_t(n)]);
        traces.add(trace);
        squared_traces.add(trace * trace);
        traces_of_squares.add(of_square);
        reflections.add(determinant(a, n) > 0 ? 1 : -1);
    }
    const double weingarten = double(n * (n + 2) * (n - 1));
    for (int64_t e = 0; e < n * n; ++e) {
        first[size_t(e)].expect_near(0, "entries");
        second[size_t(e)].expect_near(1. / double(n), "squares");
        fourth[size_t(e)].expect_near(3. / double(n * (n + 2)), "fourth powers");
    }
    diagonals.expect_near(double(n + 1) / weingarten, "a11^2 a22^2");
    cycles.expect_near(-1 / weingarten, "a11 a22 a12 a21");
    traces.expect_near(0, "traces");
    squared_traces.expect_near(1, "squared traces");
    traces_of_squares.expect_near(1, "traces of squares");
    reflections.expect_near(0, "determinants");
    expect(int64_t(distinct.size()) == groups, "two groups have one matrix");
}

void permutations() {
    for (int64_t n : {0, 1, 2, 255, 256, 257, 700}) {
        describe(show("permutation", {n}));
        std::vector<int64_t> order = permutation(n, 7);
        expect(permutation(n, 7) == order, "a seed gives two orders");
        expect(n < 255 || permutation(n, 8) != order, "two seeds give one order");
        std::sort(order.begin(), order.end());
        for (int64_t i = 0; i < n; ++i) expect(order[size_t(i)] == i, "it is no permutation");
    }
    constexpr int kDraws = 300, kRows = 6;
    describe(show("uniform permutation", {kRows}));
    Mean hits[kRows][kRows];
    for (int64_t seed = 0; seed < kDraws; ++seed) {
        const std::vector<int64_t> order = permutation(kRows, seed);
        for (int i = 0; i < kRows; ++i)
            for (int p = 0; p < kRows; ++p) hits[i][p].add(order[size_t(i)] == p);
    }
    for (const auto& row : hits)
        for (const Mean& mean : row) mean.expect_near(1. / kRows, "places of a row");
}

}  // namespace

void sampling_on_cuda() {
    known_answers();
    expect(matrices(0, 8, 1).empty(), "matrices of no groups");
    for (int64_t n : {1, 2, 3, 5, 8, 16, 17, 33, 63, 64}) {
        describe(show("size", {n}));
        orthogonal(n);
    }
    for (int64_t n : {2, 3, 8}) {
        describe(show("moments, size", {n}));
        haar(n, 3000);
    }
    permutations();
}

}  // namespace test
