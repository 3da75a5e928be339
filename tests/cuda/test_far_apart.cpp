// conv_mix of few elements that lie 2^31 and more apart: offsets have 64 bits on every way that a kernel takes.
#include <sys/mman.h>

#include <cstring>

#include "../cpp/support.h"
#include "cuda/launch.h"

namespace test {
namespace {

constexpr int64_t kFar = (int64_t(1) << 30) + 8;  // elements; twice this is past what 32 bits hold
constexpr int64_t C = 4, H = 5, W = 6, OC = 9, K = 3;

// Memory of which only the pages that are written to exist.
class Holes {
  public:
    explicit Holes(size_t bytes) : bytes_(bytes) {
        constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        at_ = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0));
        if (at_ == MAP_FAILED) throw Failure("no address space");
    }
    ~Holes() { munmap(at_, bytes_); }
    Holes(const Holes&) = delete;
    Holes& operator=(const Holes&) = delete;
    char* data() const { return at_; }

  private:
    size_t bytes_;
    char* at_;
};

void check(Random& random, Dtype dtype, bool tf32, int64_t S, bool channels_last, int dim) {
    const int64_t shape[4] = {S, C, H, W}, element = facemix::bytes_of(dtype);
    RandomKey key(random, 1, S);
    Array x(dtype, S * C * H * W), w(dtype, OC * C * K * K), near(dtype, S * OC * H * W), far(dtype, S * OC * H * W);
    x.fill(random, false), w.fill(random, false);
    facemix::ConvMixArgs a{};
    a.weight = w.data(), a.x_dtype = a.y_dtype = dtype, a.tf32 = tf32, a.key = key.key();
    a.C = C, a.H = a.OH = a.PH = H, a.W = a.OW = a.PW = W, a.OC = OC, a.KH = a.KW = K;
    for (int d = 0; d < 2; ++d) a.stride[d] = a.padding[d] = a.dilation[d] = 1;
    a.channels_last = channels_last, a.pool = {1, 1, 1, 1, 0, 0};
    const int64_t dense[4] = {C * H * W, channels_last ? 1 : H * W, channels_last ? W * C : W, channels_last ? C : 1};
    std::copy(dense, dense + 4, a.x_strides);
    a.x = x.data(), a.y = near.data();
    facemix::cuda::conv_mix(a, 0, nullptr);

    a.x_strides[dim] = kFar;
    const Holes holes(size_t((shape[dim] * kFar + S * C * H * W) * element));
    const auto offset = [](const int64_t* strides, int64_t b, int64_t c, int64_t h, int64_t v) {
        return b * strides[0] + c * strides[1] + h * strides[2] + v * strides[3];
    };
    for (int64_t e = 0; e < x.count(); ++e) {
        const int64_t b = e / (C * H * W), c = e / (H * W) % C, h = e / W % H, v = e % W;
        std::memcpy(holes.data() + offset(a.x_strides, b, c, h, v) * element,
                    static_cast<char*>(x.data()) + offset(dense, b, c, h, v) * element, size_t(element));
    }
    a.x = holes.data(), a.y = far.data();
    facemix::cuda::conv_mix(a, 0, nullptr);
    if (near.values() != far.values()) throw Failure("conv_mix: not what it is of the same x in dense memory");
}

}  // namespace

void far_apart() {
    Random random(0);
    for (const int64_t S : {8, 17})  // by tiles, and element by element
        for (const bool channels_last : {false, true})
            for (int dim = 0; dim < 4; ++dim) {
                if (channels_last && dim == 1) continue;
                for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16})
                    check(random, dtype, false, S, channels_last, dim);
                check(random, Dtype::f32, true, S, channels_last, dim);
            }
}

}  // namespace test
