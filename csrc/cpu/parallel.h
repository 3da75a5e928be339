// Threads and scratch memory. Compiled once, for the baseline instruction set: the kernels call it through plain
// functions so that no std:: template is ever compiled for an instruction set that the machine may lack.
#pragma once

#include <cstddef>
#include <cstdint>

namespace facemix {

using Body = void (*)(const void* ctx, int64_t item, char* scratch);

// Runs body(ctx, item, scratch) for every item in [0, items) on up to `threads` threads, the caller's among them.
// Every thread has `scratch_bytes` of its own, 64-byte aligned; throws std::bad_alloc, before any work, when there is
// no memory for it. Items must be independent: which thread runs which is not fixed.
void parallel_for(int64_t items, int threads, size_t scratch_bytes, Body body, const void* ctx);

// From now on, and in this process but not its children, work goes to the threads of the OpenMP runtime that is loaded;
// false where there is none.
bool use_openmp();

// Memory of the calling thread, 64-byte aligned, valid until its next call; throws std::bad_alloc.
char* workspace(size_t bytes);

// Asks for large pages where [p, p + bytes) is large and not yet touched: a fresh result costs one page fault for 2 MiB
// instead of 512 of them. Does nothing where the system has no such thing.
void prefer_large_pages(void* p, int64_t bytes);

// Overwrites secrets in a way that the compiler may not remove.
void wipe(void* p, size_t bytes);

}  // namespace facemix
