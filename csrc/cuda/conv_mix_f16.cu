// conv_mix of float16: a file of its own, as these kernels take long to compile.
#include "conv_mix_run.h"

namespace facemix::cuda {

bool conv_mix_f16(const ConvMixArgs& a, int device, void* stream) {
    return run_tiles<TensorProduct<__half>>(a, device, static_cast<cudaStream_t>(stream));
}

}  // namespace facemix::cuda
