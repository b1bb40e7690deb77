// Pooling: maxima with switches, unpooling, averages, whole-map averages and maxima. windows.cuh has the geometry.
//
// Everything gathers: a thread owns its output cells and visits, in raster order, what they depend
// on. So no sum depends on a schedule, and nothing is zeroed first.
#include "windows.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// Output (rows, columns). Reads each window once: neighbouring windows meet in the caches.
template <class T, int width>
__global__ void __launch_bounds__(256, 4)
max_pool_kernel(T* __restrict__ y, std::uint8_t* __restrict__ switches, const T* __restrict__ x,
                const Bounds* __restrict__ bounds, Maps maps, Windows window) {
    const Place<width> place(maps.columns, maps.channels);
    if (!place.valid) return;
    for (int n = blockIdx.z; n < maps.batch; n += gridDim.z) {
        const Bounds inside = bounds_of(bounds, n, maps);
        const int column = place.column * window.stride_horizontal - window.left;
        const Range columns = clip(column, window.width, inside.left, inside.right);
        for (int p = blockIdx.y; p < maps.rows; p += gridDim.y) {
            const int row = p * window.stride_vertical - window.top;
            const Range rows = clip(row, window.height, inside.top, inside.bottom);
            Vector<Wide<T>, width> best{};
            Vector<std::uint8_t, width> which{};
            bool first = true;
            if (!columns.empty())
                for (int r = rows.begin; r < rows.end; ++r)
                    for (int s = columns.begin; s < columns.end; ++s, first = false) {
                        const auto cell = load<width>(x + at(n, r, s, place.channel, maps.height, maps.width, maps.channels));
                        const auto code = std::uint8_t((r - row) * window.width + s - column);
#pragma unroll
                        for (int i = 0; i < width; ++i)
                            if (first || wins(cell[i], best[i])) best[i] = cell[i], which[i] = code;
                    }
            const std::int64_t out = at(n, p, place.column, place.channel, maps.rows, maps.columns, maps.channels);
            store(y + out, best);
            store(switches + out, which);
        }
    }
}

// Output: the larger map (height, width). A cell asks the windows that cover it whether they chose it.
template <class T, int width, bool last_wins>
__global__ void __launch_bounds__(256, 4)
max_unpool_kernel(T* __restrict__ x, const T* __restrict__ y, const std::uint8_t* __restrict__ switches,
                  const Bounds* __restrict__ bounds, Maps maps, Windows window) {
    const Place<width> place(maps.width, maps.channels);
    if (!place.valid) return;
    const Range across =
        covering(place.column, window.width, window.stride_horizontal, window.left, maps.columns);
    for (int n = blockIdx.z; n < maps.batch; n += gridDim.z) {
        const Bounds inside = bounds_of(bounds, n, maps);
        const bool inside_columns = place.column >= inside.left && place.column < inside.right;
        for (int r = blockIdx.y; r < maps.height; r += gridDim.y) {
            const Range down = covering(r, window.height, window.stride_vertical, window.top, maps.rows);
            Vector<Wide<T>, width> total{};
            if (inside_columns && r >= inside.top && r < inside.bottom)
                total = unpooled<last_wins, width>(y, switches, down, across, n, r, place.column, place.channel, maps, window);
            store(x + at(n, r, place.column, place.channel, maps.height, maps.width, maps.channels), total);
        }
    }
}

