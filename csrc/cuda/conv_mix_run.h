// conv_mix's fast way as kernels: a block's tiles, one after the other, and the launch.
#pragma once

#include <cstring>
#include <type_traits>

#include "conv_mix_float.h"
#include "conv_mix_pool.h"
#include "conv_mix_store.h"
#include "conv_mix_windows.h"

namespace facemix::cuda {

// Product: see conv_mix_product.h. kImages: S, or the next larger; images past S count zero.
template <class Product, int kImages, Way kWay>
struct ConvMixSumsOf {
    using type = ConvMixPool<Product, kImages, kWay>;
};
template <class Product, int kImages>
struct ConvMixSumsOf<Product, kImages, Way::store> {
    using type = ConvMixStore<Product, kImages>;
};
template <class Product, int kImages>
struct ConvMixSumsOf<Product, kImages, Way::windows> {
    using type = ConvMixWindows<Product, kImages>;
};
template <class Product, int kImages, Way kWay>
using ConvMixSums = typename std::conditional_t<std::is_same_v<Product, FloatProduct>,
                                                std::type_identity<ConvMixFloat<Product, kImages, kWay>>,
                                                ConvMixSumsOf<Product, kImages, kWay>>::type;

template <class Product, int kImages, Way kWay>
class ConvMixBlock : ConvMixSums<Product, kImages, kWay> {
  public:
    using Base = ConvMixSums<Product, kImages, kWay>;
    using typename Base::Sums;

    using Base::Base;

    __device__ __forceinline__ void run() {
        this->prepare();
        if constexpr (!Base::kWalks) take_tiles();
        else if (a.codes) walk<true>();
        else walk<false>();
        this->wipe();
    }

  private:
    using Base::a, Base::t, Base::turns;

    template <bool kCodes>
    __device__ __forceinline__ void walk() {
        typename Base::template Row<kCodes> carried = {};
        for (int tile = turns.first; tile < turns.end; tile += turns.step) {
            this->place = place_of_tile(t, true, tile);
            this->stage(tile, 0, 0);
            this->template pool<kCodes>(carried, only_last_row(t, turns, tile));
        }
    }

    __device__ __forceinline__ void take_tiles() {
        for (int tile = turns.first; tile < turns.end; tile += turns.step) {
            this->place = place_of_tile(t, false, tile);
            for (int block = 0; block < t.blocks; ++block) {
#pragma unroll 1
                for (int pass = 0; pass < t.passes; ++pass) take(tile, block, pass);
                if constexpr (kWay == Way::windows && Base::kTensor) {
                    __syncthreads();
                    this->mix_windows(block);
                    this->renew();
                    __syncthreads();  // before there are other values
                }
            }
        }
    }
    __device__ __forceinline__ void take(int tile, int block, int pass) {
        Sums sums;
        this->begin(sums, block);
        for (int chunk = 0; chunk < t.chunks; ++chunk) {
            if (pass == 0) this->stage(tile, block, chunk);  // of several chunks there is one pass
            if ((pass * kTileWarps + this->warp) * Base::kStrip < t.conv_h * t.conv_w)
                this->multiply(sums, this->weights_of(block, chunk), pass);
        }
        this->renew();
        if constexpr (kWay == Way::store) this->store(sums, block, pass);
        else if constexpr (Base::kTensor) this->keep(sums, pass);
        else this->mix_windows(sums, block);
    }
};

template <class Product, int kImages, Way kWay>
__global__ void __launch_bounds__(kTileThreads, 2) conv_mix_tile_kernel(const ConvMixArgs a, const Tiling t) {
    ConvMixBlock<Product, kImages, kWay>(a, t).run();
}

// plan_tiles, which takes long, or what it said before of the same call on other memory; of each kernel on its own.
template <class Product, int kImages, Way kWay>
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
        last = {of, limit, plan_tiles(a, ConvMixStage<Product, kImages, kWay>::kKind, limit)};
    return last.tiling;
}

constexpr int64_t kMaxTiles = 1 << 30;  // their numbers are ints
// Tiles of a block that walks, at least: it convolves a row more than it stores. Codes make up for that.
constexpr int kLeastTurns = 2;

// False where no tile fits, or there are too few of them.
template <class Product, int kImages, Way kWay>
bool run_tiles_of(const ConvMixArgs& a, int device, cudaStream_t stream) {
    const char* op = "conv_mix";
    const Tiling& t =
        planned<Product, kImages, kWay>(a, device_attribute(op, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    const int64_t tiles = a.key.groups * tiles_of_group(t);
    if (t.tile_h == 0 || tiles >= kMaxTiles) return false;
    const auto kernel = conv_mix_tile_kernel<Product, kImages, kWay>;
    const int64_t at_once = blocks_at_once(op, kernel, kTileThreads, size_t(t.shared), device);
    if (TileKind::walks(kWay) && !a.codes && tiles < kLeastTurns * at_once) return false;
    launch(op, kernel, unsigned(tiles < at_once ? tiles : at_once), kTileThreads, size_t(t.shared), stream, a, t);
    return true;
}

template <class Product, int kImages>
bool run_tiles_of(const ConvMixArgs& a, int device, cudaStream_t stream) {
    const Way way = way_of(a, kImages);
    constexpr bool kTensor = !std::is_same_v<Product, FloatProduct>;
    if (way == Way::store && (kTensor || !a.codes))
        return run_tiles_of<Product, kImages, Way::store>(a, device, stream);
    if constexpr (kTensor) {
        if (way == Way::pool && run_tiles_of<Product, kImages, Way::pool>(a, device, stream)) return true;
        if constexpr (kImages <= 8)
            if (way == Way::narrow && run_tiles_of<Product, kImages, Way::narrow>(a, device, stream)) return true;
    }
    return run_tiles_of<Product, kImages, Way::windows>(a, device, stream);
}

template <class Product>
bool run_tiles(const ConvMixArgs& a, int device, cudaStream_t stream) {
    if (a.key.size <= 4) return run_tiles_of<Product, 4>(a, device, stream);
    if (a.key.size <= 8) return run_tiles_of<Product, 8>(a, device, stream);
    return run_tiles_of<Product, 16>(a, device, stream);
}

}  // namespace facemix::cuda
