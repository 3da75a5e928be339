// unmix_linear against plain loops in double: fewer outputs than inputs, and the reverse.
#include "support.h"

namespace test {

void unmix_linear_case(const CpuKernels& kernels, Random& random, int64_t index) {
    const bool large = index == 0;  // enough work for several threads
    int64_t G = random.among({0, 1, 1, 2, 3}), S = random_group_size(random);
    const auto features = [&] {
        return random.chance(2) ? random.among({0, 1, 2, 15, 16, 17, 63, 64, 65}) : random.between(1, 90);
    };
    int64_t M = random.among({0, 1, 1, 1, 2, 3}), K = features(), N = features();
    if (large) G = 8, S = 8, M = 2, K = 256, N = 80;
    if (index == 1 && on_cuda(kernels)) G = kManyGroups, S = 64, M = 1, K = 3, N = 2;
    const int64_t offset = random.among({0, 0, 1, 5});
    const RandomKey key(random, G, S);
    facemix::UnmixLinearArgs a{};
    a.dtype = Dtype(random.between(0, 3));
    a.M = M, a.K = K, a.N = N, a.key = key.key(), a.threads = int(random.among({1, 2, 3}));
    Array y(a.dtype, G * S * M * K, offset), weight(a.dtype, N * K, offset), bias(a.dtype, N, offset);
    Array out(a.dtype, G * S * M * N, offset);
    a.tf32 = on_cuda(kernels) && random.chance(2);
    // Small whole numbers are as exact in TF32.
    for (Array* array : {&y, &weight, &bias}) array->fill(random, a.tf32 && a.dtype == Dtype::f32);
    a.y = y.data(), a.weight = weight.data(), a.bias = random.chance(3) ? nullptr : bias.data(), a.out = out.data();
    describe(show("G,S", {G, S}) + show("M,K,N", {M, K, N}) + show("dtype", {int(a.dtype)}) +
             show("bias,offset,threads,tf32", {!!a.bias, offset, a.threads, a.tf32}));
    kernels.unmix_linear(a);

    std::vector<Sum> rows;
    for (double v : y.values()) rows.push_back(exact(v));
    rows = mix(rows, key, M * K, true);
    const std::vector<double> w = weight.values();
    out.check_guards("out");
    for (int64_t i = 0; i < out.count(); ++i) {
        Sum expected = a.bias ? exact(bias.get(i % N)) : Sum{};
        for (int64_t k = 0; k < K; ++k) expected.add(w[size_t(i % N * K + k)], rows[size_t(i / N * K + k)]);
        check_near("out", out, i, expected, K + S + 5);
    }
}

}  // namespace test