// Output (rows, columns). For compute capability 10.0 a division is a call: four blocks' registers would be too few.
template <class T, int width>
__global__ void __launch_bounds__(256, sizeof(T) == 8 ? 2 : 3)
average_pool_kernel(T* __restrict__ y, const T* __restrict__ x, const Bounds* __restrict__ bounds,
                    const Bounds* __restrict__ counted, Maps maps, Windows window) {
    const Place<width> place(maps.columns, maps.channels);
    if (!place.valid) return;
    for (int n = blockIdx.z; n < maps.batch; n += gridDim.z) {
        const Bounds inside = bounds_of(bounds, n, maps), counts = bounds_of(counted, n, maps);
        const int column = place.column * window.stride_horizontal - window.left;
        const Range columns = clip(column, window.width, inside.left, inside.right);
        const int wide = clip(column, window.width, counts.left, counts.right).size();
        for (int p = blockIdx.y; p < maps.rows; p += gridDim.y) {
            const int row = p * window.stride_vertical - window.top;
            const Range rows = clip(row, window.height, inside.top, inside.bottom);
            Vector<Wide<T>, width> total{};
            if (!rows.empty() && !columns.empty()) {
                for (int r = rows.begin; r < rows.end; ++r)
                    for (int s = columns.begin; s < columns.end; ++s) {
                        const auto cell = load<width>(x + at(n, r, s, place.channel, maps.height, maps.width, maps.channels));
#pragma unroll
                        for (int i = 0; i < width; ++i) total[i] += cell[i];
                    }
                const Wide<T> count = Wide<T>(clip(row, window.height, counts.top, counts.bottom).size() * wide);
#pragma unroll
                for (int i = 0; i < width; ++i) total[i] /= count;
            }
            store(y + at(n, p, place.column, place.channel, maps.rows, maps.columns, maps.channels), total);
        }
    }
}

// Output: the larger map (height, width); a cell sums dy / count of the windows that cover it.
template <class T, int width>
__global__ void __launch_bounds__(256, sizeof(T) == 8 ? 2 : 3)
average_pool_gradient_kernel(T* __restrict__ dx, const T* __restrict__ dy, const Bounds* __restrict__ bounds,
                             const Bounds* __restrict__ counted, Maps maps, Windows window) {
    const Place<width> place(maps.width, maps.channels);
    if (!place.valid) return;
    const Range across =
        covering(place.column, window.width, window.stride_horizontal, window.left, maps.columns);
    for (int n = blockIdx.z; n < maps.batch; n += gridDim.z) {
        const Bounds inside = bounds_of(bounds, n, maps), counts = bounds_of(counted, n, maps);
        const bool inside_columns = place.column >= inside.left && place.column < inside.right;
        for (int r = blockIdx.y; r < maps.height; r += gridDim.y) {
            const Range down = covering(r, window.height, window.stride_vertical, window.top, maps.rows);
            Vector<Wide<T>, width> total{};
            if (inside_columns && r >= inside.top && r < inside.bottom)
                for (int p = down.begin; p < down.end; ++p) {
                    const int tall =
                        clip(p * window.stride_vertical - window.top, window.height, counts.top, counts.bottom).size();
                    for (int q = across.begin; q < across.end; ++q) {
                        const int wide = clip(q * window.stride_horizontal - window.left, window.width, counts.left,
                                              counts.right).size();
                        const Wide<T> count = Wide<T>(tall * wide);
                        const auto signal =
                            load<width>(dy + at(n, p, q, place.channel, maps.rows, maps.columns, maps.channels));
#pragma unroll
                        for (int i = 0; i < width; ++i) total[i] += signal[i] / count;
                    }
                }
            store(dx + at(n, r, place.column, place.channel, maps.height, maps.width, maps.channels), total);
        }
    }
}

// Output (batch, channels), a thread each, which adds its cells in raster order: the order is worth
// more than the parallelism, for the maps are small where nets average them.
template <class T>
__global__ void __launch_bounds__(64)
global_average_pool_kernel(T* __restrict__ y, const T* __restrict__ x, std::int64_t outputs, std::int64_t cells,
                           int channels) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= outputs) return;
    const T* cell = x + item / channels * cells * channels + item % channels;
    Wide<T> total = 0;
    for (std::int64_t i = 0; i < cells; ++i, cell += channels) total += widen(*cell);
    y[item] = narrow<T>(total / Wide<T>(cells));
}

// Output (batch, cells, channels), a thread each.
template <class T>
__global__ void __launch_bounds__(256, 4)
global_average_pool_gradient_kernel(T* __restrict__ dx, const T* __restrict__ dy, std::int64_t elements,
                                    std::int64_t cells, int channels) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item < elements)
        dx[item] = narrow<T>(widen(dy[item / (cells * channels) * channels + item % channels]) / Wide<T>(cells));
}

constexpr int segments = 8;

