#include "support.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) (void)(p)
#define ASAN_UNPOISON_MEMORY_REGION(p, n) (void)(p)
#endif

namespace test {
namespace {

char current[1024];
constexpr int64_t kAlign = 64, kGuard = 256;  // bytes before and after an array, at least
constexpr unsigned char kFill = 0xff, kFillWhole = 0x80;

struct Format {
    int mantissa, min_exponent;  // bits with the hidden one; of the smallest normal number, as frexp counts
};
Format format_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::f32: return {24, -125};
        case Dtype::bf16: return {8, -125};
        case Dtype::f16: return {11, -13};
        default: return {53, -1021};
    }
}

double decode_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                             : exponent == 0 ? std::ldexp(fraction, -24)
                                             : std::ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

// Of a finite number that the format has and that is not beyond its range.
uint16_t encode_half(double value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    value = std::fabs(value);
    if (value < 0x1p-14) return uint16_t(sign | uint16_t(value * 0x1p24));
    int exponent;
    const double fraction = std::frexp(value, &exponent);
    return uint16_t(sign | (exponent + 14) << 10 | (int(fraction * 2048) & 1023));
}

double round_to(Dtype dtype, double value) {
    const Format f = format_of(dtype);
    int exponent;
    std::frexp(value, &exponent);
    const double unit = std::ldexp(1.0, std::max(exponent, f.min_exponent) - f.mantissa);
    return std::nearbyint(value / unit) * unit;
}

}  // namespace

void describe(const std::string& what) { std::snprintf(current, sizeof current, "%s", what.c_str()); }
const char* description() { return current; }

std::string show(const char* name, std::initializer_list<int64_t> values) {
    std::string s = std::string(name) + "=";
    for (int64_t v : values) s.append(s.back() == '=' ? "" : ",").append(std::to_string(v));
    return s + " ";
}

uint64_t Random::word() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
int64_t Random::between(int64_t low, int64_t high) { return low + int64_t(word() % uint64_t(high - low + 1)); }
int64_t Random::among(const std::vector<int64_t>& list) { return list[size_t(between(0, int64_t(list.size()) - 1))]; }
double Random::real() { return std::ldexp(double(word() >> 11), -52) - 1; }

Array::Array(Dtype dtype, int64_t count, int64_t offset)
    : dtype_(dtype), count_(count), element_(facemix::bytes_of(dtype)) {
    const int64_t bytes = kGuard + kAlign + offset * element_ + count * element_ + kGuard;
    memory_.reset(new char[size_t(bytes)]);
    std::memset(memory_.get(), kFill, size_t(bytes));
    char* aligned = memory_.get() + kGuard;
    aligned += (kAlign - int64_t(reinterpret_cast<uintptr_t>(aligned) % kAlign)) % kAlign;
    begin_ = aligned + offset * element_;
    if (dtype == Dtype::i8) std::memset(begin_, kFillWhole, size_t(count));
    ASAN_POISON_MEMORY_REGION(begin_ - kGuard, kGuard);
    ASAN_POISON_MEMORY_REGION(begin_ + count * element_, kGuard);
}
Array::~Array() {
    if (!memory_) return;
    ASAN_UNPOISON_MEMORY_REGION(begin_ - kGuard, kGuard);
    ASAN_UNPOISON_MEMORY_REGION(begin_ + count_ * element_, kGuard);
}

void Array::check_guards(const char* name) {
    const char* end = begin_ + count_ * element_;
    ASAN_UNPOISON_MEMORY_REGION(begin_ - kGuard, kGuard);
    ASAN_UNPOISON_MEMORY_REGION(end, kGuard);
    for (int64_t i = 0; i < kGuard; ++i) {
        if ((unsigned char)(begin_[i - kGuard]) != kFill)
            throw Failure(std::string(name) + ": written before its start");
        if ((unsigned char)(end[i]) != kFill) throw Failure(std::string(name) + ": written past its end");
    }
}

double Array::get(int64_t i) const {
    const char* p = begin_ + i * element_;
    if (dtype_ == Dtype::f64) {
        double d;
        std::memcpy(&d, p, sizeof d);
        return d;
    }
    if (dtype_ == Dtype::i8) return double(static_cast<int8_t>(*p));
    uint32_t bits = 0;
    std::memcpy(&bits, p, size_t(element_));
    if (dtype_ == Dtype::f16) return decode_half(uint16_t(bits));
    if (dtype_ == Dtype::bf16) bits <<= 16;
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}

