// group_mix in both directions against plain loops in double.
#include "support.h"

namespace test {

void group_mix_case(const CpuKernels& kernels, Random& random, int64_t index) {
    const bool large = index < 2;  // 4 MiB and more are written past the caches
    int64_t G = random.among({0, 1, 1, 2, 5}), S = random_group_size(random);
    int64_t n = random.chance(2) ? random.among({0, 1, 15, 16, 17, 1023, 1024, 1025, 2049}) : random.between(0, 300);
    if (large) G = 1, S = 8, n = 131072 + index;
    if (index == 2 && on_cuda(kernels)) G = kManyGroups, S = 3, n = 2;
    const int64_t offset = large ? index : random.among({0, 0, 1, 5});
    const RandomKey key(random, G, S);
    facemix::GroupMixArgs a{};
    a.dtype = large ? Dtype::f32 : Dtype(random.between(0, 3));
    a.n = n, a.transpose = random.chance(2), a.key = key.key(), a.threads = int(random.among({1, 2, 3}));
    Array x(a.dtype, G * S * n, offset), y(a.dtype, G * S * n, offset);
    x.fill(random, false);
    a.x = x.data(), a.y = y.data();
    describe(show("G,S", {G, S}) + show("n", {n}) + show("dtype", {int(a.dtype)}) +
             show("transpose,offset,threads", {a.transpose, offset, a.threads}));
    kernels.group_mix(a);

    std::vector<Sum> rows;
    for (double v : x.values()) rows.push_back(exact(v));
    const std::vector<Sum> expected = mix(rows, key, n, a.transpose);
    y.check_guards("y");
    for (int64_t i = 0; i < y.count(); ++i) check_near("y", y, i, expected[size_t(i)], S + 2);
}

}  // namespace test
