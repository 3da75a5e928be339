// The only file that knows Python. Addresses come as integers, shapes and strides as tuples of integers; the caller
// (facemix_ops) has checked them, and what is checked again here is what keeps memory safe.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#ifdef FACEMIX_CUDA
#include "cuda/launch.h"
#endif
#include "kernels.h"

namespace py = pybind11;
using namespace facemix;

namespace {

using Address = uintptr_t;
template <size_t N>
using Ints = std::array<int64_t, N>;

template <class T>
T* at(Address a) {
    return reinterpret_cast<T*>(a);
}

// Where a call runs: (-1, threads) on the CPU, or (ordinal, address of a stream) on a CUDA device.
using Place = Ints<2>;
#ifdef FACEMIX_CUDA
#define FACEMIX_ON_CUDA(op) cuda::op
#else
#define FACEMIX_ON_CUDA(op) nullptr
#endif

// On the CPU the order is checked, for every call: an entry out of range would write out of bounds, a repeated one
// would leave a row of the output as it was. On a device it is not read back: keys are checked when they are made.
void check_order(const Key& key) {
    const int64_t batch = key.groups * key.size;
    std::vector<bool> seen(static_cast<size_t>(batch));
    for (int64_t b = 0; b < batch; ++b) {
        const int64_t row = key.order[b];
        if (row < 0 || row >= batch || seen[size_t(row)])
            throw py::value_error("order must be a permutation of 0.." + std::to_string(batch - 1));
        seen[size_t(row)] = true;
    }
}

[[noreturn]] void refuse_device(const char* op) {
    throw py::value_error(std::string(op) + ": place must be the CPU in a build without CUDA, got a device");
}

template <class Args>
void run(const char* op, Args& a, void (*CpuKernels::*on_cpu)(const Args&),
         std::type_identity_t<void (*)(const Args&, int, void*)> on_cuda, Place place) {
    if (place[0] < 0) {
        check_order(a.key);
        a.threads = int(place[1]);
        py::gil_scoped_release nogil;
        (kernels().*on_cpu)(a);
    } else if (on_cuda) {
        if (a.key.size < 1 || a.key.size > kMaxGroup)
            throw py::value_error(std::string(op) + ": coeffs must hold groups of 1.." + std::to_string(kMaxGroup) +
                                  " on a device, got " + std::to_string(a.key.size));
        py::gil_scoped_release nogil;
        on_cuda(a, int(place[0]), at<void>(Address(place[1])));
    } else {
        refuse_device(op);
    }
}

Key make_key(Address coeffs, Address order, Ints<2> key) {
    return {at<const double>(coeffs), at<const int64_t>(order), key[0], key[1]};
}

// Elements of one image that a convolved row needs; the kernels index them by 32 bits.
double row_input(const ConvInput& a) {
    const double rows = double(a.KH - 1) * double(a.dilation[0]) + 1;
    const double columns = double(a.OW + 32) * double(a.stride[1]) + double(a.KW - 1) * double(a.dilation[1]) + 1;
    return double(a.C) * rows * columns;
}

void set_input(const char* op, ConvInput& a, Address x, int dtype, Ints<3> chw, Ints<4> strides, Ints<2> kernel,
               Ints<2> stride, Ints<2> padding, Ints<2> dilation, Ints<2> conv_hw) {
    a.x = at<void>(x), a.x_dtype = Dtype(dtype);
    for (int i = 0; i < 4; ++i) a.x_strides[i] = strides[size_t(i)];
    a.C = chw[0], a.H = chw[1], a.W = chw[2], a.KH = kernel[0], a.KW = kernel[1];
    for (int i = 0; i < 2; ++i)
        a.stride[i] = stride[size_t(i)], a.padding[i] = padding[size_t(i)], a.dilation[i] = dilation[size_t(i)];
    a.OH = conv_hw[0], a.OW = conv_hw[1];
    if (row_input(a) > double(1 << 30))
        throw py::value_error(std::string(op) +
                              ": x must have at most 2^30 padded elements under one row of results, got more");
}

Pool make_pool(const Ints<6>& p) { return {p[0], p[1], p[2], p[3], p[4], p[5]}; }

void conv_mix(Address x, int x_dtype, Ints<3> chw, Ints<4> strides, Address weight, Address bias, Ints<3> kernel,
              Ints<2> stride, Ints<2> padding, Ints<2> dilation, int activation, double slope, Address slope_at,
              Ints<6> pool, Ints<2> conv_hw, Ints<2> out_hw, Address coeffs, Address order, Ints<2> key, Address y,
              int y_dtype, bool channels_last, Address codes, bool tf32, Place place) {
    ConvMixArgs a;
    set_input("conv_mix", a, x, x_dtype, chw, strides, {kernel[1], kernel[2]}, stride, padding, dilation, conv_hw);
    a.weight = at<void>(weight), a.bias = at<void>(bias), a.y = at<void>(y), a.codes = at<uint8_t>(codes);
    a.y_dtype = Dtype(y_dtype);
    a.OC = kernel[0], a.PH = out_hw[0], a.PW = out_hw[1];
    a.channels_last = channels_last;
    a.activation = Activation(activation), a.slope = slope, a.slope_at = at<const float>(slope_at);
    a.pool = make_pool(pool);
    a.key = make_key(coeffs, order, key);
    a.tf32 = tf32;
    run("conv_mix", a, &CpuKernels::conv_mix, FACEMIX_ON_CUDA(conv_mix), place);
}

void conv_mix_vjp(Address y, Address x, int dtype, Ints<3> chw, Ints<4> strides, Ints<3> kernel, Ints<2> stride,
                  Ints<2> padding, Ints<2> dilation, double neg, Ints<6> pool, Ints<2> conv_hw, Ints<2> out_hw,
                  Address coeffs, Address order, Ints<2> key, bool channels_last, Address codes, Address weight,
                  Address bias, Place place) {
    ConvMixVjpArgs a;
    set_input("conv_mix_vjp", a, x, dtype, chw, strides, {kernel[1], kernel[2]}, stride, padding, dilation, conv_hw);
    a.y = at<void>(y), a.codes = at<uint8_t>(codes), a.weight = at<void>(weight), a.bias = at<void>(bias);
    a.OC = kernel[0], a.PH = out_hw[0], a.PW = out_hw[1];
    a.channels_last = channels_last, a.neg = neg;
    a.pool = make_pool(pool);
    a.key = make_key(coeffs, order, key);
    run("conv_mix_vjp", a, &CpuKernels::conv_mix_vjp, nullptr, place);
}

void act_mix(Address x, int x_dtype, Ints<3> chw, Address scale, Address shift, Address residual, int activation,
             double slope, Address slope_at, Ints<6> pool, Ints<2> out_hw, Address coeffs, Address order, Ints<2> key,
             Address y, int y_dtype, bool channels_last, Address codes, Place place) {
    ActMixArgs a;
    a.x = at<void>(x), a.scale = at<void>(scale), a.shift = at<void>(shift), a.residual = at<void>(residual);
    a.y = at<void>(y), a.codes = at<uint8_t>(codes);
    a.x_dtype = Dtype(x_dtype), a.y_dtype = Dtype(y_dtype);
    a.C = chw[0], a.H = chw[1], a.W = chw[2], a.PH = out_hw[0], a.PW = out_hw[1];
    a.channels_last = channels_last;
    a.activation = Activation(activation), a.slope = slope, a.slope_at = at<const float>(slope_at);
    a.pool = make_pool(pool);
    a.key = make_key(coeffs, order, key);
    run("act_mix", a, &CpuKernels::act_mix, FACEMIX_ON_CUDA(act_mix), place);
}

template <bool Adjoint>
void act_mix_linear(Address z, Address y, Address codes, int dtype, Ints<3> chw, Ints<2> out_hw, double pos, double neg,
                    Address neg_at, Ints<6> pool, Address coeffs, Address order, Ints<2> key, bool channels_last,
                    Place place) {
    ActMixLinearArgs a;
    a.z = at<void>(z), a.y = at<void>(y), a.codes = at<uint8_t>(codes), a.dtype = Dtype(dtype);
    a.C = chw[0], a.H = chw[1], a.W = chw[2], a.PH = out_hw[0], a.PW = out_hw[1];
    a.channels_last = channels_last, a.pos = pos, a.neg = neg, a.neg_at = at<const float>(neg_at);
    a.pool = make_pool(pool);
    a.key = make_key(coeffs, order, key);
    if (Adjoint) run("act_mix_vjp", a, &CpuKernels::act_mix_vjp, FACEMIX_ON_CUDA(act_mix_vjp), place);
    else run("act_mix_jvp", a, &CpuKernels::act_mix_jvp, FACEMIX_ON_CUDA(act_mix_jvp), place);
}

void group_mix(Address x, Address y, int dtype, int64_t n, bool transpose, Address coeffs, Address order, Ints<2> key,
               Place place) {
    GroupMixArgs a{at<void>(x), at<void>(y), Dtype(dtype), n, transpose, make_key(coeffs, order, key), 0};
    run("group_mix", a, &CpuKernels::group_mix, FACEMIX_ON_CUDA(group_mix), place);
}

void unmix_linear(Address y, Address weight, Address bias, Address out, int dtype, Ints<3> mkn, Address coeffs,
                  Address order, Ints<2> key, bool tf32, Place place) {
    UnmixLinearArgs a{at<void>(y),
                      at<void>(weight),
                      at<void>(bias),
                      at<void>(out),
                      Dtype(dtype),
                      mkn[0],
                      mkn[1],
                      mkn[2],
                      make_key(coeffs, order, key),
                      0,
                      tf32};
    run("unmix_linear", a, &CpuKernels::unmix_linear, FACEMIX_ON_CUDA(unmix_linear), place);
}

// The highest rate of `amount` a call that was seen in `seconds`.
template <class Work>
double best_rate(double seconds, Work&& work) {
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
    double best = 0;
    for (const auto start = Clock::now(); since(start) < seconds;) {
        const auto begin = Clock::now();
        const double amount = work();
        best = std::max(best, amount / since(begin));
    }
    return best;
}

double fma_peak(int threads, double seconds) {
    py::gil_scoped_release nogil;
    return best_rate(seconds, [&] { return kernels().fma_work(1000000, threads); });
}

// Bytes written a second; with `copy`, each is read as well.
double write_peak(int threads, int64_t bytes, double seconds, bool copy) {
    py::gil_scoped_release nogil;
    const std::align_val_t page{4096};
    const auto free = [&](char* p) { ::operator delete(p, page); };
    const auto block = [&] {
        std::unique_ptr<char, decltype(free)> p(static_cast<char*>(::operator new(size_t(bytes), page)), free);
        prefer_large_pages(p.get(), bytes);
        std::memset(p.get(), 1, size_t(bytes));
        return p;
    };
    const auto to = block(), from = block();
    return best_rate(seconds, [&] {
        kernels().copy_work(to.get(), copy ? from.get() : nullptr, bytes, threads);
        return double(bytes);
    });
}

// Memory of a large result. The block that was given back last is kept for the next result of about its size: memory
// fresh from the system costs more to map than the kernels take, and a loop that drops each result would pay every
// time.
class ResultMemory {
  public:
    explicit ResultMemory(int64_t bytes) : bytes_(bytes) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (kept_.p && kept_.room >= bytes && kept_.room - bytes <= kPage + bytes / 4) std::swap(block_, kept_);
        }
        if (block_.p) return;
        block_.room = (bytes + kPage - 1) / kPage * kPage;
        block_.p = static_cast<char*>(::operator new(size_t(block_.room), std::align_val_t(kPage)));
        prefer_large_pages(block_.p, block_.room);
    }
    ~ResultMemory() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            std::swap(block_, kept_);
        }
        ::operator delete(block_.p, std::align_val_t(kPage));
    }
    ResultMemory(const ResultMemory&) = delete;
    ResultMemory& operator=(const ResultMemory&) = delete;
    py::buffer_info buffer() { return py::buffer_info(reinterpret_cast<uint8_t*>(block_.p), bytes_); }

  private:
    static constexpr int64_t kPage = 2 << 20;
    struct Block {
        char* p;
        int64_t room;
    };
    static inline std::mutex mutex_;
    static inline Block kept_{nullptr, 0};
    Block block_{nullptr, 0};
    int64_t bytes_;
};

