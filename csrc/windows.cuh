// Windows over maps: what pooling, and the convolutions fused with it, share.
#pragma once

#include "device.cuh"

namespace zf {

// Rectangle of an image's cells: a window clipped to the map, or the windows that cover a cell.
struct Range {
    int begin, end;
    __device__ bool empty() const { return begin >= end; }
    __device__ int size() const { return end - begin; }
};

__device__ __forceinline__ Range clip(int first, int size, int begin, int end) {
    return {max(first, begin), min(first + size, end)};
}

// Windows along one axis that cover cell `i`.
__device__ __forceinline__ Range covering(int i, int window, int stride, int before, int windows) {
    const int above = i + before - window + stride;
    return {above <= 0 ? 0 : above / stride, min((i + before) / stride + 1, windows)};
}

__device__ __forceinline__ Bounds bounds_of(const Bounds* bounds, int image, const Maps& maps) {
    return bounds ? bounds[image] : Bounds{0, maps.height, 0, maps.width};
}

// A NaN beats every number, and nothing beats a NaN: so the first one stays.
template <class T>
__device__ __forceinline__ bool wins(T value, T best) {
    return !(value <= best) && !is_nan(best);
}

// Index of the `width` channels from `channel` on; all arrays may exceed 2^31 elements.
__device__ __forceinline__ std::int64_t at(int image, int row, int column, int channel, int rows, int columns,
                                           int channels) {
    return ((std::int64_t(image) * rows + row) * columns + column) * channels + channel;
}

// `width` channels of cell (r, s) of the unpooled map: the values of the windows that cover it and chose it, in
// raster order, added or the last one's; the cell lies inside its bounds. An axis has one or two such windows almost
// always: unrolled loops are code that nobody runs.
template <bool last_wins, int width, class T>
__device__ __forceinline__ Vector<Wide<T>, width> unpooled(const T* y, const std::uint8_t* switches, const Range& down,
                                                           const Range& across, int n, int r, int s, int channel,
                                                           const Maps& maps, const Windows& window) {
    Vector<Wide<T>, width> total{};
#pragma unroll 1
    for (int p = down.begin; p < down.end; ++p)
#pragma unroll 1
        for (int q = across.begin; q < across.end; ++q) {
            const std::int64_t from = at(n, p, q, channel, maps.rows, maps.columns, maps.channels);
            auto value = load<width>(y + from);
            keep_whole(value);
            const auto which = load<width>(switches + from);
            const int code = (r + window.top - p * window.stride_vertical) * window.width + s + window.left -
                             q * window.stride_horizontal;
#pragma unroll
            for (int i = 0; i < width; ++i)
                if (which[i] == code) total[i] = last_wins ? value[i] : total[i] + value[i];
        }
    return total;
}

// A row of an output array, cut into vectors of `width` channels: 256 threads along the row's vectors
// (channels fastest, so neighbours read neighbours), y steps through rows, z through images.
template <int width>
struct Place {
    int column, channel;
    bool valid;
    __device__ Place(int columns, int channels) {
        const unsigned vectors = unsigned(channels) / width, item = blockIdx.x * blockDim.x + threadIdx.x;
        column = int(item / vectors);
        channel = int(item % vectors) * width;
        valid = column < columns;
    }
};

// One launch of that geometry, for an output of `rows` x `columns`.
template <int width>
inline Launch over_rows(const Maps& maps, int rows, int columns, void* stream) {
    return {{blocks_x(std::int64_t(columns) * (maps.channels / width), 256), blocks_yz(rows), blocks_yz(maps.batch)},
            256, stream};
}

inline void check(const Maps& maps, const Windows& window) {
    ZF_CHECK(maps.batch >= 0 && maps.height >= 0 && maps.width >= 0 && maps.channels >= 0 && maps.rows >= 0 &&
                 maps.columns >= 0,
             "pooling: sizes must not be negative");
    ZF_CHECK(window.height >= 1 && window.width >= 1 && window.stride_vertical >= 1 && window.stride_horizontal >= 1,
             "pooling: windows and strides must be at least 1");
    ZF_CHECK(window.top >= 0 && window.left >= 0, "pooling: padding must not be negative");
    // The kernels count cells of one axis, and of one row's vectors, in 32 bits.
    const auto far = [](std::int64_t count, std::int64_t stride, std::int64_t size) {
        return count * stride + size >= 0x7fffffff;
    };
    ZF_CHECK(!far(maps.rows, window.stride_vertical, window.height) &&
                 !far(maps.columns, window.stride_horizontal, window.width) &&
                 std::int64_t(maps.channels) * max(maps.columns, maps.width) < 0x7fffffff,
             "pooling: rows of a map must be shorter than 2^31 elements");
}

inline void check_area(const Windows& window) {
    ZF_CHECK(window.height * std::int64_t(window.width) <= 256, "pooling: a switch holds windows of at most 256 cells");
}

}  // namespace zf
