// What the C++ tests share: seeded random numbers, guarded arrays of any dtype, random keys, and the error bounds.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace test {

using facemix::Activation;
using facemix::CpuKernels;
using facemix::Dtype;
using facemix::Key;
using facemix::Pool;

// A wrong result; the message says what is wrong, main() says how to see it again.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};
template <class Text>
void expect(bool holds, const Text& what) {
    if (!holds) throw Failure(what);
}

// What is being run, for the message of a failure or a crash.
void describe(const std::string& what);
const char* description();

// "name=1,2,3 "
std::string show(const char* name, std::initializer_list<int64_t> values);

// SplitMix64 (Steele, Lea, Flood 2014).
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t word();
    int64_t between(int64_t low, int64_t high);       // both included
    int64_t among(const std::vector<int64_t>& list);  // one of them
    bool chance(int64_t one_in) { return between(1, one_in) == 1; }
    double real();  // uniform in [-1, 1)

  private:
    uint64_t state_;
};

// An array [count], `offset` elements past an address that is aligned to 64 bytes. Until set, all bytes are 0xff, NaN
// in every floating-point dtype; of int8 0x80, which no kernel writes. Writes beyond the ends show in check_guards();
// under AddressSanitizer all accesses do.
class Array {
  public:
    Array(Dtype dtype, int64_t count, int64_t offset = 0);
    Array(Array&&) = default;
    Array& operator=(Array&&) = default;
    ~Array();

    void* data() { return begin_; }
    Dtype dtype() const { return dtype_; }
    int64_t count() const { return count_; }
    double get(int64_t i) const;
    std::vector<double> values() const;
    void set(int64_t i, double value);  // rounded to nearest even; not of int8
    // Random values: whole numbers from -3 to 3, or reals of the dtype's full precision in [-1, 1).
    void fill(Random& random, bool whole);
    void check_guards(const char* name);

  private:
    Dtype dtype_;
    int64_t count_, element_;
    std::unique_ptr<char[]> memory_;
    char* begin_;
};

// Random coefficients (not orthogonal: the kernels do not ask for it) and a random order.
struct RandomKey {
    RandomKey(Random& random, int64_t groups, int64_t size);
    std::vector<double> coeffs;
    std::vector<int64_t> order;
    int64_t groups, size;
    Key key() const { return {coeffs.data(), order.data(), groups, size}; }
};

// Unit roundoff of a dtype, and the dtype that kernels take its sums in.
double roundoff(Dtype dtype);
inline Dtype compute_dtype(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

// A double result and the sum of the magnitudes of its terms, which bounds its rounding errors.
struct Sum {
    double value = 0, magnitude = 0;
    void add(double factor, const Sum& other) {
        value += factor * other.value;
        magnitude += (factor < 0 ? -factor : factor) * other.magnitude;
    }
};
inline Sum exact(double value) { return {value, value < 0 ? -value : value}; }

// out[i] must be `want` to the rounding of `terms` operations in the compute type and of the result to its dtype, and
// to what was lost besides.
void check_near(const char* name, const Array& out, int64_t i, const Sum& want, int64_t terms, double lost = 0);

// The same of int8: the whole number nearest to `want`, at most 127 in magnitude; either of two where its rounding
// errors may decide. `exact`: there are none, and a tie goes to the even one.
void check_whole(const char* name, const Array& out, int64_t i, const Sum& want, int64_t terms, bool exact,
                 double lost = 0);

// rows [B][n] of sums, mixed into their destination rows, or the adjoint.
std::vector<Sum> mix(const std::vector<Sum>& rows, const RandomKey& key, int64_t n, bool transpose);

// The map after a pool; "no pool" keeps it.
inline int64_t pooled(int64_t size, int64_t kernel, int64_t stride, int64_t pad) {
    return (size + 2 * pad - kernel) / stride + 1;
}
// What a window of a convolution covers of its input along dimension d, and sizes of input and result: about `out`.
int64_t span_of(const facemix::ConvInput& a, int d);
void size_for(Random& random, facemix::ConvInput& a, int d, int64_t out);
// Enough groups that a block of a CUDA kernel takes several, one after the other.
constexpr int64_t kManyGroups = 1030;
// From 1 to 64: mostly those at the borders of what kernels know.
int64_t random_group_size(Random& random);
Pool random_pool(Random& random, int64_t height, int64_t width);
std::string show(const Pool& pool);

// Where an element of an image lies: [C, H, W] dense.
struct Layout {
    bool channels_last;
    int64_t C, H, W;
    int64_t at(int64_t b, int64_t c, int64_t h, int64_t w) const {
        return channels_last ? ((b * H + h) * W + w) * C + c : ((b * C + c) * H + h) * W + w;
    }
    // Of the element `i` of an image: in loops over these, memory is read and written in its order.
    struct Place {
        int64_t c, h, w;
    };
    Place place(int64_t i) const {
        return channels_last ? Place{i % C, i / C / W, i / C % W} : Place{i / W / H, i / W % H, i % W};
    }
};

// act, then max-pool, of B images z in `in`; codes, if wanted, as kernels.h has them, both in the layout `out`.
std::vector<Sum> activate_and_pool(const std::vector<Sum>& z, int64_t B, const Layout& in, const Layout& out,
                                   Activation activation, double slope, const Pool& pool, std::vector<int>* codes);

// Codes of a pooled map, and where in the map before it each winner lies: anywhere inside the image, of either sign.
struct Winners {
    std::vector<uint8_t> codes;
    std::vector<int64_t> at;
    double factor(size_t i, double pos, double neg) const { return codes[i] & facemix::kCodeNegative ? neg : pos; }
};
Winners random_winners(Random& random, int64_t B, const Layout& in, const Layout& out, const Pool& pool);

// One case of an op. Cases below a small number are laid out by index, the others are random.
void conv_mix_case(const CpuKernels& kernels, Random& random, int64_t index);
void conv_mix_vjp_case(const CpuKernels& kernels, Random& random, int64_t index);
void act_mix_case(const CpuKernels& kernels, Random& random, int64_t index);
void act_mix_linear_case(const CpuKernels& kernels, Random& random, int64_t index);
void group_mix_case(const CpuKernels& kernels, Random& random, int64_t index);
void unmix_linear_case(const CpuKernels& kernels, Random& random, int64_t index);

// The CUDA kernels, run on the host (tests/cuda); null where an op has none.
CpuKernels cuda_kernels();
inline bool on_cuda(const CpuKernels& kernels) { return kernels.capability == std::string("cuda_on_host"); }
void warp_instructions();  // of the host
void conv_mix_tiles();     // their geometry
void conv_mix_patches();   // and what is read of x
void unmix_linear_tiles();

void sampling();          // sample_orthogonal and sample_permutation
void sampling_on_cuda();  // theirs for training
void far_apart();         // their offsets
void cuda_errors();       // what they throw
void c_api();             // facemix.h

}  // namespace test
