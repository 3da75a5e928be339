// unmix_linear on CUDA: out[g*S+j] = (sum_i A[g,i,j] y[order[g*S+i]]) W^T + bias, in one kernel.
//
// For a tile a block multiplies the rows of whole groups, gathered from where they were sent, with as many rows of W,
// and un-mixes the products (both steps are linear) before it writes them. bfloat16 and half go through the tensor
// cores, float32 too where TF32 is allowed, else float32 and float64 by plain multiply-adds. It compiles; it has not
// run on a GPU yet.
#include "launch.h"
#include "unmix_linear_block.h"

namespace facemix::cuda {
namespace {

// Of a grid, down: a block takes one tile after the other, and a device runs fewer at once.
constexpr int64_t kMaxBlocks = 1024;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tiles of a size: groups of each, and how many there are, down and across.
template <class Tile>
struct Tiles {
    int64_t groups, down, across;

    explicit Tiles(const UnmixLinearArgs& a)
        : groups(Tile::kSide / a.key.size),
          down(groups ? ceil_div(a.key.groups * a.M, groups) : 0),
          across(ceil_div(a.N, Tile::kSide)) {}
    // Rows that the busiest multiprocessor copies.
    int64_t copies(int multiprocessors) const { return ceil_div(down * across, multiprocessors) * 2 * Tile::kSide; }
};

template <class E, class Operand, class Tile>
void run_tiles(const UnmixLinearArgs& a, const Tiles<Tile>& tiles, cudaStream_t stream) {
    using Product = UnmixProduct<Operand, Tile>;
    using T = typename Product::T;
    const int V = kAccess / int(sizeof(E)), S = int(a.key.size);
    const bool aligned = packs(a.y, sizeof(E), a.K, V) && packs(a.weight, sizeof(E), a.K, V);
    const size_t shared = kCoeffsAt<Product> + size_t(tiles.groups * S * mix_width<Tile>(S)) * sizeof(T);
    const dim3 grid(unsigned(tiles.across), unsigned(tiles.down < kMaxBlocks ? tiles.down : kMaxBlocks));
    launch("unmix_linear", unmix_linear_kernel<E, Product>, grid, kUnmixThreads, shared, stream, a, int(tiles.groups),
           aligned);
}

// Small tiles copy more, but few large ones leave most of the device idle.
template <class E, class Operand = E>
void run(const UnmixLinearArgs& a, int device, cudaStream_t stream) {
    const int multiprocessors = device_attribute("unmix_linear", cudaDevAttrMultiProcessorCount, device);
    const Tiles<SmallTile> small(a);
    const Tiles<LargeTile> large(a);
    if (small.groups && small.copies(multiprocessors) < large.copies(multiprocessors))
        run_tiles<E, Operand>(a, small, stream);
    else run_tiles<E, Operand>(a, large, stream);
}

}  // namespace

void unmix_linear(const UnmixLinearArgs& a, int device, void* stream) {
    if (a.key.groups * a.M * a.N == 0) return;
    const OnDevice here("unmix_linear", device);
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a.dtype) {
        case Dtype::f32: return a.tf32 ? run<float, Tf32>(a, device, s) : run<float>(a, device, s);
        case Dtype::f64: return run<double>(a, device, s);
        case Dtype::bf16: return run<__nv_bfloat16>(a, device, s);
        case Dtype::f16: return run<__half>(a, device, s);
        case Dtype::i8: return;  // no op reads it
    }
}

}  // namespace facemix::cuda
