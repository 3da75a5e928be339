// What the tests of facemix.h share: a small model with its buffers and key.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "facemix.h"
#include "support.h"

namespace test {

inline void check(bool good, const std::string& what) {
    if (!good) throw Failure(what + " (last error: " + facemix_last_error() + ")");
}

inline void accepted(facemix_status status, const char* what) { check(status == FACEMIX_OK, what); }

inline void refused(facemix_status status, const std::string& message) {
    describe("expecting the error " + message);
    check(status == FACEMIX_INVALID, "status " + std::to_string(status) + " for an argument that breaks a rule");
    check(std::string(facemix_last_error()).find(message) == 0, "the message must start with " + message);
}

constexpr int64_t G = 2, S = 4, B = G * S, C = 3, H = 9, W = 10, OC = 6, PH = 3, PW = 3, K = OC * PH * PW, N = 5;

// A small model, its buffers and a key: conv 3x3/2, padding 1, ReLU, pool 3x3/2 padding 1, then a linear layer.
struct Edge {
    std::vector<double> coeffs = std::vector<double>(G * S * S);
    std::vector<int64_t> order = std::vector<int64_t>(B);
    std::vector<float> x, w, b, y, plain, fc, fc_b, out;
    facemix_key key{};
    facemix_conv_mix_args conv{};
    facemix_group_mix_args group{};
    facemix_unmix_linear_args linear{};

    explicit Edge(Random& random) {
        key = {coeffs.data(), order.data(), G, S};
        const auto fill = [&](std::vector<float>& v, int64_t n) {
            for (int64_t i = 0; i < n; ++i) v.push_back(float(random.real()));
        };
        fill(x, B * C * H * W), fill(w, OC * C * 9), fill(b, OC), fill(fc, N * K), fill(fc_b, N);
        y.resize(B * K), plain.resize(B * K), out.resize(B * N);
        conv.x = x.data(), conv.weight = w.data(), conv.bias = b.data(), conv.y = y.data();
        conv.channels = C, conv.height = H, conv.width = W, conv.out_channels = OC;
        for (int d = 0; d < 2; ++d) {
            conv.kernel[d] = 3, conv.stride[d] = 2, conv.padding[d] = 1;
            conv.pool_kernel[d] = 3, conv.pool_stride[d] = 2, conv.pool_padding[d] = 1;
        }
        conv.activation = FACEMIX_RELU, conv.key = key, conv.threads = 2;
        group.x = y.data(), group.y = plain.data(), group.n = K, group.key = key, group.threads = 2;
        linear.y = y.data(), linear.weight = fc.data(), linear.bias = fc_b.data(), linear.out = out.data();
        linear.positions = 1, linear.in_features = K, linear.out_features = N, linear.key = key, linear.threads = 2;
        accepted(facemix_key_sample(&key, 0.9), "key_sample");
    }

    // The pooled value without a mix, NCHW x.
    double reference(int64_t image, int64_t oc, int64_t ph, int64_t pw) const {
        double best = 0;
        for (int64_t k = 0; k < 9; ++k) {
            const int64_t oh = 2 * ph - 1 + k / 3, ow = 2 * pw - 1 + k % 3;
            if (oh < 0 || ow < 0 || oh >= (H + 1) / 2 || ow >= W / 2) continue;
            double z = b[size_t(oc)];
            for (int64_t i = 0; i < C * 9; ++i) {
                const int64_t h = 2 * oh - 1 + i / 3 % 3, v = 2 * ow - 1 + i % 3;
                if (h >= 0 && v >= 0 && h < H && v < W)
                    z += double(w[size_t(oc * C * 9 + i)]) * x[size_t(((image * C + i / 9) * H + h) * W + v)];
            }
            best = std::fmax(best, z);
        }
        return best;
    }
};

void c_api_errors(Random& random, const Edge& edge);  // every bad argument is refused

}  // namespace test
