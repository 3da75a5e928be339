// Launchers of the CUDA kernels: device pointers and a stream in; they return before the kernel has run.
// They throw std::runtime_error that names the op when CUDA refuses a launch.
#pragma once

#include "../kernels.h"

namespace facemix::cuda {

// GroupMixArgs with device pointers; `threads` is not used. device: ordinal; stream: a cudaStream_t.
void group_mix(const GroupMixArgs& a, int device, void* stream);

}  // namespace facemix::cuda
