// Convolution's weight gradient as an implicit matrix product on plain arithmetic: the terms are cells, cut into
// parts by sizes alone, summed in order within a part and then part by part.
#include "gather.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// parts[part][filter][tap, channel] = sum over the part's cells of dy times the patches of x. Grid: x over
// tiles of (tap, channel), y over tiles of a group's filters, z over groups times parts. Thread t loads
// columns t % 64 of cells t / 64 + 4 i: neighbours in memory both of dy and of x.
template <class T>
__global__ void __launch_bounds__(tile_threads, sizeof(T) == 8 ? 1 : 2)
weight_gradient_kernel(Wide<T>* __restrict__ parts, const T* __restrict__ dy, const T* __restrict__ x, Convolution shape,
                       int part_cells) {
    SHARED_ARRAY(Wide<T>, tiles, [4][tile_step][tile_padded]);
    const int t = threadIdx.x, slow = t / tile, fast = t % tile;
    const int group = int(blockIdx.z) % shape.groups, part = int(blockIdx.z) / shape.groups;
    const int filters = shape.filters / shape.groups, channels = shape.channels / shape.groups;
    const int weights = shape.window_height * shape.window_width * channels;
    const int cells = shape.batch * shape.rows * shape.columns;
    const int begin = part * part_cells, end = min(begin + part_cells, cells);
    const int first_filter = int(blockIdx.y) * tile, first_weight = int(blockIdx.x) * tile;

    const int weight = first_weight + fast, tap = weight / channels, channel = weight % channels;
    const int tap_row = tap / shape.window_width * shape.dilation_vertical - shape.top;
    const int tap_column = tap % shape.window_width * shape.dilation_horizontal - shape.left;
    const bool has_filter = first_filter + fast < filters, has_weight = weight < weights;

    const Radix map{shape.rows, shape.columns};
    const Digits per_row = map.of(tile_threads / tile);
    Digits at = map.of(begin + slow);

    Wide<T> next_rows[4], next_columns[4];
    const auto fetch = [&](int from) {
#pragma unroll
        for (int i = 0; i < 4; ++i, map.advance(at, per_row)) {
            const int cell = from + slow + i * 4;
            next_rows[i] = next_columns[i] = 0;
            if (cell >= end) continue;
            if (has_filter)
                next_rows[i] = widen(dy[std::int64_t(cell) * shape.filters + group * filters + first_filter + fast]);
            const int r = at.middle * shape.stride_vertical + tap_row, s = at.low * shape.stride_horizontal + tap_column;
            if (has_weight && within(r, shape.height) && within(s, shape.width))
                next_columns[i] = widen(x[((std::int64_t(at.high) * shape.height + r) * shape.width + s) * shape.channels +
                                          group * channels + channel]);
        }
    };
    const auto put = [&](int half) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            tiles[half][slow + i * 4][fast] = next_rows[i];
            tiles[2 + half][slow + i * 4][fast] = next_columns[i];
        }
    };

    Wide<T> results[4][4] = {};
    add_products(results, tiles, begin, end, fetch, put);

    const int down = t / 16, across = t % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int filter = first_filter + down * 4 + i;
        if (filter >= filters) break;
        Wide<T>* place = parts + ((std::int64_t(part) * shape.filters) + group * filters + filter) * weights;
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (first_weight + across * 4 + j < weights) place[first_weight + across * 4 + j] = results[i][j];
    }
}