// seed: the address of a 64-bit seed on the device of the result, 0 on the CPU for the operating system's CSPRNG. A
// bound is the CPU's alone.
void draw_orthogonal(Address coeffs, int64_t groups, int64_t size, double max_coeff, Address seed, Place place) {
    void (*const on_cuda)(double*, int64_t, int64_t, const int64_t*, int, void*) = FACEMIX_ON_CUDA(sample_orthogonal);
    if (place[0] >= 0 && !on_cuda) refuse_device("sample_orthogonal");
    py::gil_scoped_release nogil;
    if (place[0] < 0) return sample_orthogonal(at<double>(coeffs), groups, size, max_coeff, at<const uint64_t>(seed));
    on_cuda(at<double>(coeffs), groups, size, at<const int64_t>(seed), int(place[0]), at<void>(Address(place[1])));
}

void draw_permutation(Address order, int64_t n, Address seed, Place place) {
    void (*const on_cuda)(int64_t*, int64_t, const int64_t*, int, void*) = FACEMIX_ON_CUDA(sample_permutation);
    if (place[0] >= 0 && !on_cuda) refuse_device("sample_permutation");
    py::gil_scoped_release nogil;
    if (place[0] < 0) return sample_permutation(at<int64_t>(order), n, at<const uint64_t>(seed));
    on_cuda(at<int64_t>(order), n, at<const int64_t>(seed), int(place[0]), at<void>(Address(place[1])));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "facemix kernels on raw addresses; use facemix_ops instead";
    m.attr("sources") = FACEMIX_SOURCES;
    m.attr("compiler") = FACEMIX_COMPILER;
    m.attr("cuda_architectures") = FACEMIX_CUDA_ARCHITECTURES;
    m.attr("cuda_ops") = FACEMIX_CUDA_OPS;
    m.def("compiled_capabilities", compiled_capabilities);
    m.def("available_capabilities", available_capabilities);
    m.def("capability", [] { return kernels().capability; });
    m.def("use_capability", use_capability);
    m.def("use_openmp", use_openmp);
    m.def("conv_mix", conv_mix);
    m.def("conv_mix_vjp", conv_mix_vjp);
    m.def("act_mix", act_mix);
    m.def("act_mix_jvp", act_mix_linear<false>);
    m.def("act_mix_vjp", act_mix_linear<true>);
    m.def("group_mix", group_mix);
    m.def("unmix_linear", unmix_linear);
    py::class_<ResultMemory>(m, "ResultMemory", py::buffer_protocol())
        .def(py::init<int64_t>())
        .def_buffer(&ResultMemory::buffer);
    m.def("fma_peak", fma_peak, py::arg("threads"), py::arg("seconds"));
    m.def("write_peak", write_peak, py::arg("threads"), py::arg("bytes"), py::arg("seconds"), py::arg("copy") = false);
    m.def("sample_orthogonal", draw_orthogonal);
    m.def("sample_permutation", draw_permutation);
}
