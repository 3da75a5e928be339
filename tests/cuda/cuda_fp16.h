// A stand-in for CUDA's header: the compiler's own half.
#pragma once

#ifdef __aarch64__
using __half = __fp16;  // GCC 12 has no _Float16 there
#else
using __half = _Float16;
#endif

struct __half2 {
    __half x, y;
};
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
