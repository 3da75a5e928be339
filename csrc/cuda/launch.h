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

}  // namespace facemix::cuda
