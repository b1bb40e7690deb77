// Convolution and its two gradients as implicit matrix products on plain arithmetic: right for every
// geometry and type. Sums run over (row, column, channel) of the window in order, one fused
// multiply-add a term, in one thread: an output depends on its own window alone.
#include "gather.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// A block of 256 threads computes 64 x 64 results, 4 x 4 a thread, in steps of 16 terms. While a step is
// multiplied from one half of the shared memory the next is on its way into the other.
constexpr int tile = 64, step = 16, padded = tile + 4, block_threads = 256;

// results[i][j] += sum over the step's terms of rows[term][4 * down + i] * columns[term][4 * across + j].
template <class T>
__device__ __forceinline__ void multiply(T (&results)[4][4], const T (&rows)[step][padded], const T (&columns)[step][padded],
                                         int down, int across) {
#pragma unroll
    for (int term = 0; term < step; ++term) {
        T a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = rows[term][4 * down + i], b[i] = columns[term][4 * across + i];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) results[i][j] = fma(a[i], b[j], results[i][j]);
    }
}

// out (cells of a phase) x (columns): grid x runs over tiles of cells, y over tiles of columns, z over
// groups. Thread t loads term t % 16 of cells t / 16 + 16 i; so the cells' places are worked out once and
// the term's tap once a step. Filters: forward the same way (terms are neighbours), else 16 columns of
// terms t / 16 (columns are neighbours).
template <class T, bool transposed>
__global__ void __launch_bounds__(block_threads, sizeof(T) == 4 ? 2 : 1)
gather_kernel(T* __restrict__ out, const T* __restrict__ in, const T* __restrict__ weight, const T* __restrict__ bias,
              Gather g, bool relu) {
    SHARED_ARRAY(T, rows, [2][step][padded]);
    SHARED_ARRAY(T, columns, [2][step][padded]);
    const int t = threadIdx.x, group = blockIdx.z, slow = t / step, fast = t % step;
    const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
    const std::int64_t first_cell = std::int64_t(blockIdx.x) * tile;
    const int first_column = int(blockIdx.y) * tile, terms = g.down.taps * g.across.taps * g.depth;

    const T* image[4];
    int row[4], column[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const std::int64_t cell = first_cell + slow + i * step;
        const bool valid = cell < cells;
        const int q = int(cell % g.across.outputs), p = int(cell / g.across.outputs % g.down.outputs);
        const std::int64_t n = cell / g.across.outputs / g.down.outputs;
        image[i] = in + (valid ? n : 0) * g.in_rows * g.in_columns * g.in_channels + group * g.depth;
        row[i] = valid ? p * g.down.stride + g.down.offset : -0x40000000;  // outside, whatever the tap
        column[i] = q * g.across.stride + g.across.offset;
    }

    T next_rows[4], next_columns[4];
    const auto fetch = [&](int from) {
        const int term = from + fast, tap = term / g.depth, channel = term - tap * g.depth;
        const int down = tap / g.across.taps, across = tap - down * g.across.taps;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int r = row[i] + down * g.down.tap_step, s = column[i] + across * g.across.tap_step;
            const bool valid = term < terms && r >= 0 && r < g.in_rows && s >= 0 && s < g.in_columns;
            next_rows[i] = valid ? image[i][(std::int64_t(r) * g.in_columns + s) * g.in_channels + channel] : T(0);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            T value = 0;
            if (!transposed) {
                const int filter = first_column + slow + i * step;
                if (term < terms && filter < g.width) value = weight[(std::int64_t(group) * g.width + filter) * terms + term];
            } else {
                const int other = from + slow, c = first_column + fast + i * step;
                if (other < terms && c < g.width) {
                    const int at = other / g.depth, filter = other - at * g.depth;
                    const int r = g.down.first_tap + at / g.across.taps * g.down.tap_spacing;
                    const int s = g.across.first_tap + at % g.across.taps * g.across.tap_spacing;
                    const std::int64_t k = std::int64_t(group) * g.depth + filter;
                    value = weight[((k * g.filter_rows + r) * g.filter_columns + s) * g.filter_channels + c];
                }
            }
            next_columns[i] = value;
        }
    };
    const auto put = [&](int half) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            rows[half][fast][slow + i * step] = next_rows[i];
            if (!transposed)
                columns[half][fast][slow + i * step] = next_columns[i];
            else
                columns[half][slow][fast + i * step] = next_columns[i];
        }
    };

    T results[4][4] = {};
    if (terms > 0) {
        fetch(0);
        put(0);
    }
    const int down = t / 16, across = t % 16;
    for (int from = 0, half = 0; from < terms; from += step, half ^= 1) {
        __syncthreads();
        if (from + step < terms) fetch(from + step);
        multiply(results, rows[half], columns[half], down, across);
        if (from + step < terms) put(half ^ 1);
    }