std::vector<double> Array::values() const {
    std::vector<double> v;
    for (int64_t i = 0; i < count_; ++i) v.push_back(get(i));
    return v;
}

void Array::set(int64_t i, double value) {
    char* p = begin_ + i * element_;
    value = round_to(dtype_, value);
    if (dtype_ == Dtype::f64) {
        std::memcpy(p, &value, sizeof value);
        return;
    }
    const float f = float(value);
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    if (dtype_ == Dtype::bf16) bits >>= 16;
    if (dtype_ == Dtype::f16) bits = encode_half(value);
    std::memcpy(p, &bits, size_t(element_));  // little-endian, as all machines that the kernels know
}

void Array::fill(Random& random, bool whole) {
    for (int64_t i = 0; i < count_; ++i) set(i, whole ? double(random.between(-3, 3)) : random.real());
}

RandomKey::RandomKey(Random& random, int64_t g, int64_t s)
    : coeffs(size_t(g * s * s)), order(size_t(g * s)), groups(g), size(s) {
    for (double& c : coeffs) c = random.real();
    for (int64_t b = 0; b < g * s; ++b) {
        const int64_t other = random.between(0, b);
        order[size_t(b)] = order[size_t(other)];
        order[size_t(other)] = b;
    }
}

double roundoff(Dtype dtype) { return std::ldexp(1.0, -format_of(dtype).mantissa); }

void check_near(const char* name, const Array& out, int64_t i, const Sum& want, int64_t terms, double lost) {
    const Dtype dtype = out.dtype();
    const double got = out.get(i), error = std::fabs(got - want.value);
    const Format f = format_of(dtype);
    // Twice, because the reference rounds too; the smallest unit is for results below the normal numbers.
    const double allowed = 2 * double(terms) * roundoff(compute_dtype(dtype)) * want.magnitude +
                           roundoff(dtype) * (std::fabs(want.value) + lost) + lost +
                           std::ldexp(1.0, f.min_exponent - f.mantissa);
    if (error <= allowed) return;
    char text[256];
    std::snprintf(text, sizeof text, "%s[%lld] is %.9g, expected %.9g: error %.3g, allowed %.3g", name, (long long)i,
                  got, want.value, error, allowed);
    throw Failure(text);
}

void check_whole(const char* name, const Array& out, int64_t i, const Sum& want, int64_t terms, bool exact,
                 double lost) {
    const double got = out.get(i), value = std::fmax(-127, std::fmin(127, want.value));
    const double rounding = 2 * double(terms) * roundoff(Dtype::f32) * want.magnitude + lost;
    if (exact ? got == std::nearbyint(value) : std::fabs(got - value) <= 0.5 + rounding) return;
    char text[256];
    std::snprintf(text, sizeof text, "%s[%lld] is %g, expected %.9g rounded (%s)", name, (long long)i, got, want.value,
                  exact ? "exact" : "near");
    throw Failure(text);
}

std::vector<Sum> mix(const std::vector<Sum>& rows, const RandomKey& key, int64_t n, bool transpose) {
    const int64_t S = key.size;
    std::vector<Sum> out(rows.size());
    for (int64_t g = 0; g < key.groups; ++g)
        for (int64_t i = 0; i < S; ++i)
            for (int64_t j = 0; j < S; ++j) {
                const double a = key.coeffs[size_t((g * S + i) * S + j)];
                const int64_t sent = key.order[size_t(g * S + i)], plain = g * S + j;
                const Sum* from = rows.data() + (transpose ? sent : plain) * n;
                Sum* to = out.data() + (transpose ? plain : sent) * n;
                for (int64_t e = 0; e < n; ++e) to[e].add(a, from[e]);
            }
    return out;
}

int64_t random_group_size(Random& random) {
    return random.chance(8) ? random.between(1, 64) : random.among({1, 2, 3, 4, 4, 7, 8, 8, 16, 17});
}

