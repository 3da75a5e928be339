// The stand-in's other half: blocks one after the other, each thread a fibre that runs until the next barrier.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)
#define ASAN_UNPOISON_MEMORY_REGION(p, n)
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;
alignas(128) unsigned char dynamic_shared[emulation::kSharedBytes];

namespace {

constexpr size_t kStack = 128 << 10;  // bytes; kernels keep little on it, sanitizers more
constexpr unsigned kMaxThreads = 1024, kMaxGridY = 65535;

struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    dim3 index;
    bool waiting = false, done = false;
    void* fake_stack = nullptr;
};

ucontext_t scheduler;
std::vector<Fibre> fibres;
Fibre* current = nullptr;
const std::function<void()>* body = nullptr;
// AddressSanitizer is told of every change of stack.
[[maybe_unused]] void* scheduler_fake_stack = nullptr;
[[maybe_unused]] const void* scheduler_stack = nullptr;
[[maybe_unused]] size_t scheduler_stack_size = 0;

void leave([[maybe_unused]] bool for_good) {
    [[maybe_unused]] Fibre* self = current;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &self->fake_stack, scheduler_stack, scheduler_stack_size);
#endif
    swapcontext(&current->context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(self->fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}

void enter(Fibre& fibre) {
    current = &fibre;
    threadIdx = fibre.index;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, fibre.stack.get(), kStack);
#endif
    swapcontext(&scheduler, &fibre.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void main_of_fibre() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
    (*body)();
    current->done = true;
    leave(true);
}

void prepare(Fibre& fibre, unsigned number) {
    fibre.index = dim3(number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y);
    fibre.waiting = fibre.done = false;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = kStack;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, main_of_fibre, 0);
}

void run_block(unsigned threads, std::mt19937& random) {
    std::vector<unsigned> turn(threads);
    for (unsigned t = 0; t < threads; ++t) prepare(fibres[t], turn[t] = t);
    for (unsigned left = threads; left;) {
        std::shuffle(turn.begin(), turn.end(), random);
        unsigned waiting = 0;
        for (unsigned t : turn) {
            Fibre& fibre = fibres[t];
            if (fibre.done) continue;
            fibre.waiting = false;
            enter(fibre);
            left -= fibre.done;
            waiting += fibre.waiting;
        }
        // All of a block's threads must meet at a barrier.
        if (waiting && waiting != threads) throw std::runtime_error("emulation: a barrier that some threads skip");
    }
}

}  // namespace

void __syncthreads() {
    current->waiting = true;
    leave(false);
}

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        default: return "invalid device ordinal";
    }
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t emulation::run(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
    const dim3 grid = config.gridDim, block = config.blockDim;
    const unsigned threads = block.x * block.y * block.z;
    if (!threads || threads > kMaxThreads || !grid.x || !grid.y || !grid.z || grid.y > kMaxGridY ||
        grid.z > kMaxGridY || config.dynamicSmemBytes > kSharedBytes)
        return cudaErrorInvalidConfiguration;
    if (fibres.size() < threads) fibres = std::vector<Fibre>(threads);
    gridDim = grid, blockDim = block, body = &thread;
    std::mt19937 random(threads);
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = dim3(x, y, z);
                std::memset(dynamic_shared, 0xff, config.dynamicSmemBytes);
                ASAN_POISON_MEMORY_REGION(dynamic_shared + config.dynamicSmemBytes,
                                          kSharedBytes - config.dynamicSmemBytes);
                run_block(threads, random);
                ASAN_UNPOISON_MEMORY_REGION(dynamic_shared, kSharedBytes);
            }
    return cudaSuccess;
}