#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const std::int64_t cell = first_cell + down * 4 + i;
        if (cell >= cells) break;
        const int q = int(cell % g.across.outputs), p = int(cell / g.across.outputs % g.down.outputs);
        const std::int64_t n = cell / g.across.outputs / g.down.outputs;
        const int r = g.down.first + p * g.down.spacing, s = g.across.first + q * g.across.spacing;
        T* place = out + ((n * g.out_rows + r) * g.out_columns + s) * g.out_channels + group * g.width;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int c = first_column + across * 4 + j;
            if (c >= g.width) break;
            T value = results[i][j];
            if (bias) value += bias[group * g.width + c];
            place[c] = relu && value <= 0 ? T(0) : value;
        }
    }
}

// parts[part][filter][tap, channel] = sum over the part's cells of dy times the patches of x. Grid: x over
// tiles of (tap, channel), y over tiles of a group's filters, z over groups times parts. Thread t loads
// columns t % 64 of cells t / 64 + 4 i: neighbours in memory both of dy and of x.
template <class T>
__global__ void __launch_bounds__(block_threads, sizeof(T) == 4 ? 2 : 1)
weight_gradient_kernel(T* __restrict__ parts, const T* __restrict__ dy, const T* __restrict__ x, Convolution shape,
                       int part_cells) {
    SHARED_ARRAY(T, rows, [2][step][padded]);
    SHARED_ARRAY(T, columns, [2][step][padded]);
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

    T next_rows[4], next_columns[4];
    const auto fetch = [&](int from) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int cell = from + slow + i * 4;
            next_rows[i] = next_columns[i] = 0;
            if (cell >= end) continue;
            if (has_filter) next_rows[i] = dy[std::int64_t(cell) * shape.filters + group * filters + first_filter + fast];
            const int q = cell % shape.columns, p = cell / shape.columns % shape.rows, n = cell / shape.columns / shape.rows;
            const int r = p * shape.stride_vertical + tap_row, s = q * shape.stride_horizontal + tap_column;
            if (has_weight && r >= 0 && r < shape.height && s >= 0 && s < shape.width)
                next_columns[i] =
                    x[((std::int64_t(n) * shape.height + r) * shape.width + s) * shape.channels + group * channels + channel];
        }
    };
    const auto put = [&](int half) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            rows[half][slow + i * 4][fast] = next_rows[i];
            columns[half][slow + i * 4][fast] = next_columns[i];
        }
    };

    T results[4][4] = {};
    fetch(begin);
    put(0);
    const int down = t / 16, across = t % 16;
    for (int from = begin, half = 0; from < end; from += step, half ^= 1) {
        __syncthreads();
        if (from + step < end) fetch(from + step);
        multiply(results, rows[half], columns[half], down, across);
        if (from + step < end) put(half ^ 1);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int filter = first_filter + down * 4 + i;
        if (filter >= filters) break;
        T* place = parts + ((std::int64_t(part) * shape.filters) + group * filters + filter) * weights;
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (first_weight + across * 4 + j < weights) place[first_weight + across * 4 + j] = results[i][j];
    }
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

void check(const Convolution& c) {
    ZF_CHECK(c.batch >= 0 && c.height >= 1 && c.width >= 1 && c.channels >= 1 && c.filters >= 1 && c.rows >= 1 &&
                 c.columns >= 1,
             "convolution: sizes out of range");
    ZF_CHECK(c.window_height >= 1 && c.window_width >= 1 && c.stride_vertical >= 1 && c.stride_horizontal >= 1 &&
                 c.dilation_vertical >= 1 && c.dilation_horizontal >= 1 && c.top >= 0 && c.left >= 0,
             "convolution: windows, strides and dilations must be at least 1");
    ZF_CHECK(c.groups >= 1 && c.groups <= 65535 && c.channels % c.groups == 0 && c.filters % c.groups == 0,
             "convolution: groups must divide channels and filters, and be at most 65,535");
    const std::int64_t limit = 0x3fffffff;  // what the kernels count in 32 bits stays far from the end
    ZF_CHECK(std::int64_t(c.window_height) * c.window_width * max(c.channels, c.filters) < limit &&
                 std::int64_t(c.batch) * c.rows * c.columns < limit && std::int64_t(c.batch) * c.height * c.width < limit,
             "convolution: more cells or weights than one launch counts");
    const auto reach = [](std::int64_t outputs, std::int64_t stride, std::int64_t window, std::int64_t dilation) {
        return outputs * stride + window * dilation;
    };
    ZF_CHECK(reach(c.rows, c.stride_vertical, c.window_height, c.dilation_vertical) < limit &&
                 reach(c.columns, c.stride_horizontal, c.window_width, c.dilation_horizontal) < limit,
             "convolution: strides or dilations too large");
}