Pool random_pool(Random& random, int64_t height, int64_t width) {
    static const Pool kUsual[] = {{2, 2, 2, 2, 0, 0}, {3, 3, 2, 2, 1, 1}, {3, 3, 1, 1, 1, 1}, {3, 3, 3, 3, 0, 0}};
    const Pool none = {1, 1, 1, 1, 0, 0};
    if (random.chance(2)) return none;
    Pool p = kUsual[random.between(0, 3)];
    if (random.chance(2)) {
        p.kh = random.between(1, 5), p.kw = random.between(1, 5);
        p.sh = random.between(1, 6), p.sw = random.between(1, 6);
        p.pad_h = random.between(0, p.kh / 2), p.pad_w = random.between(0, p.kw / 2);
    }
    return p.kh <= height + 2 * p.pad_h && p.kw <= width + 2 * p.pad_w ? p : none;
}

std::string show(const Pool& p) { return show("pool", {p.kh, p.kw, p.sh, p.sw, p.pad_h, p.pad_w}); }

std::vector<Sum> activate_and_pool(const std::vector<Sum>& z, int64_t B, const Layout& in, const Layout& out,
                                   Activation activation, double slope, const Pool& p, std::vector<int>* codes) {
    const double factor = activation == Activation::none ? 1 : activation == Activation::relu ? 0 : slope;
    const double steepest = std::max(1.0, std::fabs(factor));
    const int64_t row = out.C * out.H * out.W;
    std::vector<Sum> result(size_t(B * row));
    if (codes) codes->assign(result.size(), 0);
    for (int64_t b = 0; b < B; ++b)
        for (int64_t i = 0; i < row; ++i) {
            const auto [c, ph, pw] = out.place(i);
            Sum best{-INFINITY, 0};
            int code = 0;
            for (int64_t kh = 0; kh < p.kh; ++kh)
                for (int64_t kw = 0; kw < p.kw; ++kw) {
                    const int64_t h = ph * p.sh - p.pad_h + kh, w = pw * p.sw - p.pad_w + kw;
                    if (h < 0 || h >= in.H || w < 0 || w >= in.W) continue;
                    const Sum& here = z[size_t(in.at(b, c, h, w))];
                    const double a = here.value < 0 ? factor * here.value : here.value;
                    if (a > best.value) {
                        best.value = a;
                        code = int(kh * p.kw + kw) | (here.value > 0 ? 0 : facemix::kCodeNegative);
                    }
                    best.magnitude = std::max(best.magnitude, steepest * here.magnitude);
                }
            result[size_t(b * row + i)] = best;
            if (codes) (*codes)[size_t(b * row + i)] = code;
        }
    return result;
}

int64_t span_of(const facemix::ConvInput& a, int d) { return ((d ? a.KW : a.KH) - 1) * a.dilation[d] + 1; }

void size_for(Random& random, facemix::ConvInput& a, int d, int64_t out) {
    const int64_t span = span_of(a, d);
    int64_t& in = d ? a.W : a.H;
    in = std::max<int64_t>(1, (out - 1) * a.stride[d] + span - 2 * a.padding[d] + random.between(0, a.stride[d] - 1));
    while (in + 2 * a.padding[d] < span) ++in;
    (d ? a.OW : a.OH) = (in + 2 * a.padding[d] - span) / a.stride[d] + 1;
}

Winners random_winners(Random& random, int64_t B, const Layout& in, const Layout& out, const Pool& p) {
    const int64_t row = out.C * out.H * out.W;
    Winners winners{std::vector<uint8_t>(size_t(B * row)), std::vector<int64_t>(size_t(B * row))};
    for (int64_t b = 0; b < B; ++b)
        for (int64_t i = 0; i < row; ++i) {
            const int64_t c = i / (out.H * out.W), ph = i / out.W % out.H, pw = i % out.W;
            const int64_t h0 = ph * p.sh - p.pad_h, w0 = pw * p.sw - p.pad_w;
            const int64_t h = random.between(std::max<int64_t>(0, h0), std::min(in.H, h0 + p.kh) - 1);
            const int64_t w = random.between(std::max<int64_t>(0, w0), std::min(in.W, w0 + p.kw) - 1);
            const int64_t negative = random.chance(2) ? facemix::kCodeNegative : 0;
            const size_t at = size_t(out.at(b, c, ph, pw));
            winners.codes[at] = uint8_t((h - h0) * p.kw + w - w0 + negative);
            winners.at[at] = in.at(b, c, h, w);
        }
    return winners;
}

}  // namespace test
