// What the hardware can do at most, for benchmarks to divide by: fused multiply-adds that wait for nothing, and memory
// traffic with nothing to compute.
#include "parallel.h"
#include "vec.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int kChains = kRegisters - 4;  // independent sums: more than the latency of an addition times the ports
constexpr int64_t kBlock = 1 << 16;      // bytes of a work item of the memory loops

void chain(const void* ctx, int64_t item, char* scratch) {
    const int64_t steps = *static_cast<const int64_t*>(ctx);
    // The sums tend to 1000 b: a sum that tends to zero would end as a denormal, which some CPUs add a hundred times
    // slower.
    Vec<float> acc[kChains], a = Vec<float>{} + 0.999f, b = Vec<float>{} + float(item + 1);
    FACEMIX_UNROLL
    for (int c = 0; c < kChains; ++c) acc[c] = b + float(c);
    for (int64_t s = 0; s < steps; ++s) {
        FACEMIX_UNROLL
        for (int c = 0; c < kChains; ++c) acc[c] = acc[c] * a + b;
        // The factors are new to the compiler each time, so that it computes every step.
#if defined(__aarch64__)
        asm volatile("" : "+w"(a), "+w"(b));
#else
        asm volatile("" : "+v"(a), "+v"(b));
#endif
    }
    FACEMIX_UNROLL
    for (int c = 1; c < kChains; ++c) acc[0] += acc[c];
    store(reinterpret_cast<float*>(scratch), acc[0]);
}

struct Traffic {
    char* to;
    const char* from;  // null: only write
    int64_t bytes;
};

void move(const void* ctx, int64_t item, char*) {
    const Traffic& t = *static_cast<const Traffic*>(ctx);
    const int64_t end = min64(t.bytes, (item + 1) * kBlock);
    for (int64_t i = item * kBlock; i + kVectorBytes <= end; i += kVectorBytes)
        stream(t.to + i, t.from ? load(reinterpret_cast<const float*>(t.from + i)) : Vec<float>{});
    finish_streaming();
}

}  // namespace

double fma_work(int64_t steps, int threads) {
    parallel_for(threads, threads, sizeof(Vec<float>), chain, &steps);
    return 2.0 * double(steps) * kChains * kLanes<float> * threads;
}

void copy_work(void* to, const void* from, int64_t bytes, int threads) {
    const Traffic traffic{static_cast<char*>(to), static_cast<const char*>(from), bytes};
    parallel_for(ceil_div(bytes, kBlock), threads, 0, move, &traffic);
}

}  // namespace facemix::FACEMIX_ISA
