// Launchers of the CUDA kernels: device pointers and a stream in; they return before the kernel has run.
// They throw std::runtime_error that names the op when CUDA refuses a launch.
#pragma once

#include "../kernels.h"

namespace facemix::cuda {

// The argument structs with device pointers; `threads` is not used. device: ordinal; stream: a cudaStream_t.
void conv_mix(const ConvMixArgs& a, int device, void* stream);
void act_mix(const ActMixArgs& a, int device, void* stream);
void act_mix_jvp(const ActMixLinearArgs& a, int device, void* stream);
void act_mix_vjp(const ActMixLinearArgs& a, int device, void* stream);
void group_mix(const GroupMixArgs& a, int device, void* stream);
void unmix_linear(const UnmixLinearArgs& a, int device, void* stream);

// coeffs [groups, size, size], size up to 64, without a bound, and order [n], as in kernels.h but from Philox4x32-10:
// for training. *seed lies on the device.
void sample_orthogonal(double* coeffs, int64_t groups, int64_t size, const int64_t* seed, int device, void* stream);
void sample_permutation(int64_t* order, int64_t n, const int64_t* seed, int device, void* stream);

}  // namespace facemix::cuda
