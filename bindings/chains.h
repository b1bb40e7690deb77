// Fused chains as functions of arrays.
#pragma once

#include "convolution.h"
#include "pooling.h"

namespace zf::bindings {

// The convolution's own output has no array: `rows` and `columns` are its size.
inline Convolution chained(const Array& x, const Array& weight, Pair size, Pair stride, Quad padding, Pair dilation,
                           int groups) {
    Array between;
    between.shape = {x.extent(0), size[0], size[1], weight.extent(0)};
    return convolution_of(x, weight, between, stride, padding, dilation, groups);
}

inline Maps pooled(const Convolution& c, const Array& y) {
    require(y.shape.size() == 4 && y.extent(0) == c.batch && y.extent(3) == c.filters,
            "a fused chain: the pooled array does not fit the convolution");
    return {c.batch, c.rows, c.columns, c.filters, y.length(1), y.length(2)};
}

// y, switches (N, P', Q', K) from x (N, H, W, C); `size` is (P, Q) of the maps between.
inline void convolution_pool(Array y, Array switches, Array x, Array weight, Array bias, Array bounds, Pair size,
                             Pair stride, Quad padding, Pair dilation, int groups, bool relu, Pair window,
                             Pair window_stride, Pair before, int precision, Stream stream) {
    require(y.shape == switches.shape, "convolution_pool: y and switches differ in shape");
    require(!bias.data || bias.size() == weight.extent(0), "convolution_pool: not one bias a filter");
    const Convolution sizes = chained(x, weight, size, stride, padding, dilation, groups);
    const Maps maps = pooled(sizes, y);
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::convolution_pool(y.out<T>(), switches.out<std::uint8_t>(), x.in<T>(), weight.in<T>(), bias.in<Wide<T>>(),
                             bounds_of(bounds, x.extent(0)), sizes, relu, maps, windows(window, window_stride, before),
                             precision_of(precision), pointer(stream));
    });
}

// dx (N, H, W, C) from y, switches (N, P', Q', K).
inline void unpool_filter(Array dx, Array y, Array switches, Array weight, Array bounds, Pair window, Pair window_stride,
                          Pair before, bool last_wins, bool rectify, Pair size, Pair stride, Quad padding, Pair dilation,
                          int groups, int precision, Stream stream) {
    require(y.shape == switches.shape, "unpool_filter: y and switches differ in shape");
    const Convolution sizes = chained(dx, weight, size, stride, padding, dilation, groups);
    const Maps maps = pooled(sizes, y);
    with_storage(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::unpool_filter(dx.out<T>(), y.in<T>(), switches.in<std::uint8_t>(), weight.in<T>(),
                          bounds_of(bounds, dx.extent(0)), maps, windows(window, window_stride, before), last_wins, rectify,
                          sizes, precision_of(precision), pointer(stream));
    });
}

}  // namespace zf::bindings
