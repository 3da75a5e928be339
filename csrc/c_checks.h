// The checks behind facemix.h. Each throws std::invalid_argument "argument must RULE, got WHAT", made only where it
// fails.
#pragma once

#include <cmath>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "facemix.h"
#include "kernels.h"

namespace facemix {

constexpr int64_t kMaxSize = INT32_MAX;          // of every single size: products of two fit in 64 bits
constexpr int64_t kMaxBytes = int64_t{1} << 48;  // of every array: more than there is address space
constexpr int64_t kMinGroup = 2;

[[noreturn]] inline void refuse(const char* argument, const std::string& rule, const std::string& got) {
    throw std::invalid_argument(argument + (" must " + rule) + ", got " + got);
}

inline std::string text(int64_t value) { return std::to_string(value); }

template <class T>
T& check_given(const char* argument, T* p) {
    if (!p) refuse(argument, "not be null", "NULL");
    return *p;
}

inline int64_t check_between(const char* argument, int64_t value, int64_t low, int64_t high = kMaxSize) {
    if (value < low || value > high) refuse(argument, "be between " + text(low) + " and " + text(high), text(value));
    return value;
}

inline Dtype check_dtype(const char* argument, int value, int last = FACEMIX_F16) {
    return Dtype(check_between(argument, value, FACEMIX_F32, last));
}

// An array of the caller: there, aligned to its elements, of a size that can be. Sizes of 0 do not hide the others:
// kernels multiply them too.
struct Array {
    uintptr_t begin, end;

    Array(const char* argument, const void* p, std::initializer_list<int64_t> shape, int64_t element)
        : begin(reinterpret_cast<uintptr_t>(p)) {
        int64_t bytes = element;
        bool empty = false;
        for (int64_t n : shape) {
            if (n == 0) empty = true, n = 1;
            if (bytes > kMaxBytes / n) refuse(argument, "have at most " + text(kMaxBytes) + " bytes", "more");
            bytes *= n;
        }
        if (!empty && !p) refuse(argument, "not be null", "NULL");
        if (begin % uintptr_t(element))
            refuse(argument, "be aligned to its elements of " + text(element) + " bytes", "an address between");
        end = empty ? begin : begin + uintptr_t(bytes);
    }
};

inline void check_apart(const char* result, const Array& a, const char* input, const Array& b) {
    const uintptr_t begin = a.begin > b.begin ? a.begin : b.begin, end = a.end < b.end ? a.end : b.end;
    if (begin < end) refuse(result, std::string("not overlap ") + input, "shared memory");
}

template <class Word>
bool all_finite(const void* p, int64_t count, Word exponent) {
    const Word* words = static_cast<const Word*>(p);
    bool bad = false;
    for (int64_t i = 0; i < count; ++i) bad |= (words[i] & exponent) == exponent;
    return !bad;
}

// Weights are small and go into every result: a NaN among them is found here, and not in the cloud's reply.
inline void check_finite(const char* argument, const void* p, int64_t count, Dtype dtype) {
    bool good = true;
    switch (dtype) {
        case Dtype::f32: good = all_finite<uint32_t>(p, count, 0x7f800000u); break;
        case Dtype::f64: good = all_finite<uint64_t>(p, count, uint64_t{0x7ff} << 52); break;
        case Dtype::bf16: good = all_finite<uint16_t>(p, count, 0x7f80u); break;
        case Dtype::f16: good = all_finite<uint16_t>(p, count, 0x7c00u); break;
        case Dtype::i8: break;
    }
    if (!good) refuse(argument, "be finite", "a NaN or an infinity");
}

struct KeyMemory {
    Array coeffs, order;
};

inline KeyMemory check_key_memory(const facemix_key& key) {
    check_between("key.groups", key.groups, 0);
    check_between("key.size", key.size, kMinGroup, kMaxGroup);
    const KeyMemory memory = {Array("key.coeffs", key.coeffs, {key.groups, key.size, key.size}, sizeof(double)),
                              Array("key.order", key.order, {key.groups, key.size}, sizeof(int64_t))};
    check_apart("key.order", memory.order, "key.coeffs", memory.coeffs);
    return memory;
}

// A row's number that a result overwrites would lead out of bounds.
inline void check_apart(const char* result, const Array& a, const facemix_key& key) {
    const KeyMemory memory = check_key_memory(key);
    check_apart(result, a, "key.coeffs", memory.coeffs);
    check_apart(result, a, "key.order", memory.order);
}

// A row out of range would be written out of bounds; a repeated one would leave another as it was.
inline Key check_key(const facemix_key& key) {
    check_key_memory(key);
    const int64_t batch = key.groups * key.size;
    std::vector<bool> seen(static_cast<size_t>(batch));
    for (int64_t b = 0; b < batch; ++b) {
        const int64_t row = key.order[b];
        if (row < 0 || row >= batch || seen[size_t(row)])
            refuse("key.order", "be a permutation of 0.." + text(batch - 1),
                   "repeated or foreign entries, as in a wiped key");
        seen[size_t(row)] = true;
    }
    check_finite("key.coeffs", key.coeffs, batch * key.size, Dtype::f64);
    return {key.coeffs, key.order, key.groups, key.size};
}

}  // namespace facemix