template <class T, bool transposed>
void gather(T* out, const T* in, const T* weight, const T* bias, const Gather& g, int groups, bool relu,
            Precision precision, void* stream) {
    if (precision == Precision::tf32) return gather_tf32<transposed>(out, in, weight, bias, g, groups, relu, stream);
    const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
    const unsigned tiles = blocks_yz(divide_up(g.width, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= g.width, "convolution: too many filters or channels");
    launch({{blocks_x(cells, tile), tiles, unsigned(groups)}, block_threads, stream}, gather_kernel<T, transposed>, out, in,
           weight, bias, g, relu);
}

// The cells of one axis of dx whose padded position is `phase` modulo the stride, and the taps that
// reach them: position = output * stride + tap * dilation.
Axis phase_of(int phase, int size, int stride, int before, int dilation, int window) {
    Axis axis{};
    axis.stride = 1;
    axis.first = ((phase - before) % stride + stride) % stride;
    axis.spacing = stride;
    axis.outputs = axis.first < size ? (size - 1 - axis.first) / stride + 1 : 0;
    int first = 0, period = 1;
    while (first < stride && (first * std::int64_t(dilation) - phase) % stride) ++first;
    while (period * std::int64_t(dilation) % stride) ++period;
    if (first >= stride || first >= window) return axis;  // no tap: these cells are 0
    axis.taps = (window - 1 - first) / period + 1;
    axis.first_tap = first;
    axis.tap_spacing = period;
    axis.offset = int((axis.first + before - first * std::int64_t(dilation)) / stride);
    axis.tap_step = -int(period * std::int64_t(dilation) / stride);
    return axis;
}

// Cells in one part of a weight gradient: enough blocks to fill a device, cut by sizes alone.
int cells_in_part(const Convolution& c) {
    const std::int64_t cells = std::int64_t(c.batch) * c.rows * c.columns;
    const std::int64_t weights = std::int64_t(c.window_height) * c.window_width * (c.channels / c.groups);
    const std::int64_t tiles = divide_up(weights, std::int64_t(tile)) * divide_up(c.filters / c.groups, tile) * c.groups;
    const std::int64_t wanted = max(std::int64_t(1), min(std::int64_t(256) / tiles, std::int64_t(65535) / c.groups));
    const std::int64_t part = divide_up(divide_up(max(cells, std::int64_t(1)), wanted), std::int64_t(step)) * step;
    return int(max(part, std::int64_t(16) * step));
}

}  // namespace

int weight_gradient_parts(const Convolution& c) {
    check(c);
    return int(divide_up(max(c.batch * c.rows * c.columns, 1), cells_in_part(c)));
}

template <class T>
void convolution_forward(T* y, const T* x, const T* weight, const T* bias, const Convolution& c, bool relu,
                         Precision precision, void* stream) {
    check(c);
    const Axis down{c.rows, c.stride_vertical, -c.top, c.window_height, c.dilation_vertical, 0, 1, 0, 1};
    const Axis across{c.columns, c.stride_horizontal, -c.left, c.window_width, c.dilation_horizontal, 0, 1, 0, 1};
    const Gather g{down,   across,    c.batch,    c.height,           c.width,           c.channels,
                   c.rows, c.columns, c.filters,  c.channels / c.groups, c.filters / c.groups,
                   c.window_height, c.window_width, c.channels / c.groups};
    gather<T, false>(y, x, weight, bias, g, c.groups, relu, precision, stream);
}

template <class T>
void convolution_input_gradient(T* dx, const T* dy, const T* weight, const Convolution& c, Precision precision,
                                void* stream) {
    check(c);
    for (int i = 0; i < c.stride_vertical; ++i)
        for (int j = 0; j < c.stride_horizontal; ++j) {
            Axis down = phase_of(i, c.height, c.stride_vertical, c.top, c.dilation_vertical, c.window_height);
            Axis across = phase_of(j, c.width, c.stride_horizontal, c.left, c.dilation_horizontal, c.window_width);
            const Gather g{down,     across,  c.batch,    c.rows,               c.columns,             c.filters,
                           c.height, c.width, c.channels, c.filters / c.groups, c.channels / c.groups,
                           c.window_height, c.window_width, c.channels / c.groups};
            gather<T, true>(dx, dy, weight, static_cast<const T*>(nullptr), g, c.groups, false, precision, stream);
        }
}

template <class T>
void convolution_weight_gradient(T* dweight, T* workspace, const T* dy, const T* x, const Convolution& c, Precision precision,
                                void* stream) {
    const int parts = weight_gradient_parts(c), filters = c.filters / c.groups;
    const std::int64_t weights = std::int64_t(c.window_height) * c.window_width * (c.channels / c.groups);
    const unsigned tiles = blocks_yz(divide_up(filters, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= filters, "convolution_weight_gradient: too many filters");
    T* out = parts == 1 ? dweight : workspace;
    if (precision == Precision::tf32)
        weight_gradient_tf32(out, dy, x, c, parts, cells_in_part(c), stream);
    else
        launch({{blocks_x(weights, tile), tiles, unsigned(c.groups * parts)}, block_threads, stream},
               weight_gradient_kernel<T>, out, dy, x, c, cells_in_part(c));
    if (parts > 1)
        launch({blocks_x(c.filters * weights, 256), 256, stream}, add_parts_kernel<T>, dweight, workspace,
               c.filters * weights, parts);
}

#define INSTANTIATE(T) \
    template void convolution_forward(T*, const T*, const T*, const T*, const Convolution&, bool, Precision, void*); \
    template void convolution_input_gradient(T*, const T*, const T*, const Convolution&, Precision, void*); \
    template void convolution_weight_gradient(T*, T*, const T*, const T*, const Convolution&, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace zf