// A block: 32 maps of one image (x) times 8 consecutive parts of their cells (y), each searched in
// order by one thread; then the first part's threads take the winners in the order of the parts.
template <class T>
__global__ void __launch_bounds__(32 * segments)
map_maximum_kernel(T* __restrict__ values, std::int32_t* __restrict__ positions, const T* __restrict__ x, int cells,
                   int channels, int channel_blocks) {
    SHARED_ARRAY(Wide<T>, part_values, [segments][32]);
    SHARED_ARRAY(std::int32_t, part_positions, [segments][32]);
    const int lane = threadIdx.x, segment = threadIdx.y;
    const std::int64_t image = blockIdx.x / channel_blocks;
    const int channel = int(blockIdx.x % channel_blocks) * 32 + lane;
    const int part = divide_up(cells, segments), end = min((segment + 1) * part, cells);
    std::int32_t position = -1;
    Wide<T> best = 0;
    if (channel < channels) {
        const T* cell = x + (image * cells + std::int64_t(segment) * part) * channels + channel;
        for (int i = segment * part; i < end; ++i, cell += channels)
            if (position < 0 || wins(widen(*cell), best)) best = widen(*cell), position = i;
    }
    part_values[segment][lane] = best;
    part_positions[segment][lane] = position;
    __syncthreads();
    if (segment > 0 || channel >= channels) return;
    for (int s = 1; s < segments; ++s)
        if (part_positions[s][lane] >= 0 && wins(part_values[s][lane], best))
            best = part_values[s][lane], position = part_positions[s][lane];
    values[image * channels + channel] = narrow<T>(best);
    positions[image * channels + channel] = position;
}

// Output (batch, cells, channels), a thread each; positions outside the map reach no cell.
template <class T>
__global__ void __launch_bounds__(256, 4)
global_max_pool_gradient_kernel(T* __restrict__ dx, const T* __restrict__ dy,
                                const std::int32_t* __restrict__ positions, std::int64_t elements, std::int64_t cells,
                                int channels) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= elements) return;
    const std::int64_t map = item / (cells * channels) * channels + item % channels;
    dx[item] = positions[map] == item / channels % cells ? dy[map] : T{};
}

// --------------------------------------------------------------------------------------- launchers

template <class T>
bool vectorises(int channels, const T* a, const T* b, const std::uint8_t* switches = nullptr) {
    return channels % full_width<T> == 0 && aligned(a, 16) && aligned(b, 16) && aligned(switches, full_width<T>);
}

}  // namespace

template <class T>
void max_pool(T* y, std::uint8_t* switches, const T* x, const Bounds* bounds, const Maps& maps, const Windows& window,
              void* stream) {
    check(maps, window);
    check_area(window);
    if (vectorises(maps.channels, y, x, switches))
        launch(over_rows<full_width<T>>(maps, maps.rows, maps.columns, stream), max_pool_kernel<T, full_width<T>>, y,
               switches, x, bounds, maps, window);
    else
        launch(over_rows<1>(maps, maps.rows, maps.columns, stream), max_pool_kernel<T, 1>, y, switches, x, bounds, maps,
               window);
}

template <class T>
void max_unpool(T* x, const T* y, const std::uint8_t* switches, const Bounds* bounds, const Maps& maps,
                const Windows& window, bool last_wins, void* stream) {
    check(maps, window);
    check_area(window);
    const bool vectors = vectorises(maps.channels, x, y, switches);
    constexpr int full = full_width<T>;
    const auto kernel = vectors ? last_wins ? max_unpool_kernel<T, full, true> : max_unpool_kernel<T, full, false>
                                : last_wins ? max_unpool_kernel<T, 1, true> : max_unpool_kernel<T, 1, false>;
    launch(vectors ? over_rows<full>(maps, maps.height, maps.width, stream)
                   : over_rows<1>(maps, maps.height, maps.width, stream),
           kernel, x, y, switches, bounds, maps, window);
}

