// What the fused chains share, on plain arithmetic and on tensor cores: patches of pooled windows, the map that
// unpooling would have written, and the tensor-core launchers.
#pragma once

#include "gather.cuh"
#include "windows.cuh"

namespace zf {

// ------------------------------------------------------------------------------------------ patches

// A patch of pooled cells, and the convolution's cells under it: as many as a block computes at most.
struct Patch {
    int rows, columns;  // windows
    int height, width;  // cells that they cover
    int patches_down, patches_across;
    std::int64_t count() const { return std::int64_t(patches_down) * patches_across; }
};

// The shape with the fewest patches a map, as every patch costs a block; of equals the one of fewer cells, then the
// first. No windows: none fits.
inline Patch choose_patch(const Maps& maps, const Windows& window, int cells) {
    Patch best{};
    for (int rows = 1; rows <= min(maps.rows, cells); ++rows)
        for (int columns = 1; columns <= min(maps.columns, cells); ++columns) {
            const std::int64_t height = std::int64_t(rows - 1) * window.stride_vertical + window.height;
            const std::int64_t width = std::int64_t(columns - 1) * window.stride_horizontal + window.width;
            if (height * width > cells) break;
            const Patch patch{rows,          columns,       int(height), int(width), divide_up(maps.rows, rows),
                              divide_up(maps.columns, columns)};
            const std::int64_t fewer = best.rows ? best.count() - patch.count() : 1;
            if (fewer > 0 || (!fewer && height * width < std::int64_t(best.height) * best.width)) best = patch;
        }
    return best;
}

// A block's patch: image, first window, first cell under it.
struct Patched {
    int image, first_p, first_q, top, left;
    __device__ Patched(unsigned block, const Patch& patch, const Windows& window) {
        const unsigned patches = unsigned(patch.patches_down) * patch.patches_across;
        const int number = int(block % patches);
        image = int(block / patches);
        first_p = number / patch.patches_across * patch.rows;
        first_q = number % patch.patches_across * patch.columns;
        top = first_p * window.stride_vertical - window.top;
        left = first_q * window.stride_horizontal - window.left;
    }
    // Cell i under the patch; none beyond it, or outside the map.
    __device__ Cell cell(int i, const Patch& patch, const Maps& maps) const {
        const int r = top + i / patch.width, s = left + i % patch.width;
        const bool inside = i < patch.height * patch.width && within(r, maps.height) && within(s, maps.width);
        return {inside ? image : -1, r, s};
    }
};

// Pools the patch's windows over `columns` filters from first_column on, `width` of them a thread at once. cell(i) tells
// where the filters of cell i under the patch begin in shared memory; they are as they would be in memory.
template <int columns, int width, class T, class C>
__device__ __forceinline__ void pool_patch(T* __restrict__ y, std::uint8_t* __restrict__ switches, const C& cell,
                                           const Patched& block, const Patch& patch, const Bounds* __restrict__ bounds,
                                           const Maps& maps, const Windows& window, const Gather& g, int group,
                                           int first_column) {
    constexpr int vectors = columns / width;
    const Bounds inside = bounds_of(bounds, block.image, maps);
    for (int item = threadIdx.x; item < patch.rows * patch.columns * vectors; item += tile_threads) {
        const int place = item / vectors, own = item % vectors * width, filter = first_column + own;
        if (filter >= g.width) continue;
        const int p = block.first_p + place / patch.columns, q = block.first_q + place % patch.columns;
        if (p >= maps.rows || q >= maps.columns) continue;
        const int row = p * window.stride_vertical - window.top, column = q * window.stride_horizontal - window.left;
        const Range down = clip(row, window.height, inside.top, inside.bottom);
        const Range across = clip(column, window.width, inside.left, inside.right);
        Vector<Wide<T>, width> best{};
        int which[width] = {};
        bool first = true;
        for (int r = down.begin; r < down.end; ++r)
            for (int s = across.begin; s < across.end; ++s, first = false) {
                auto value = load<width>(cell((r - block.top) * patch.width + s - block.left) + own);
                if constexpr (width > 1) keep_whole(value);
                const int code = (r - row) * window.width + s - column;
#pragma unroll
                for (int i = 0; i < width; ++i)
                    if (first || wins(value[i], best[i])) best[i] = value[i], which[i] = code;
            }
        const std::int64_t out = at(block.image, p, q, group * g.width + filter, maps.rows, maps.columns, maps.channels);
        Vector<std::uint8_t, width> codes;
#pragma unroll
        for (int i = 0; i < width; ++i) codes[i] = std::uint8_t(which[i]);
        store<T, width>(y + out, best);
        store<std::uint8_t, width>(switches + out, codes);
    }
}

// ---------------------------------------------------------------------------------------- unpooled

// The map that unpooling would have written, and rectification passed on, made cell by cell, `width` channels at once.
template <class T, bool last_wins>
struct Unpooled {
    using Image = int;
    const T* y;
    const std::uint8_t* switches;
    const Bounds* bounds;
    Maps maps;
    Windows window;
    bool rectify;
    __device__ Image image(int n) const { return n; }
    template <int width>
    __device__ Vector<Wide<T>, width> values(int n, int r, int s, int channel) const {
        const Bounds inside = bounds_of(bounds, n, maps);
        if (r < inside.top || r >= inside.bottom || s < inside.left || s >= inside.right) return {};
        return values<width>(n, r, s, covering(r, window.height, window.stride_vertical, window.top, maps.rows),
                             covering(s, window.width, window.stride_horizontal, window.left, maps.columns), channel);
    }
    // Of the windows that cover the cell, none where it lies outside.
    template <int width>
    __device__ Vector<Wide<T>, width> values(int n, int r, int s, const Range& down, const Range& across,
                                             int channel) const {
        auto total = unpooled<last_wins, width>(y, switches, down, across, n, r, s, channel, maps, window);
#pragma unroll
        for (int i = 0; i < width; ++i) {
            total[i] = rounded<T>(total[i]);
            if (rectify && total[i] <= 0) total[i] = 0;
        }
        return total;
    }
    __device__ Wide<T> operator()(Image n, int r, int s, int channel) const { return values<1>(n, r, s, channel)[0]; }
};

// ------------------------------------------------------------------------------------ tensor cores

constexpr int most_image_channels = 8;

// A factor as it goes into the tensor core, once and for all products: floats are rounded.
template <class T>
__device__ __forceinline__ T to_factor(T x) {
    if constexpr (std::is_same_v<T, float>)
        return bits_to_float(to_tf32(x));
    else
        return x;
}

// In chains_tensor.cu, for float (factors rounded to tf32, or split in two), float16 and bfloat16; arguments have been
// checked. False, and nothing done, where the device has no such tensor cores.
template <class T>
bool convolution_pool_tensor(T* y, std::uint8_t* switches, const T* x, const T* weight, const float* bias,
                             const Bounds* bounds, const Gather&, int groups, bool relu, const Maps&, const Windows&,
                             Precision, void* stream);
// In chains_image_up.cu: the same but for split factors, and false besides where the convolution's input is no image of
// few channels.
template <class T>
bool convolution_pool_image(T* y, std::uint8_t* switches, const T* x, const T* weight, const float* bias,
                            const Bounds* bounds, const Gather&, int groups, bool relu, const Maps&, const Windows&,
                            void* stream);
template <class T, bool last_wins>
bool unpool_filter_tensor(T* dx, const Unpooled<T, last_wins>& map, const T* weight, const Convolution&, Precision,
                          void* stream);
// In chains_image_down.cu: the same but for split factors, and false besides where the convolution's input is no image of
// few channels.
template <class T, bool last_wins>
bool unpool_filter_image(T* dx, const Unpooled<T, last_wins>& map, const T* weight, const Convolution&, void* stream);

}  // namespace zf
