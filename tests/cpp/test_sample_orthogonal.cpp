// Keys: orthogonal, bounded, permutations, different each time, the same from the same seed.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "support.h"

namespace test {
namespace {

void check(bool good, const std::string& what) {
    if (!good) throw Failure(what);
}

std::vector<double> coeffs_of(int64_t groups, int64_t size, double max_coeff, const uint64_t* seed) {
    std::vector<double> a(size_t(groups * size * size), NAN);
    facemix::sample_orthogonal(a.data(), groups, size, max_coeff, seed);
    return a;
}

double orthogonality(const double* a, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < n; ++j) {
            double dot = i == j ? -1 : 0;
            for (int64_t k = 0; k < n; ++k) dot += a[k * n + i] * a[k * n + j];
            worst = std::fmax(worst, std::isnan(dot) ? 1 : std::fabs(dot));
        }
    return worst;
}

}  // namespace

void sampling() {
    const uint64_t seed = 7;
    for (int64_t size : {1, 2, 3, 8, 17, 64})
        for (double bound : {1.0, 0.8}) {
            if (size == 1 && bound < 1) continue;
            describe(show("size", {size}) + "max_coeff=" + std::to_string(bound));
            const std::vector<double> a = coeffs_of(3, size, bound, nullptr);
            for (int64_t g = 0; g < 3; ++g)
                check(orthogonality(a.data() + g * size * size, size) < 1e-12, "the matrix is not orthogonal");
            for (double c : a) check(std::fabs(c) <= bound + 1e-12, "a coefficient is above the bound");
            check(size == 1 || coeffs_of(3, size, bound, nullptr) != a, "two keys are the same");
            check(coeffs_of(3, size, bound, &seed) == coeffs_of(3, size, bound, &seed), "a seed gives two keys");
        }
    for (int64_t size : {2, 3, 6, 8}) {  // under the lowest bound, where of the walks for 3 four in ten get stuck
        const double bound = std::ceil(1000 / std::cbrt(double(size))) / 1000;
        describe(show("size", {size}) + "max_coeff=" + std::to_string(bound));
        for (double c : coeffs_of(50, size, bound, nullptr)) check(std::fabs(c) <= bound, "a coefficient is above it");
        try {
            coeffs_of(1, size, bound - 1e-3, nullptr);
        } catch (const std::invalid_argument&) {
            continue;
        }
        throw Failure("a lower bound is not refused");
    }
    for (int64_t n : {0, 1, 2, 100}) {
        describe(show("permutation", {n}));
        std::vector<int64_t> order(size_t(n), -1), again(size_t(n), -1);
        facemix::sample_permutation(order.data(), n, nullptr);
        facemix::sample_permutation(again.data(), n, nullptr);
        check(n < 100 || order != again, "two orders are the same");
        std::sort(order.begin(), order.end());
        for (int64_t i = 0; i < n; ++i) check(order[size_t(i)] == i, "it is no permutation");
    }
}

}  // namespace test
