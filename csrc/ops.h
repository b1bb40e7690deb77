// zfcore's operations in C++: all that another program needs to include. Link with the library.
//
// Activations are NHWC, filters KRSC, dense and in device memory. Arguments: outputs, inputs,
// sizes, the stream last (a cudaStream_t as void*; null is the default stream). Outputs may not
// overlap inputs unless an operation says so. Nothing is allocated, nothing waits for the device.
// T is float or double. Sizes are checked before a launch: std::invalid_argument; a failed launch
// is std::runtime_error. A batch of 0 does nothing.
#pragma once

#include <cstdint>

namespace zf {

// Part of an array's rows [top, bottom) and columns [left, right) that lies in the map; one for each
// image, in device memory. Cells outside are padding: so crops of a larger map keep the true border.
// Null where arrays are whole maps.
struct Bounds {
    std::int32_t top, bottom, left, right;
};

// ----------------------------------------------------------------------------------------- pooling

// Output cell (p, q) looks at `height` x `width` cells from (p * stride_vertical - top,
// q * stride_horizontal - left) on.
struct Windows {
    int height, width;
    int stride_vertical, stride_horizontal;
    int top, left;
};

// Sizes of a pooling's input (batch, height, width, channels) and output (batch, rows, columns, channels).
struct Maps {
    int batch, height, width, channels;
    int rows, columns;
};

// Largest value of each window and its place in the unclipped window, r * width + c. Ties: the
// first in raster order; the first NaN wins. A window outside the map gives 0, switch 0.
template <class T>
void max_pool(T* y, std::uint8_t* switches, const T* x, const Bounds* bounds, const Maps&, const Windows&, void* stream);

// *bad becomes 1 where a switch points outside its window or the map, and is left alone otherwise.
void check_switches(std::int32_t* bad, const std::uint8_t* switches, const Bounds* bounds, const Maps&, const Windows&,
                    void* stream);

// Each value to its switch, 0 elsewhere. Windows that share a cell: their sum in raster order (then it
// is max_pool's gradient), or the last one's value. A bad switch reaches no cell: nothing is written astray.
template <class T>
void max_unpool(T* x, const T* y, const std::uint8_t* switches, const Bounds* bounds, const Maps&, const Windows&,
                bool last_wins, void* stream);

// Sum of a window's cells in the map, over the number of its cells inside `counted` (null: as `bounds`).
template <class T>
void average_pool(T* y, const T* x, const Bounds* bounds, const Bounds* counted, const Maps&, const Windows&,
                  void* stream);

template <class T>
void average_pool_gradient(T* dx, const T* dy, const Bounds* bounds, const Bounds* counted, const Maps&, const Windows&,
                           void* stream);

// One value a channel: y is (batch, channels), x (batch, cells, channels).
template <class T>
void global_average_pool(T* y, const T* x, int batch, std::int64_t cells, int channels, void* stream);

template <class T>
void global_average_pool_gradient(T* dx, const T* dy, int batch, std::int64_t cells, int channels, void* stream);

// Largest value of each map and its first position, row * width + column; the first NaN wins.
template <class T>
void map_maximum(T* values, std::int32_t* positions, const T* x, int batch, std::int64_t cells, int channels,
                 void* stream);

template <class T>
void global_max_pool_gradient(T* dx, const T* dy, const std::int32_t* positions, int batch, std::int64_t cells,
                              int channels, void* stream);

}  // namespace zf