// The same for groups of few filters, depthwise above all: a thread owns one weight of a part (y of the grid), filters
// fastest, so that neighbours read neighbours both of dy and of x. The same terms in the same order.
template <class T>
__global__ void __launch_bounds__(256)
narrow_weight_gradient_kernel(Wide<T>* __restrict__ parts, const T* __restrict__ dy, const T* __restrict__ x,
                              Convolution shape, int part_cells, std::int64_t elements) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= elements) return;
    const int channels = shape.channels / shape.groups, filters = shape.filters / shape.groups;
    const int filter = int(item % shape.filters), weight = int(item / shape.filters);
    const int tap = weight / channels, channel = filter / filters * channels + weight % channels;
    const int tap_row = tap / shape.window_width * shape.dilation_vertical - shape.top;
    const int tap_column = tap % shape.window_width * shape.dilation_horizontal - shape.left;
    const int part = blockIdx.y, begin = part * part_cells;
    const int end = min(begin + part_cells, shape.batch * shape.rows * shape.columns);
    Wide<T> sum = 0;
    for (int cell = begin; cell < end; ++cell) {
        const int q = cell % shape.columns, p = cell / shape.columns % shape.rows, n = cell / shape.columns / shape.rows;
        const int r = p * shape.stride_vertical + tap_row, s = q * shape.stride_horizontal + tap_column;
        if (r < 0 || r >= shape.height || s < 0 || s >= shape.width) continue;
        sum = fma(widen(dy[std::int64_t(cell) * shape.filters + filter]),
                  widen(x[((std::int64_t(n) * shape.height + r) * shape.width + s) * shape.channels + channel]), sum);
    }
    const std::int64_t weights = elements / shape.filters;
    parts[(std::int64_t(part) * shape.filters + filter) * weights + weight] = sum;
}

// A thread adds one weight's parts in their order.
template <class T>
__global__ void __launch_bounds__(256)
add_parts_kernel(T* __restrict__ dweight, const T* __restrict__ workspace, std::int64_t size, int parts) {
    const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    T total = 0;
    for (int part = 0; part < parts; ++part) total += workspace[part * size + i];
    dweight[i] = total;
}

// --------------------------------------------------------------------------------------- launchers

// Cells in one part of a weight gradient: enough blocks to fill a device, cut by sizes alone.
int cells_in_part(const Convolution& c) {
    const std::int64_t cells = std::int64_t(c.batch) * c.rows * c.columns;
    const std::int64_t weights = std::int64_t(c.window_height) * c.window_width * (c.channels / c.groups);
    const std::int64_t tiles = is_narrow(c.groups, c.filters / c.groups)
                                   ? divide_up(weights * c.filters, std::int64_t(256))
                                   : divide_up(weights, std::int64_t(tile)) * divide_up(c.filters / c.groups, tile) * c.groups;
    const std::int64_t wanted = max(std::int64_t(1), min(std::int64_t(256) / tiles, std::int64_t(65535) / c.groups));
    const std::int64_t part = divide_up(divide_up(max(cells, std::int64_t(1)), wanted), std::int64_t(tile_step)) * tile_step;
    return int(max(part, std::int64_t(16) * tile_step));
}

}  // namespace

int weight_gradient_parts(const Convolution& c) {
    check(c);
    return int(divide_up(max(c.batch * c.rows * c.columns, 1), cells_in_part(c)));
}

template <class T>
void convolution_weight_gradient(Wide<T>* dweight, Wide<T>* workspace, const T* dy, const T* x, const Convolution& c,
                                 Precision precision, void* stream) {
    const int parts = weight_gradient_parts(c), filters = c.filters / c.groups;
    const std::int64_t weights = std::int64_t(c.window_height) * c.window_width * (c.channels / c.groups);
    const unsigned tiles = blocks_yz(divide_up(filters, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= filters, "convolution_weight_gradient: too many filters");
    Wide<T>* out = parts == 1 ? dweight : workspace;
    bool done = on_tensor_cores<T>(precision);
    if (is_narrow(c.groups, filters)) {
        launch({{blocks_x(c.filters * weights, 256), unsigned(parts)}, 256, stream}, narrow_weight_gradient_kernel<T>, out, dy,
               x, c, cells_in_part(c), c.filters * weights);
        done = true;
    } else if constexpr (!std::is_same_v<T, double>) {
        done = done && weight_gradient_tensor(out, dy, x, c, parts, cells_in_part(c), precision, stream);
    }
    if (!done)
        launch({{blocks_x(weights, tile), tiles, unsigned(c.groups * parts)}, tile_threads, stream},
               weight_gradient_kernel<T>, out, dy, x, c, cells_in_part(c));
    if (parts > 1)
        launch({blocks_x(c.filters * weights, 256), 256, stream}, add_parts_kernel<Wide<T>>, dweight, workspace,
               c.filters * weights, parts);
}

#define INSTANTIATE(T) \
    template void convolution_weight_gradient(Wide<T>*, Wide<T>*, const T*, const T*, const Convolution&, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
