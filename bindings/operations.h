// Every operation as a function of arrays: sizes come from the arrays' shapes, pointers go out to ops.h.
//
// The public functions in Python have checked the arguments; what is checked here keeps a wrong call
// from touching memory that is not its own. The list at the end is the only one: the Python module and
// the sanitizers' stand-alone program are both made from it.
#pragma once

#include <array>

#include "../csrc/ops.h"
#include "array.h"

namespace zf::bindings {

using Pair = std::array<int, 2>;
using Stream = std::uintptr_t;

inline void* pointer(Stream stream) { return reinterpret_cast<void*>(stream); }

// ----------------------------------------------------------------------------------------- pooling

inline Maps maps(const Array& large, const Array& small) {
    require(large.shape.size() == 4 && small.shape.size() == 4, "pooling: an array is not (N, H, W, C)");
    require(large.extent(0) == small.extent(0) && large.extent(3) == small.extent(3),
            "pooling: batch or channels differ");
    return {large.length(0), large.length(1), large.length(2), large.length(3), small.length(1), small.length(2)};
}

inline Windows windows(Pair window, Pair stride, Pair before) {
    return {window[0], window[1], stride[0], stride[1], before[0], before[1]};
}

// Null, or (N, 4) int32.
inline const Bounds* bounds_of(const Array& bounds, std::int64_t batch) {
    if (!bounds.data) return nullptr;
    require(bounds.shape.size() == 2 && bounds.extent(0) == batch && bounds.extent(1) == 4, "bounds are not (N, 4)");
    return reinterpret_cast<const Bounds*>(bounds.in<std::int32_t>());
}

inline void max_pool(Array y, Array switches, Array x, Array bounds, Pair window, Pair stride, Pair before,
                     Stream stream) {
    require(y.shape == switches.shape, "max_pool: y and switches differ in shape");
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::max_pool(y.out<T>(), switches.out<std::uint8_t>(), x.in<T>(), bounds_of(bounds, x.extent(0)), maps(x, y),
                     windows(window, stride, before), pointer(stream));
    });
}

// The map's size is in the bounds, which must be given: it has no array here.
inline void check_switches(Array bad, Array switches, Array bounds, Pair window, Pair stride, Pair before,
                           Stream stream) {
    require(switches.shape.size() == 4 && bad.size() == 1 && (bounds.data || !switches.extent(0)),
            "check_switches: wrong shapes");
    const Maps sizes{switches.length(0), 0, 0, switches.length(3), switches.length(1), switches.length(2)};
    zf::check_switches(bad.out<std::int32_t>(), switches.in<std::uint8_t>(), bounds_of(bounds, switches.extent(0)),
                       sizes, windows(window, stride, before), pointer(stream));
}

inline void max_unpool(Array x, Array y, Array switches, Array bounds, Pair window, Pair stride, Pair before,
                       bool last_wins, Stream stream) {
    require(y.shape == switches.shape, "max_unpool: y and switches differ in shape");
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::max_unpool(x.out<T>(), y.in<T>(), switches.in<std::uint8_t>(), bounds_of(bounds, x.extent(0)), maps(x, y),
                       windows(window, stride, before), last_wins, pointer(stream));
    });
}

inline void average_pool(Array y, Array x, Array bounds, Array counted, Pair window, Pair stride, Pair before,
                         Stream stream) {
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::average_pool(y.out<T>(), x.in<T>(), bounds_of(bounds, x.extent(0)), bounds_of(counted, x.extent(0)),
                         maps(x, y), windows(window, stride, before), pointer(stream));
    });
}

inline void average_pool_gradient(Array dx, Array dy, Array bounds, Array counted, Pair window, Pair stride,
                                  Pair before, Stream stream) {
    with_type(dx, [&](auto zero) {
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
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::global_average_pool(y.out<T>(), x.in<T>(), x.length(0), cells(x, y), x.length(3), pointer(stream));
    });
}

inline void global_average_pool_gradient(Array dx, Array dy, Stream stream) {
    with_type(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::global_average_pool_gradient(dx.out<T>(), dy.in<T>(), dx.length(0), cells(dx, dy), dx.length(3),
                                         pointer(stream));
    });
}

inline void map_maximum(Array values, Array positions, Array x, Stream stream) {
    require(values.shape == positions.shape, "map_maximum: values and positions differ in shape");
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::map_maximum(values.out<T>(), positions.out<std::int32_t>(), x.in<T>(), x.length(0), cells(x, values),
                        x.length(3), pointer(stream));
    });
}

inline void global_max_pool_gradient(Array dx, Array dy, Array positions, Stream stream) {
    require(dy.shape == positions.shape, "global_max_pool_gradient: dy and positions differ in shape");
    with_type(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::global_max_pool_gradient(dx.out<T>(), dy.in<T>(), positions.in<std::int32_t>(), dx.length(0), cells(dx, dy),
                                     dx.length(3), pointer(stream));
    });
}

// -------------------------------------------------------------------------------------------- list

template <class Define>
void operations(Define&& define) {
    define("max_pool", max_pool);
    define("check_switches", check_switches);
    define("max_unpool", max_unpool);
    define("average_pool", average_pool);
    define("average_pool_gradient", average_pool_gradient);
    define("global_average_pool", global_average_pool);
    define("global_average_pool_gradient", global_average_pool_gradient);
    define("map_maximum", map_maximum);
    define("global_max_pool_gradient", global_max_pool_gradient);
}

}  // namespace zf::bindings
