// Keys. Haar-distributed orthogonal matrices: the Q of a Gaussian matrix, its columns' signs fixed by the diagonal of R
// (Mezzadri 2007, "How to generate random matrices from the classical compact groups"). In double throughout.
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../kernels.h"
#include "parallel.h"

namespace facemix {
namespace {

// Random words from the operating system, or, from a seed, SplitMix64 (Steele, Lea, Flood 2014): reproducible, and not
// for keys that protect anything.
class Entropy {
  public:
    explicit Entropy(const uint64_t* seed) : seeded_(seed != nullptr), state_(seed ? *seed : 0) {}
    ~Entropy() {
        wipe(pool_, sizeof pool_);
        wipe(&state_, sizeof state_);
        wipe(&spare_, sizeof spare_);
    }
    Entropy(const Entropy&) = delete;
    Entropy& operator=(const Entropy&) = delete;

    uint64_t word() {
        if (seeded_) {
            uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
            z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
            return z ^ (z >> 31);
        }
        if (used_ == kWords) {
            if (getentropy(pool_, sizeof pool_) != 0)
                throw std::runtime_error("the operating system's random number generator failed");
            used_ = 0;
        }
        const uint64_t w = pool_[used_];
        pool_[used_++] = 0;
        return w;
    }

    // In (0, 1], 53 bits.
    double uniform() { return double((word() >> 11) + 1) * 0x1p-53; }

    // Unbiased in [0, n).
    uint64_t below(uint64_t n) {
        const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
        uint64_t w;
        do w = word();
        while (w >= limit);
        return w % n;
    }

    // Standard normal, by Box and Muller.
    double normal() {
        if (have_spare_) {
            have_spare_ = false;
            return spare_;
        }
        const double r = std::sqrt(-2 * std::log(uniform())), t = kTwoPi * uniform();
        spare_ = r * std::sin(t);
        have_spare_ = true;
        return r * std::cos(t);
    }

    static constexpr double kTwoPi = 6.283185307179586;

  private:
    static constexpr int kWords = 32;  // getentropy gives at most 256 bytes a call
    bool seeded_, have_spare_ = false;
    uint64_t state_;
    uint64_t pool_[kWords] = {};
    int used_ = kWords;
    double spare_ = 0;
};

// Householder QR of r [n, n] in place; q becomes Q * diag(sign(R_kk)).
void haar(double* q, double* r, double* v, int64_t n, Entropy& entropy) {
    for (int64_t i = 0; i < n * n; ++i) r[i] = entropy.normal();
    for (int64_t i = 0; i < n * n; ++i) q[i] = i % (n + 1) == 0;
    for (int64_t k = 0; k < n; ++k) {
        double norm = 0;
        for (int64_t i = k; i < n; ++i) norm += r[i * n + k] * r[i * n + k];
        norm = std::sqrt(norm);
        const double alpha = r[k * n + k] > 0 ? -norm : norm;  // R_kk after the reflection
        double vv = 0;
        for (int64_t i = k; i < n; ++i) {
            v[i] = r[i * n + k] - (i == k ? alpha : 0);
            vv += v[i] * v[i];
        }
        if (vv > 0) {
            for (int64_t j = k; j < n; ++j) {  // R := H R
                double dot = 0;
                for (int64_t i = k; i < n; ++i) dot += v[i] * r[i * n + j];
                for (int64_t i = k; i < n; ++i) r[i * n + j] -= 2 * dot / vv * v[i];
            }
            for (int64_t i = 0; i < n; ++i) {  // Q := Q H
                double dot = 0;
                for (int64_t j = k; j < n; ++j) dot += q[i * n + j] * v[j];
                for (int64_t j = k; j < n; ++j) q[i * n + j] -= 2 * dot / vv * v[j];
            }
        }
        if (alpha < 0)
            for (int64_t i = 0; i < n; ++i) q[i * n + k] = -q[i * n + k];
    }
}

double largest(const double* q, int64_t count) {
    double m = 0;
    for (int64_t i = 0; i < count; ++i) m = std::fmax(m, std::fabs(q[i]));
    return m;
}

// Turns rows a and b by a uniformly random angle among those that leave no |entry| above `ceiling`. The angle 0 is one
// of them, so that giving up after some tries just stays.
void turn(double* a, double* b, int64_t n, double ceiling, Entropy& entropy) {
    constexpr int kTries = 16;
    for (int t = 0; t < kTries; ++t) {
        const double angle = Entropy::kTwoPi * entropy.uniform(), c = std::cos(angle), s = std::sin(angle);
        bool fits = true;
        for (int64_t k = 0; k < n && fits; ++k)
            fits = std::fabs(c * a[k] + s * b[k]) <= ceiling && std::fabs(c * b[k] - s * a[k]) <= ceiling;
        if (!fits) continue;
        for (int64_t k = 0; k < n; ++k) {
            const double x = c * a[k] + s * b[k];
            b[k] = c * b[k] - s * a[k];
            a[k] = x;
        }
        return;
    }
}

// A random walk by plane rotations under a falling ceiling, until no |entry| is above the bound; then kMixingSweeps
// more. Each step leaves the Haar measure restricted to the allowed set as it is (a Gibbs sampler over one circle of
// the group at a time), so that the restricted Haar measure is what the walk tends to; it is not an exact draw from it.
// Returns false where the walk is stuck: at the lowest bound walks need 5 n sweeps, hardly any more than 7 n.
bool bound_entries(double* q, int64_t n, double bound, Entropy& entropy) {
    constexpr int kMixingSweeps = 8, kMaxSweepsPerRow = 8;
    int mixed = 0;
    for (int64_t sweep = 0; sweep < kMaxSweepsPerRow * n + kMixingSweeps; ++sweep) {
        const double ceiling = std::fmax(bound, largest(q, n * n));
        if (ceiling <= bound && mixed++ == kMixingSweeps) return true;
        for (int64_t step = 0; step < n * (n - 1) / 2; ++step) {
            const int64_t i = int64_t(entropy.below(uint64_t(n)));
            const int64_t j = (i + 1 + int64_t(entropy.below(uint64_t(n - 1)))) % n;
            turn(q + i * n, q + j * n, n, ceiling, entropy);
        }
    }
    return false;
}

}  // namespace

void sample_orthogonal(double* coeffs, int64_t groups, int64_t size, double max_coeff, const uint64_t* seed) {
    // least_coeff of facemix_ops/rules.py
    const double least = std::ceil(1000 / std::cbrt(double(size)) - 1e-9) / 1000;
    if (!(max_coeff >= least && max_coeff <= 1))  // a NaN too
        throw std::invalid_argument("max_coeff must be at least " + std::to_string(least) + " for groups of " +
                                    std::to_string(size) + " and at most 1, got " + std::to_string(max_coeff));
    Entropy entropy(seed);
    std::vector<double> scratch(size_t(size * size + size));
    double* r = scratch.data();
    for (int64_t g = 0; g < groups; ++g) {
        double* q = coeffs + g * size * size;
        do haar(q, r, r + size * size, size, entropy);
        while (max_coeff < 1 && !bound_entries(q, size, max_coeff, entropy));
    }
    wipe(r, scratch.size() * sizeof(double));
}

void sample_permutation(int64_t* order, int64_t n, const uint64_t* seed) {
    Entropy entropy(seed);
    for (int64_t i = 0; i < n; ++i) order[i] = i;
    for (int64_t i = n - 1; i > 0; --i) {  // Fisher and Yates
        const int64_t j = int64_t(entropy.below(uint64_t(i + 1)));
        const int64_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

}  // namespace facemix
