// Pooling as functions of arrays.
#pragma once

#include "../csrc/ops.h"
#include "array.h"

namespace zf::bindings {

inline Maps maps(const Array& large, const Array& small) {
    require(large.shape.size() == 4 && small.shape.size() == 4, "pooling: an array is not (N, H, W, C)");
    require(large.extent(0) == small.extent(0) && large.extent(3) == small.extent(3),
            "pooling: batch or channels differ");
    return {large.length(0), large.length(1), large.length(2), large.length(3), small.length(1), small.length(2)};
}

// Of a pooling's output alone: the input has no array, but may have a width.
inline Maps maps_of(const Array& small, int width) {
    require(small.shape.size() == 4, "pooling: an array is not (N, P, Q, C)");
    return {small.length(0), 0, width, small.length(3), small.length(1), small.length(2)};
}

inline Windows windows(Pair window, Pair stride, Pair before) {
    return {window[0], window[1], stride[0], stride[1], before[0], before[1]};
}

inline void max_pool(Array y, Array switches, Array x, Array bounds, Pair window, Pair stride, Pair before,
                     Stream stream) {
    require(y.shape == switches.shape, "max_pool: y and switches differ in shape");
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::max_pool(y.out<T>(), switches.out<std::uint8_t>(), x.in<T>(), bounds_of(bounds, x.extent(0)), maps(x, y),
                     windows(window, stride, before), pointer(stream));
    });
}

// The map's size is in the bounds, which must be given: it has no array here.
inline void check_switches(Array bad, Array switches, Array bounds, Pair window, Pair stride, Pair before,
                           Stream stream) {
    require(bad.size() == 1 && switches.shape.size() == 4 && (bounds.data || !switches.extent(0)),
            "check_switches: wrong shapes");
    zf::check_switches(bad.out<std::int32_t>(), switches.in<std::uint8_t>(), bounds_of(bounds, switches.extent(0)),
                       maps_of(switches, 0), windows(window, stride, before), pointer(stream));
}

inline void switches_to_flat(Array flat, Array switches, int width, Pair window, Pair stride, Pair before, Stream stream) {
    require(flat.shape == switches.shape, "switches_to_flat: flat and switches differ in shape");
    zf::switches_to_flat(flat.out<std::int64_t>(), switches.in<std::uint8_t>(), maps_of(switches, width),
                         windows(window, stride, before), pointer(stream));
}

inline void switches_from_flat(Array switches, Array bad, Array flat, int width, Pair window, Pair stride, Pair before,
                               Stream stream) {
    require(flat.shape == switches.shape && bad.size() == 1, "switches_from_flat: wrong shapes");
    zf::switches_from_flat(switches.out<std::uint8_t>(), bad.out<std::int32_t>(), flat.in<std::int64_t>(),
                           maps_of(switches, width), windows(window, stride, before), pointer(stream));
}

inline void max_unpool(Array x, Array y, Array switches, Array bounds, Pair window, Pair stride, Pair before,
                       bool last_wins, Stream stream) {
    require(y.shape == switches.shape, "max_unpool: y and switches differ in shape");
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::max_unpool(x.out<T>(), y.in<T>(), switches.in<std::uint8_t>(), bounds_of(bounds, x.extent(0)), maps(x, y),
                       windows(window, stride, before), last_wins, pointer(stream));
    });
}

inline void average_pool(Array y, Array x, Array bounds, Array counted, Pair window, Pair stride, Pair before,
                         Stream stream) {
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::average_pool(y.out<T>(), x.in<T>(), bounds_of(bounds, x.extent(0)), bounds_of(counted, x.extent(0)),
                         maps(x, y), windows(window, stride, before), pointer(stream));
    });
}

inline void average_pool_gradient(Array dx, Array dy, Array bounds, Array counted, Pair window, Pair stride,
                                  Pair before, Stream stream) {
    with_storage(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::average_pool_gradient(dx.out<T>(), dy.in<T>(), bounds_of(bounds, dx.extent(0)),
                                  bounds_of(counted, dx.extent(0)), maps(dx, dy), windows(window, stride, before),
                                  pointer(stream));
    });
}

// Whole maps: `map` is (N, H, W, C), `vector` (N, C).
inline std::int64_t cells(const Array& map, const Array& vector) {
    require(map.shape.size() == 4 && vector.shape.size() == 2 && map.extent(0) == vector.extent(0) &&
                map.extent(3) == vector.extent(1),
            "whole-map pooling: shapes are not (N, H, W, C) and (N, C)");
    return map.extent(1) * map.extent(2);
}

inline void global_average_pool(Array y, Array x, Stream stream) {
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::global_average_pool(y.out<T>(), x.in<T>(), x.length(0), cells(x, y), x.length(3), pointer(stream));
    });
}

inline void global_average_pool_gradient(Array dx, Array dy, Stream stream) {
    with_storage(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::global_average_pool_gradient(dx.out<T>(), dy.in<T>(), dx.length(0), cells(dx, dy), dx.length(3),
                                         pointer(stream));
    });
}

inline void map_maximum(Array values, Array positions, Array x, Stream stream) {
    require(values.shape == positions.shape, "map_maximum: values and positions differ in shape");
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::map_maximum(values.out<T>(), positions.out<std::int32_t>(), x.in<T>(), x.length(0), cells(x, values),
                        x.length(3), pointer(stream));
    });
}

inline void global_max_pool_gradient(Array dx, Array dy, Array positions, Stream stream) {
    require(dy.shape == positions.shape, "global_max_pool_gradient: dy and positions differ in shape");
    with_storage(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::global_max_pool_gradient(dx.out<T>(), dy.in<T>(), positions.in<std::int32_t>(), dx.length(0), cells(dx, dy),
                                     dx.length(3), pointer(stream));
    });
}

}  // namespace zf::bindings