template <class T>
void average_pool(T* y, const T* x, const Bounds* bounds, const Bounds* counted, const Maps& maps,
                  const Windows& window, void* stream) {
    check(maps, window);
    if (!counted) counted = bounds;
    if (vectorises(maps.channels, y, x))
        launch(over_rows<full_width<T>>(maps, maps.rows, maps.columns, stream), average_pool_kernel<T, full_width<T>>, y,
               x, bounds, counted, maps, window);
    else
        launch(over_rows<1>(maps, maps.rows, maps.columns, stream), average_pool_kernel<T, 1>, y, x, bounds, counted,
               maps, window);
}

template <class T>
void average_pool_gradient(T* dx, const T* dy, const Bounds* bounds, const Bounds* counted, const Maps& maps,
                           const Windows& window, void* stream) {
    check(maps, window);
    if (!counted) counted = bounds;
    if (vectorises(maps.channels, dx, dy))
        launch(over_rows<full_width<T>>(maps, maps.height, maps.width, stream),
               average_pool_gradient_kernel<T, full_width<T>>, dx, dy, bounds, counted, maps, window);
    else
        launch(over_rows<1>(maps, maps.height, maps.width, stream), average_pool_gradient_kernel<T, 1>, dx, dy, bounds,
               counted, maps, window);
}

template <class T>
void global_average_pool(T* y, const T* x, int batch, std::int64_t cells, int channels, void* stream) {
    const std::int64_t outputs = std::int64_t(batch) * channels;
    ZF_CHECK(batch >= 0 && cells >= 1 && channels >= 0, "global_average_pool: maps must have a cell");
    launch({blocks_x(outputs, 64), 64, stream}, global_average_pool_kernel<T>, y, x, outputs, cells, channels);
}

template <class T>
void global_average_pool_gradient(T* dx, const T* dy, int batch, std::int64_t cells, int channels, void* stream) {
    const std::int64_t elements = std::int64_t(batch) * cells * channels;
    ZF_CHECK(batch >= 0 && cells >= 0 && channels >= 0, "global_average_pool_gradient: sizes must not be negative");
    launch({blocks_x(elements, 256), 256, stream}, global_average_pool_gradient_kernel<T>, dx, dy, elements, cells,
           channels);
}

template <class T>
void map_maximum(T* values, std::int32_t* positions, const T* x, int batch, std::int64_t cells, int channels,
                 void* stream) {
    ZF_CHECK(batch >= 0 && cells >= 1 && channels >= 0, "map_maximum: maps must have a cell");
    ZF_CHECK(cells < 0x7fffffff - segments, "map_maximum: a position holds maps of fewer than 2^31 cells");
    const int channel_blocks = divide_up(channels, 32);
    launch({blocks_x(std::int64_t(batch) * channel_blocks, 1), {32, segments}, stream}, map_maximum_kernel<T>, values,
           positions, x, int(cells), channels, channel_blocks);
}

template <class T>
void global_max_pool_gradient(T* dx, const T* dy, const std::int32_t* positions, int batch, std::int64_t cells,
                              int channels, void* stream) {
    const std::int64_t elements = std::int64_t(batch) * cells * channels;
    ZF_CHECK(batch >= 0 && cells >= 0 && channels >= 0, "global_max_pool_gradient: sizes must not be negative");
    launch({blocks_x(elements, 256), 256, stream}, global_max_pool_gradient_kernel<T>, dx, dy, positions, elements,
           cells, channels);
}

#define INSTANTIATE(T) \
    template void max_pool(T*, std::uint8_t*, const T*, const Bounds*, const Maps&, const Windows&, void*); \
    template void max_unpool(T*, const T*, const std::uint8_t*, const Bounds*, const Maps&, const Windows&, bool, void*); \
    template void average_pool(T*, const T*, const Bounds*, const Bounds*, const Maps&, const Windows&, void*); \
    template void average_pool_gradient(T*, const T*, const Bounds*, const Bounds*, const Maps&, const Windows&, void*); \
    template void global_average_pool(T*, const T*, int, std::int64_t, int, void*); \
    template void global_average_pool_gradient(T*, const T*, int, std::int64_t, int, void*); \
    template void map_maximum(T*, std::int32_t*, const T*, int, std::int64_t, int, void*); \
    template void global_max_pool_gradient(T*, const T*, const std::int32_t*, int, std::int64_t, int, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
