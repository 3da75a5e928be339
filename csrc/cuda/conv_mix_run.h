// conv_mix's fast way as kernels, and their launch.
#pragma once

#include "conv_mix_block.h"

namespace facemix::cuda {

template <class Product, int kImages>
__global__ void __launch_bounds__(kTileThreads, 2) conv_mix_tile_kernel(const ConvMixArgs a, const Tiling t) {
    ConvMixBlock<Product, kImages>(a, t).run();
}

// False where no tile fits.
template <class Product, int kImages>
bool run_tiles_of(const ConvMixArgs& a, int device, cudaStream_t stream) {
    const char* op = "conv_mix";
    const Tiling t = plan_tiles(a, ConvMixStage<Product, kImages>::kKind,
                                device_attribute(op, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    if (t.tile_h == 0) return false;
    const auto kernel = conv_mix_tile_kernel<Product, kImages>;
    const int64_t tiles = a.key.groups * t.tiles_h * t.tiles_w;
    const int64_t at_once = blocks_at_once(op, kernel, kTileThreads, size_t(t.shared), device);
    launch(op, kernel, unsigned(tiles < at_once ? tiles : at_once), kTileThreads, size_t(t.shared), stream, a, t);
    return true;
}

template <class Product>
bool run_tiles(const ConvMixArgs& a, int device, cudaStream_t stream) {
    if (a.key.size <= 4) return run_tiles_of<Product, 4>(a, device, stream);
    if (a.key.size <= 8) return run_tiles_of<Product, 8>(a, device, stream);
    return run_tiles_of<Product, 16>(a, device, stream);
}

}  // namespace facemix::cuda
