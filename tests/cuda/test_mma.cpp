// The host's warp instructions: fragments against a plain product of matrices, what copies and meetings promise, and
// that the mistakes they are there to find are found.
#include "../cpp/support.h"
#include "cuda/call.h"
#include "cuda/mma.h"

namespace test {
namespace {

using namespace facemix::cuda;

// What the kernel of a block does, run by all of its threads.
void run(void (*kernel)(float*), float* data, unsigned threads, size_t shared = 0) {
    launch("test", kernel, 1, threads, shared, nullptr, data);
}
void expect_mistake(void (*kernel)(float*), unsigned threads, const char* what) {
    try {
        run(kernel, nullptr, threads);
    } catch (const std::runtime_error& error) {
        return expect(std::string(error.what()).find(what) != std::string::npos, error.what());
    }
    throw Failure(std::string("nobody found: ") + what);
}

// A [16][K], B [K][8], D [16][8], one after the other; whole numbers, exact in every dtype.
template <class E>
constexpr int kDepth = std::is_same_v<E, Tf32> ? 8 : 16;

template <class E>
uint32_t word_of(const float* from, int step) {
    if constexpr (std::is_same_v<E, Tf32>) return to_tf32(*from);
    else return std::bit_cast<uint16_t>(E(from[0])) | uint32_t(std::bit_cast<uint16_t>(E(from[step]))) << 16;
}

template <class E>
void multiply(float* data) {
    constexpr int K = kDepth<E>, half = K / 2, wide = half / 4;
    const float *A = data, *B = data + 16 * K;
    float* D = data + 16 * K + K * 8;
    const int g = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
    const int at = wide * t;  // the first column of A, and row of B, of this lane
    const uint32_t a[] = {word_of<E>(A + g * K + at, 1), word_of<E>(A + (g + 8) * K + at, 1),
                          word_of<E>(A + g * K + at + half, 1), word_of<E>(A + (g + 8) * K + at + half, 1)};
    const uint32_t b[] = {word_of<E>(B + at * 8 + g, 8), word_of<E>(B + (at + half) * 8 + g, 8)};
    float d[4];
    for (int r = 0; r < 4; ++r) d[r] = D[(g + r / 2 * 8) * 8 + 2 * t + r % 2];
    mma<E>(d, a, b);
    for (int r = 0; r < 4; ++r) D[(g + r / 2 * 8) * 8 + 2 * t + r % 2] = d[r];
}

template <class E>
void products() {
    constexpr int K = kDepth<E>;
    Random random(uint64_t(K + int(sizeof(E))));
    std::vector<float> data(16 * K + K * 8 + 16 * 8);
    for (float& v : data) v = float(random.between(-9, 9));
    std::vector<float> expected(data);
    for (int i = 0; i < 16; ++i)
        for (int n = 0; n < 8; ++n)
            for (int k = 0; k < K; ++k)
                expected[size_t(16 * K + K * 8 + i * 8 + n)] +=
                    data[size_t(i * K + k)] * data[size_t(16 * K + k * 8 + n)];
    run(multiply<E>, data.data(), kWarp);
    expect(data == expected, "mma: not the product of the matrices");
}

// Two groups of copies: what has been waited for is there; what has not, of some threads and not of others.
void copies(float* data) {
    float* shared = reinterpret_cast<float*>(dynamic_shared) + 2 * threadIdx.x;
    cp_async<4>(shared, data, true);
    cp_async_commit();
    cp_async<4>(shared + 1, data, false);
    cp_async_commit();
    cp_async_wait<1>();
    if (shared[0] != data[0]) data[1] = 1;
    data[shared[1] == shared[1] ? 2 : 3] = 1;
    cp_async_wait<0>();
    if (shared[1] != 0) data[1] = 1;
}

void sums(float* data) {
    float sum = float(threadIdx.x);
    for (int distance = kWarp / 2; distance; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    data[threadIdx.x] = sum;
}

}  // namespace

void warp_instructions() {
    products<__nv_bfloat16>();
    products<__half>();
    products<Tf32>();
    expect(to_tf32(1.00048828125f) == std::bit_cast<uint32_t>(1.0009765625f), "to_tf32: not to the nearest");

    float copied[] = {7, 0, 0, 0};
    run(copies, copied, kWarp, kWarp * 8);
    expect(!copied[1] && copied[2] && copied[3], "cp_async: not as soon, or as late, as it may be");
    std::vector<float> sum(64);
    run(sums, sum.data(), 64);
    for (int t = 0; t < 64; ++t) expect(sum[size_t(t)] == (t < 32 ? 496.f : 1520.f), "__shfl_xor_sync: a wrong sum");
    run([](float*) {}, nullptr, 1, 200 << 10);  // launch() allows what a kernel asks for

    expect_mistake(
        [](float*) {
            if (threadIdx.x != 3) __syncwarp();
        },
        32, "barrier");
    expect_mistake(
        [](float*) {
            if (threadIdx.x == 3) __syncthreads();
            else __syncwarp();
        },
        32, "barrier");
    expect_mistake(
        [](float*) {
            if (threadIdx.x == 3) __shfl_xor_sync(~0u, 1, 1);
            else __syncwarp();
        },
        32, "meet");
    expect_mistake([](float*) { __syncwarp(); }, 33, "gaps");
    expect_mistake([](float*) { cp_async<8>(dynamic_shared + 4, nullptr, false); }, 1, "aligned");
}

}  // namespace test
