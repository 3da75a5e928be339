// conv_mix's fast way as kernels: a block's tiles, one after the other, and the launch.
#pragma once

#include <cstring>
#include <type_traits>

#include "conv_mix_float.h"
#include "conv_mix_store.h"
#include "conv_mix_windows.h"

namespace facemix::cuda {

// Product: see conv_mix_product.h. kImages: S, or the next larger; images past S count zero.
template <class Product, int kImages, bool kWindows>
using ConvMixSums =
    std::conditional_t<std::is_same_v<Product, FloatProduct>, ConvMixFloat<Product, kImages, kWindows>,
                       std::conditional_t<kWindows, ConvMixWindows<Product, kImages>, ConvMixStore<Product, kImages>>>;

template <class Product, int kImages, bool kWindows>
class ConvMixBlock : ConvMixSums<Product, kImages, kWindows> {
  public:
    using Base = ConvMixSums<Product, kImages, kWindows>;
    using typename Base::Sums;

    using Base::Base;

    __device__ __forceinline__ void run() {
        this->prepare();
        const int tiles = int(a.key.groups) * t.tiles_h * t.tiles_w;
        for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
            this->place = place_of_tile(t, tile);
            for (int block = 0; block < t.blocks; ++block) {
#pragma unroll 1
                for (int pass = 0; pass < t.passes; ++pass) take(tile, block, pass);
                if constexpr (kWindows && Base::kTensor) {
                    __syncthreads();
                    this->mix_windows(block);
                    this->renew();
                    __syncthreads();  // before there are other values
                }
            }
        }
        this->wipe();
    }

  private:
    using Base::a, Base::t;

    __device__ __forceinline__ void take(int tile, int block, int pass) {
        Sums sums;
        this->begin(sums, block);
        for (int chunk = 0; chunk < t.chunks; ++chunk) {
            if (pass == 0) this->stage(tile, block, chunk);  // of several chunks there is one pass
            if ((pass * kTileWarps + this->warp) * Base::kStrip < t.conv_h * t.conv_w)
                this->multiply(sums, this->weights_of(block, chunk), pass);
        }
        this->renew();
        if constexpr (!kWindows) this->store(sums, block, pass);
        else if constexpr (Base::kTensor) this->keep(sums, pass);
        else this->mix_windows(sums, block);
    }
};

template <class Product, int kImages, bool kWindows>
__global__ void __launch_bounds__(kTileThreads, 2) conv_mix_tile_kernel(const ConvMixArgs a, const Tiling t) {
    ConvMixBlock<Product, kImages, kWindows>(a, t).run();
}

// plan_tiles, which takes long, or what it said before of the same call on other memory; of each kernel on its own.
template <class Product, int kImages, bool kWindows>
const Tiling& planned(const ConvMixArgs& a, int limit) {
    struct Plan {
        ConvMixArgs of;
        int limit;
        Tiling tiling;
    };
    thread_local Plan last = {{}, -1, {}};
    ConvMixArgs of = a;
    of.x = reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(a.x) % kPlaceBytes);  // what may be copied
    of.y = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(a.y) % kPlaceBytes);        // and stored together
    of.codes = reinterpret_cast<uint8_t*>(reinterpret_cast<uintptr_t>(a.codes) % kPlaceBytes);
    of.weight = of.bias = nullptr;
    of.key.coeffs = nullptr, of.key.order = nullptr, of.slope_at = nullptr;
    if (last.limit != limit || std::memcmp(&last.of, &of, sizeof of) != 0)
        last = {of, limit, plan_tiles(a, ConvMixStage<Product, kImages, kWindows>::kKind, limit)};
    return last.tiling;
}

constexpr int64_t kMaxTiles = 1 << 30;  // their numbers are ints

// False where no tile fits.
template <class Product, int kImages, bool kWindows>
bool run_tiles_of(const ConvMixArgs& a, int device, cudaStream_t stream) {
    const char* op = "conv_mix";
    const Tiling& t =
        planned<Product, kImages, kWindows>(a, device_attribute(op, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    const int64_t tiles = a.key.groups * t.tiles_h * t.tiles_w;
    if (t.tile_h == 0 || tiles >= kMaxTiles) return false;
    const auto kernel = conv_mix_tile_kernel<Product, kImages, kWindows>;
    const int64_t at_once = blocks_at_once(op, kernel, kTileThreads, size_t(t.shared), device);
    launch(op, kernel, unsigned(tiles < at_once ? tiles : at_once), kTileThreads, size_t(t.shared), stream, a, t);
    return true;
}

template <class Product, int kImages>
bool run_tiles_of(const ConvMixArgs& a, int device, cudaStream_t stream) {
    const bool windows = !a.pool.identity() || a.codes || a.y_dtype != a.x_dtype;
    return windows ? run_tiles_of<Product, kImages, true>(a, device, stream)
                   : run_tiles_of<Product, kImages, false>(a, device, stream);
}

template <class Product>
bool run_tiles(const ConvMixArgs& a, int device, cudaStream_t stream) {
    if (a.key.size <= 4) return run_tiles_of<Product, 4>(a, device, stream);
    if (a.key.size <= 8) return run_tiles_of<Product, 8>(a, device, stream);
    return run_tiles_of<Product, 16>(a, device, stream);
}

}  // namespace facemix::cuda
