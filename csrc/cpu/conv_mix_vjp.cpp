// conv_mix_vjp: the derivative of conv_mix by weight and bias, in one pass over the gradient of what was sent.
//
// A block is a group and a few convolved rows. Its gradient before the activation is un-mixed into L2 (unmixed_rows.h)
// and multiplied there with the windows of the input (strip.h, outer_micro.h): it never goes to memory. Work items are
// runs of blocks with sums of their own, added in order at the end, so that the result does not depend on the threads.
#include "outer_micro.h"
#include "strip.h"
#include "unmixed_rows.h"

namespace facemix::FACEMIX_ISA {
namespace {

constexpr int64_t kBlockBytes = 512 << 10;  // what a block keeps stays in L2
constexpr int64_t kSumsBytes = 32 << 20;    // of all items together, about
constexpr int64_t kItems = 64;              // at most
constexpr int64_t kFewItems = 8;            // where the sums are larger than that

// The derivative of what follows the convolution.
inline ActMixLinearArgs behind_convolution(const ConvMixVjpArgs& a) {
    ActMixLinearArgs b{};
    b.y = const_cast<void*>(a.y), b.codes = a.codes, b.dtype = a.x_dtype;
    b.C = a.OC, b.H = a.OH, b.W = a.OW, b.PH = a.PH, b.PW = a.PW, b.channels_last = a.channels_last;
    b.pos = 1, b.neg = a.neg, b.pool = a.pool, b.key = a.key;
    return b;
}

template <class T>
struct ConvMixVjp {
    static constexpr int W = kLanes<T>;
    using Windows = Strip<Single<T>>;

    const ConvMixVjpArgs& a;
    const ActMixLinearArgs behind = behind_convolution(a);
    const int64_t block_rows = rows_that_fit();
    const Windows strip{a, block_rows, a.OW, false};
    const UnmixedRows<T> unmixed{behind, block_rows};
    const int64_t S = a.key.size, K = a.C * a.KH * a.KW;
    const int64_t channels = ceil_div(a.OC, W) * W;  // OC, rounded up
    const int64_t sums_size = (K + 1) * channels;    // [K][channels] of the weight, and [channels] of the bias
    const int64_t row_blocks = ceil_div(a.OH, block_rows), blocks = a.key.groups * row_blocks;
    const int64_t room = kSumsBytes / (sums_size * int64_t(sizeof(T)));
    const int64_t items = max64(1, min64(blocks, max64(kFewItems, min64(kItems, room))));
    const int32_t* off = nullptr;  // [K]: offset in the strip of each weight's input
    T* sums = nullptr;             // [items][sums_size]

    explicit ConvMixVjp(const ConvMixVjpArgs& args) : a(args) {}

    int64_t rows_that_fit() const {
        int64_t rows = 1;
        const auto fits = [&](int64_t n) {
            const int64_t image = UnmixedRows<T>{behind, n}.image_step + Windows(a, n, a.OW, false).image_step;
            return a.key.size * image * int64_t(sizeof(T)) <= kBlockBytes;
        };
        while (rows < a.OH && fits(rows + 1)) ++rows;
        return rows;
    }

    struct Scratch {
        T* strip;
        typename UnmixedRows<T>::Scratch unmixed;
    };
    Scratch carve(char* base) const {
        Carver carver(base);
        Scratch s;
        s.strip = carver.take<T>(S * strip.image_step);
        s.unmixed = unmixed.carve(carver);
        return s;
    }

