// Threads: a small persistent pool, so that an edge device needs no runtime at all; and, beside PyTorch, the team of
// the OpenMP runtime that it brings along. Its threads spin for a while after their work: others would wait for a core,
// and these are there at once.
#include "parallel.h"

#include <dlfcn.h>
#include <pthread.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace facemix {
namespace {

constexpr size_t kAlign = 64;
// Scratch memory up to this size is kept between calls: fresh pages cost more than the kernels that use them.
constexpr size_t kKeepBytes = size_t{64} << 20;
constexpr int kMaxThreads = 256;  // a wish beyond any CPU's is not taken at its word

struct Free {
    void operator()(char* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<char, Free>;

Buffer allocate(size_t bytes) {
    char* p = static_cast<char*>(std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign));
    if (!p) throw std::bad_alloc();
    return Buffer(p);
}

// A block that grows and is kept.
class Kept {
  public:
    char* get(size_t bytes) {
        if (bytes_ < bytes) {
            p_.reset();
            bytes_ = 0;
            p_ = allocate(bytes);
            bytes_ = bytes;
        }
        return p_.get();
    }

  private:
    Buffer p_;
    size_t bytes_ = 0;
};

// GOMP_parallel: calls fn(data) on so many threads, or fewer, the caller's among them. LLVM's and Intel's runtimes have
// it as well.
using OpenMp = void (*)(void (*fn)(void*), void* data, unsigned threads, unsigned flags);

class Pool {
  public:
    void run(int64_t items, int threads, size_t stride, char* scratch, Body body, const void* ctx) {
        if (openmp) {
            body_ = body, ctx_ = ctx, items_ = items, stride_ = stride, scratch_ = scratch;
            next_.store(0, std::memory_order_relaxed);
            member_.store(0, std::memory_order_relaxed);
            return openmp(
                [](void* pool) {
                    Pool& p = *static_cast<Pool*>(pool);
                    p.work(p.scratch_ + p.stride_ * size_t(p.member_.fetch_add(1, std::memory_order_relaxed)));
                },
                this, unsigned(threads), 0);
        }
        threads = 1 + grow(threads - 1);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            body_ = body, ctx_ = ctx, items_ = items, stride_ = stride, scratch_ = scratch;
            next_.store(0, std::memory_order_relaxed);
            helpers_ = pending_ = threads - 1;
            ++generation_;
        }
        wake_.notify_all();
        work(scratch);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return pending_ == 0; });
    }

    std::mutex busy;  // held for a whole call: one parallel region at a time
    Kept kept;
    OpenMp openmp = nullptr;  // takes the work instead of the pool's own threads

  private:
    // Starts workers up to the number wanted; returns how many there are of these, fewer where the system gives no
    // more.
    int grow(int wanted) {
        try {
            while (started_ < wanted) {
                const int id = started_;
                std::thread([this, id] { loop(id); }).detach();
                ++started_;
            }
        } catch (const std::system_error&) {
        }
        return std::min(started_, wanted);
    }

    void loop(int id) {
        uint64_t seen = 0;
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return generation_ != seen; });
            seen = generation_;
            if (id >= helpers_) continue;
            char* scratch = scratch_ + stride_ * size_t(id + 1);
            lock.unlock();
            work(scratch);
            lock.lock();
            if (--pending_ == 0) done_.notify_one();
        }
    }

    void work(char* scratch) {
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < items_;) body_(ctx_, i, scratch);
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<int64_t> next_{0};
    std::atomic<int> member_{0};
    Body body_ = nullptr;
    const void* ctx_ = nullptr;
    int64_t items_ = 0;
    size_t stride_ = 0;
    char* scratch_ = nullptr;
    int started_ = 0, helpers_ = 0, pending_ = 0;
    uint64_t generation_ = 0;
};

Pool* pool = nullptr;

// The pool is never destroyed: its threads may outlive static destructors. A forked child has none of the threads, the
// OpenMP runtime's included, so it starts over with a pool of its own.
Pool& the_pool() {
    static std::once_flag once;
    std::call_once(once, [] {
        pool = new Pool;
        pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
    });
    return *pool;
}

}  // namespace

void parallel_for(int64_t items, int threads, size_t scratch_bytes, Body body, const void* ctx) {
    if (items <= 0) return;
    threads = int(std::clamp<int64_t>(threads, 1, std::min<int64_t>(items, kMaxThreads)));
    // A cache line between the threads' pieces; never zero, so that the pointers differ.
    const size_t stride = (scratch_bytes + 2 * kAlign - 1) / kAlign * kAlign;
    Pool& p = the_pool();
    std::unique_lock<std::mutex> lock(p.busy, std::try_to_lock);
    if (!lock) threads = 1;  // another caller has the threads: do the work here rather than wait
    const size_t bytes = stride * size_t(threads);
    Buffer own;
    char* scratch;
    if (lock && bytes <= kKeepBytes) {
        scratch = p.kept.get(bytes);
    } else {
        own = allocate(bytes);
        scratch = own.get();
    }
    if (threads == 1) {
        for (int64_t i = 0; i < items; ++i) body(ctx, i, scratch);
    } else {
        p.run(items, threads, stride, scratch, body, ctx);
    }
}

bool use_openmp() {
    Pool& p = the_pool();
    const std::lock_guard<std::mutex> lock(p.busy);
    p.openmp = reinterpret_cast<OpenMp>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return p.openmp != nullptr;
}

char* workspace(size_t bytes) {
    static thread_local Kept kept;
    return kept.get(bytes);
}

void prefer_large_pages(void* p, int64_t bytes) {
#if defined(__linux__)
    constexpr uintptr_t kPage = uintptr_t{2} << 20;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(p) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(p) + uintptr_t(bytes)) / kPage * kPage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: may fail
#else
    (void)p, (void)bytes;
#endif
}

void wipe(void* p, size_t bytes) {
    if (bytes) std::memset(p, 0, bytes);
    asm volatile("" : : "r"(p) : "memory");  // the zeros count as read
}

}  // namespace facemix
