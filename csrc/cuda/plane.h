// Where an element of a dense image [C, H, W] lies, and of its pooled counterpart.
#pragma once

#include <stdexcept>
#include <string>

#include "window.h"

namespace facemix::cuda {

// An image has fewer than 2^31 elements: its places are counted in 32 bits, which divide in half the time or less.
struct Plane {
    bool channels_last;
    unsigned C, H, W;

    struct Place {
        int c, h, w;
    };
    __device__ __forceinline__ Place place(unsigned e) const {
        if (channels_last) return {int(e % C), int(e / C / W), int(e / C % W)};
        return {int(e / W / H), int(e / W % H), int(e % W)};
    }
    __device__ __forceinline__ int at(int c, int h, int w) const {
        return channels_last ? (h * int(W) + w) * int(C) + c : (c * int(H) + h) * int(W) + w;
    }
    __host__ __device__ int64_t size() const { return int64_t(C) * H * W; }
    // From a row, a pixel or an element to the next; elements side by side have the same pixel or the same channel.
    __device__ int row_step() const { return channels_last ? int(W * C) : int(W); }
    __device__ int pixel_step() const { return channels_last ? int(C) : 1; }
};

template <class Args>
Plane plane_of(const char* op, const Args& a) {
    if (a.C * a.H * a.W > INT32_MAX || a.C * a.PH * a.PW > INT32_MAX)
        throw std::invalid_argument(std::string(op) + ": x must have fewer than 2^31 elements an image on CUDA, got " +
                                    std::to_string(a.C * a.H * a.W));
    return {a.channels_last, unsigned(a.C), unsigned(a.H), unsigned(a.W)};
}
template <class Args>
Plane pooled_plane_of(const Args& a) {
    return {a.channels_last, unsigned(a.C), unsigned(a.PH), unsigned(a.PW)};
}

// Whether V elements that lie side by side in an image can be taken at once: the pixels under a stride do not, nor do
// those at the end of a plane and the start of the next.
template <class Args>
bool side_by_side(const Args& a, int V) {
    return a.channels_last ? a.C % V == 0 : a.pool.identity() && a.H * a.W % V == 0;
}

}  // namespace facemix::cuda