    static void item(const void* ctx, int64_t index, char* scratch) {
        const ConvMixVjp& self = *static_cast<const ConvMixVjp*>(ctx);
        self.walk(self.blocks * index / self.items, self.blocks * (index + 1) / self.items,
                  self.sums + index * self.sums_size, self.carve(scratch));
    }
    void walk(int64_t first, int64_t last, T* to, const Scratch& s) const {
        memset(to, 0, size_t(sums_size) * sizeof(T));
        int64_t kept = 0;  // input rows that the block before leaves in the strip
        for (int64_t block = first; block < last; ++block) {
            const int64_t g = block / row_blocks, oh = block % row_blocks * block_rows;
            const int64_t rows = min64(block_rows, a.OH - oh);
            if (oh == 0) kept = 0;
            const Coefficients<T> coeffs(a.key, g, true, s.unmixed.c);
            for (int64_t j = 0; j < S; ++j) {
                T* image = s.strip + j * strip.image_step;
                if (kept) strip.advance(image, block_rows);
                strip.fill(image, g * S + j, oh, rows, kept);
            }
            kept = strip.shared(rows);
            for (int64_t oc = 0; oc < a.OC; oc += unmixed.width) {
                unmixed.fill(s.unmixed, coeffs.get(), g, oc, oh, rows);
                for (int64_t j = 0; j < S; ++j)
                    add(s.strip + j * strip.image_step, s.unmixed.u + j * unmixed.image_step, rows, to + oc,
                        min64(unmixed.width, channels - oc));
            }
        }
    }
    // The rows of one image, of n output channels.
    void add(const T* image, const T* u, int64_t rows, T* to, int64_t n) const {
        using Micro = OuterMicro<T>;
        static constexpr T kOne = 1;
        static constexpr int32_t kHere = 0;
        const int64_t step = unmixed.width;
        for (int64_t left = ceil_div(n, W), vectors; left > 0; left -= vectors, u += vectors * W, to += vectors * W) {
            vectors = left >= kChannelVectors ? kChannelVectors : left >= 2 ? 2 : 1;
            for (int64_t r = 0; r < rows; ++r) {
                const T* in = image + r * strip.convolved_row_step();
                for (int64_t k = 0; k < K;) {
                    const auto choice = Micro::choose(vectors, K - k);
                    choice.run({in, off + k, strip.pixel_step(), u + r * a.OW * step, step, a.OW, to + k * channels,
                                channels});
                    k += choice.rows;
                }
            }
            Micro::choose(vectors, 1).run({&kOne, &kHere, 0, u, step, rows * a.OW, to + K * channels, channels});
        }
    }

    // Row k of the sums of all items, to where it belongs.
    static void gather_row(const void* ctx, int64_t k, char*) {
        const ConvMixVjp& self = *static_cast<const ConvMixVjp*>(ctx);
        with_dtype_of<T>(self.a.x_dtype, [&](auto tag) { self.template gather_row<typename decltype(tag)::type>(k); });
    }
    template <class E>
    void gather_row(int64_t k) const {
        const int64_t taps = a.KH * a.KW;
        for (int64_t oc = 0; oc < channels; oc += W) {
            Vec<T> sum = {};
            for (int64_t i = 0; i < items; ++i) sum += load(sums + i * sums_size + k * channels + oc);
            T lanes[W];
            store(lanes, sum);
            for (int64_t l = 0; l < min64(W, a.OC - oc); ++l) {
                if (k == K) static_cast<E*>(a.bias)[oc + l] = narrow<E>(lanes[l]);
                else static_cast<E*>(a.weight)[((oc + l) * a.C + k % a.C) * taps + k / a.C] = narrow<E>(lanes[l]);
            }
        }
    }

    void run() {
        Carver count(nullptr);
        count.take<int32_t>(K), count.take<T>(items * sums_size);
        Carver carver(workspace(count.used()));
        int32_t* offsets = carver.take<int32_t>(K);
        for (int64_t k = 0; k < K; ++k) {
            const int64_t tap = k / a.C;
            offsets[k] = int32_t(strip.offset(k % a.C, tap / a.KW, tap % a.KW));
        }
        off = offsets, sums = carver.take<T>(items * sums_size);
        parallel_for(items, a.threads, carve(nullptr).unmixed.bytes, item, this);
        parallel_for(K + 1, a.threads, 0, gather_row, this);
    }
};

}  // namespace

void conv_mix_vjp(const ConvMixVjpArgs& a) {
    if (a.x_dtype == Dtype::f64) ConvMixVjp<double>(a).run();
    else ConvMixVjp<float>(a).run();
}

}  // namespace facemix::FACEMIX_ISA
