// conv_mix of float32, multiplied as TF32: a file of its own, as these kernels take long to compile.
#include "conv_mix_run.h"

namespace facemix::cuda {

bool conv_mix_tf32(const ConvMixArgs& a, int device, void* stream) {
    return run_tiles<TensorProduct<Tf32>>(a, device, static_cast<cudaStream_t>(stream));
}

}  // namespace facemix::cuda
