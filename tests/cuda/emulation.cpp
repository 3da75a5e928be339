// The stand-in's other half: blocks one after the other, each thread a fibre that runs until it waits for others.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)
#define ASAN_UNPOISON_MEMORY_REGION(p, n)
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;
alignas(128) unsigned char dynamic_shared[emulation::kMaxSharedBytes];

namespace {

using emulation::kWarp;

constexpr size_t kStack = 128 << 10;  // bytes; kernels keep little on it, sanitizers more
constexpr unsigned kMaxThreads = 1024, kMaxGridY = 65535;

struct Copy {
    void* to;
    const void* from;
    size_t bytes;
};

void make(const Copy& copy) {
    if (copy.from) std::memcpy(copy.to, copy.from, copy.bytes);
    else std::memset(copy.to, 0, copy.bytes);
}

enum class Wait { no, warp, block };
struct Fibre {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    unsigned number;
    dim3 index;
    Wait wait;
    bool done;
    emulation::Act act;  // what it waits for its warp to do, and with what
    void* operands;
    std::deque<std::vector<Copy>> copies;  // groups not waited for; the last one is open
    void* fake_stack = nullptr;
};

ucontext_t scheduler;
std::vector<Fibre> fibres;
Fibre* current = nullptr;
const std::function<void()>* body = nullptr;
std::mt19937 coin;                                // whether a copy is made as early as it can be, or as late
const char* mistake = nullptr;                    // of the kernel, found in a fibre: the scheduler throws it
size_t most_shared = emulation::kMaxSharedBytes;  // what this device has
// Of one block each: few enough that blocks take several turns.
constexpr int kMultiprocessors = 2;
int multiprocessors = kMultiprocessors;
std::map<const void*, size_t> shared_limit;
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
    fibre.number = number;
    fibre.wait = Wait::no, fibre.done = false;
    fibre.copies.assign(1, {});
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = kStack;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, main_of_fibre, 0);
}

// The lanes of a warp, in turns, as far as they get; how many of them have ended.
unsigned run_warp(std::vector<unsigned>& lanes, std::mt19937& random) {
    unsigned ended = 0;
    for (bool moved = true; moved;) {
        std::shuffle(lanes.begin(), lanes.end(), random);
        moved = false;
        for (unsigned t : lanes) {
            Fibre& fibre = fibres[t];
            if (fibre.done || fibre.wait != Wait::no) continue;
            moved = true;
            enter(fibre);
            if (mistake) throw std::runtime_error(std::string("emulation: ") + std::exchange(mistake, nullptr));
            ended += fibre.done;
        }
    }
    return ended;
}

// Between barriers one warp after the other: what another one has not done yet, or has done too early, shows.
void run_block(unsigned threads, std::mt19937& random) {
    std::vector<std::vector<unsigned>> warps((threads + kWarp - 1) / kWarp);
    for (unsigned t = 0; t < threads; ++t) prepare(fibres[t], t), warps[t / kWarp].push_back(t);
    for (unsigned left = threads; left;) {
        std::shuffle(warps.begin(), warps.end(), random);
        for (auto& lanes : warps) left -= run_warp(lanes, random);
        for (unsigned t = 0; t < threads && left; ++t) {
            if (fibres[t].wait != Wait::block) throw std::runtime_error("emulation: a barrier that some threads skip");
            fibres[t].wait = Wait::no;
        }
    }
}

}  // namespace

void __syncthreads() {
    current->wait = Wait::block;
    leave(false);
}

void emulation::meet(Act act, void* operands) {
    current->wait = Wait::warp, current->act = act, current->operands = operands;
    const unsigned first = current->number / kWarp * kWarp;
    if (first + kWarp > blockDim.x * blockDim.y * blockDim.z) mistake = "a warp's instruction in a warp with gaps";
    void* lanes[kWarp];
    bool complete = true;
    for (unsigned lane = 0; lane < kWarp && !mistake; ++lane) {
        const Fibre& other = fibres[first + lane];
        lanes[lane] = other.operands;
        if (other.wait != Wait::warp) complete = false;
        else if (other.act != act) mistake = "lanes of a warp meet at different instructions";
    }
    if (mistake || !complete) return leave(false);
    act(lanes);
    for (unsigned lane = 0; lane < kWarp; ++lane) fibres[first + lane].wait = Wait::no;
}

void emulation::copy_async(void* to, const void* from, size_t bytes) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % bytes) {
        mistake = "an asynchronous copy that is not aligned";
        leave(false);
    }
    const Copy copy{to, from, bytes};
    if (coin() & 1) make(copy);
    else current->copies.back().push_back(copy);
}

void emulation::commit_copies() { current->copies.emplace_back(); }

void emulation::wait_for_copies(size_t groups_left) {
    for (auto& groups = current->copies; groups.size() > groups_left + 1; groups.pop_front())
        for (const Copy& copy : groups.front()) make(copy);
}

emulation::AnotherDevice::AnotherDevice() {
    constexpr size_t kSizes[] = {99 << 10, 163 << 10, kMaxSharedBytes};
    most_shared = kSizes[coin() % 3];
    shared_limit.clear();
}
emulation::AnotherDevice::AnotherDevice(int count) { multiprocessors = count; }
emulation::AnotherDevice::~AnotherDevice() {
    most_shared = kMaxSharedBytes, multiprocessors = kMultiprocessors;
    shared_limit.clear();
}

const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorNoKernelImageForDevice: return "no kernel image";
        default: return "invalid device ordinal";
    }
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
    if (value < 0 || size_t(value) > most_shared) return cudaErrorInvalidValue;
    size_t& limit = shared_limit[kernel];
    if (size_t(value) < limit) throw std::runtime_error("emulation: a limit lowered that other threads may count on");
    limit = size_t(value);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrMultiProcessorCount ? multiprocessors : int(most_shared);
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
    *blocks = 1;
    return cudaSuccess;
}

cudaError_t emulation::run(const void* kernel, const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
    const dim3 grid = config.gridDim, block = config.blockDim;
    const unsigned threads = block.x * block.y * block.z;
    if (!threads || threads > kMaxThreads || !grid.x || !grid.y || !grid.z || grid.y > kMaxGridY ||
        grid.z > kMaxGridY ||
        config.dynamicSmemBytes > std::max(kSharedBytes, shared_limit.contains(kernel) ? shared_limit[kernel] : 0))
        return cudaErrorInvalidConfiguration;
    if (fibres.size() < threads) fibres = std::vector<Fibre>(threads);
    gridDim = grid, blockDim = block, body = &thread;
    std::mt19937 random(threads);
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = dim3(x, y, z);
                ASAN_UNPOISON_MEMORY_REGION(dynamic_shared, kMaxSharedBytes);  // a block before may have thrown
                std::memset(dynamic_shared, 0xff, config.dynamicSmemBytes);
                ASAN_POISON_MEMORY_REGION(dynamic_shared + config.dynamicSmemBytes,
                                          kMaxSharedBytes - config.dynamicSmemBytes);
                run_block(threads, random);
            }
    return cudaSuccess;
}
