// Convolution on tensor cores: float32 arrays, factors rounded to tf32, sums in float32.
//
// A block of eight warps computes 128 x 64 results in steps of 32 terms; a warp 32 x 32 of them, as 2 x 4
// tiles of 16 x 8. Three steps are in flight: cp.async fills one part of the shared memory while another
// is multiplied. The order of every sum is that of the steps, so it depends on the window alone.
#include "gather.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

constexpr int tile_rows = 128, tile_columns = 64, step = 32, stages = 3, block_threads = 256;
constexpr int part = 4;             // floats in one 16-byte copy
constexpr int parts = step / part;  // of a row of terms

// Two layouts of a tile in shared memory; both give the lanes of a fragment 32 different banks.
// Terms together: [row][32 terms], the 16-byte parts of a row exchanged by the row's number.
__device__ __forceinline__ int swizzled(int row, int term) {
    return row * step + ((term / part) ^ (row % parts)) * part + term % part;
}
// Terms apart: [term][width], rows 8 floats longer than the tile.
template <int width>
__device__ __forceinline__ int apart(int term, int row) {
    return term * (width + 8) + row;
}

__host__ __device__ constexpr int together_size(int width) { return width * step; }
__host__ __device__ constexpr int apart_size(int width) { return (width + 8) * step; }

// The products of one step. Rows: cells, terms together, or filters of a weight gradient, terms apart.
template <bool rows_apart, bool columns_apart>
__device__ __forceinline__ void multiply(FragmentC (&results)[2][4], const float* rows, const float* columns, int down,
                                         int across, int lane) {
    const int g = lane / 4, c = lane % 4;
#pragma unroll
    for (int k = 0; k < step; k += 8) {
        FragmentA a[2];
        FragmentB b[4];
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                const int row = down + 16 * i + g + 8 * (v & 1), term = k + c + 4 * (v >> 1);
                a[i][v] = to_tf32(rows[rows_apart ? apart<tile_rows>(term, row) : swizzled(row, term)]);
            }
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int v = 0; v < 2; ++v) {
                const int column = across + 8 * j + g, term = k + c + 4 * v;
                b[j][v] = to_tf32(columns[columns_apart ? apart<tile_columns>(term, column) : swizzled(column, term)]);
            }
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) multiply_tf32(results[i][j], a[i], b[j]);
    }
}

// The pipeline over `count` steps; fetch(step, stage) issues this thread's copies of one step.
template <bool rows_apart, bool columns_apart, class F>
__device__ __forceinline__ void pipeline(FragmentC (&results)[2][4], float* memory, int count, F&& fetch) {
    constexpr int rows_size = rows_apart ? apart_size(tile_rows) : together_size(tile_rows);
    constexpr int size = rows_size + (columns_apart ? apart_size(tile_columns) : together_size(tile_columns));
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < stages - 1; ++i) {
        if (i < count) fetch(i, memory + i * size, memory + i * size + rows_size);
        copies_commit();
    }
    for (int i = 0; i < count; ++i) {
        copies_wait<stages - 2>();
        __syncthreads();  // the copies of all threads are there, and the stage before last is free
        const int next = i + stages - 1;
        float* free = memory + next % stages * size;
        if (next < count) fetch(next, free, free + rows_size);
        copies_commit();
        const float* now = memory + i % stages * size;
        multiply<rows_apart, columns_apart>(results, now, now + rows_size, warp / 2 * 32, warp % 2 * 32, lane);
    }
    copies_wait<0>();
}

// The place of one cell in the input of a gather.
struct Cell {
    const float* image;
    int row, column;
};

// Grid: x over tiles of cells, y over tiles of columns, z over groups. Thread t copies part t % 8 of cells
// t / 8 + 32 i; of the filters the same way, or, transposed, part t % 16 of terms t / 16 + 16 i.
// `vectors`: depth and addresses allow 16-byte copies; else floats one by one.
template <bool transposed, bool vectors>
__global__ void __launch_bounds__(block_threads, 2)
gather_tf32_kernel(float* __restrict__ out, const float* __restrict__ in, const float* __restrict__ weight,
                   const float* __restrict__ bias, Gather g, bool relu) {
    DYNAMIC_SHARED(float, memory);
    const int t = threadIdx.x, group = blockIdx.z;
    const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
    const std::int64_t first_cell = std::int64_t(blockIdx.x) * tile_rows;
    const int first_column = int(blockIdx.y) * tile_columns, terms = g.down.taps * g.across.taps * g.depth;

    Cell place[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const std::int64_t cell = first_cell + t / parts + 32 * i;
        const int q = int(cell % g.across.outputs), p = int(cell / g.across.outputs % g.down.outputs);
        const std::int64_t n = cell < cells ? cell / g.across.outputs / g.down.outputs : 0;
        place[i].image = in + n * g.in_rows * g.in_columns * g.in_channels + group * g.depth;
        place[i].row = cell < cells ? p * g.down.stride + g.down.offset : -0x40000000;  // outside, whatever the tap
        place[i].column = q * g.across.stride + g.across.offset;
    }

    // Copies `count` terms from `term` on, all of one tap, of this thread's four cells.
    const auto copy_cells = [&](auto count, float* rows, int term, int first) {
        constexpr int width = decltype(count)::value;
        const int tap = term / g.depth, channel = term - tap * g.depth;
        const int down = tap / g.across.taps, across = tap - down * g.across.taps;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int r = place[i].row + down * g.down.tap_step, s = place[i].column + across * g.across.tap_step;
            const bool valid = term < terms && r >= 0 && r < g.in_rows && s >= 0 && s < g.in_columns;
            const std::int64_t at = valid ? (std::int64_t(r) * g.in_columns + s) * g.in_channels + channel : 0;
            copy_async<width>(rows + swizzled(t / parts + 32 * i, term - first), place[i].image + at, valid);
        }
    };
    const auto copy_filters = [&](auto count, float* columns, int offset, int first) {
        constexpr int width = decltype(count)::value;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if (!transposed) {
                const int filter = t / parts + 32 * i, term = first + t % parts * part + offset;
                const bool valid = term < terms && first_column + filter < g.width;
                const std::int64_t at = valid ? (std::int64_t(group) * g.width + first_column + filter) * terms + term : 0;
                copy_async<width>(columns + swizzled(filter, term - first), weight + at, valid);
            } else {
                const int term = first + t / 16 + 16 * i, column = t % 16 * part + offset;
                const bool valid = term < terms && first_column + column < g.width;
                std::int64_t at = 0;
                if (valid) {
                    const int tap = term / g.depth;
                    const int r = g.down.first_tap + tap / g.across.taps * g.down.tap_spacing;
                    const int s = g.across.first_tap + tap % g.across.taps * g.across.tap_spacing;
                    const std::int64_t k = std::int64_t(group) * g.depth + (term - tap * g.depth);
                    at = ((k * g.filter_rows + r) * g.filter_columns + s) * g.filter_channels + first_column + column;
                }
                copy_async<width>(columns + apart<tile_columns>(term - first, column), weight + at, valid);
            }
        }
    };
    const auto fetch = [&](int number, float* rows, float* columns) {
        const int first = number * step, term = first + t % parts * part;
        if (vectors) {
            copy_cells(std::integral_constant<int, part>(), rows, term, first);
            copy_filters(std::integral_constant<int, part>(), columns, 0, first);
        } else {
            for (int i = 0; i < part; ++i) {
                copy_cells(std::integral_constant<int, 1>(), rows, term + i, first);
                copy_filters(std::integral_constant<int, 1>(), columns, i, first);
            }
        }
    };

    FragmentC results[2][4] = {};
    pipeline<false, transposed>(results, memory, divide_up(terms, step), fetch);

    const int warp = t / 32, lane = t % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const std::int64_t cell = first_cell + warp / 2 * 32 + 16 * i + lane / 4 + 8 * half;
            if (cell >= cells) continue;
            const int q = int(cell % g.across.outputs), p = int(cell / g.across.outputs % g.down.outputs);
            const std::int64_t n = cell / g.across.outputs / g.down.outputs;
            const int r = g.down.first + p * g.down.spacing, s = g.across.first + q * g.across.spacing;
            float* target = out + ((n * g.out_rows + r) * g.out_columns + s) * g.out_channels + group * g.width;
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int v = 0; v < 2; ++v) {
                    const int column = first_column + warp % 2 * 32 + 8 * j + 2 * (lane % 4) + v;
                    if (column >= g.width) continue;
                    float value = results[i][j][2 * half + v];
                    if (bias) value += bias[group * g.width + column];
                    target[column] = relu && value <= 0 ? 0 : value;
                }
        }
}

// parts[part][filter][tap, channel] = sum over the part's cells of dy times the patches of x. Grid: x over
// tiles of (tap, channel), y over tiles of a group's filters, z over groups times parts. Terms are cells:
// thread t copies 4 filters from 4 (t % 32) on of cells t / 32 + 8 i, and 4 weights from 4 (t % 16) on of
// cells t / 16 + 16 i.
template <bool vectors>
__global__ void __launch_bounds__(block_threads, 2)
weight_gradient_tf32_kernel(float* __restrict__ sums, const float* __restrict__ dy, const float* __restrict__ x,
                            Convolution shape, int part_cells) {
    DYNAMIC_SHARED(float, memory);
    const int t = threadIdx.x, group = int(blockIdx.z) % shape.groups, number = int(blockIdx.z) / shape.groups;
    const int filters = shape.filters / shape.groups, channels = shape.channels / shape.groups;
    const int weights = shape.window_height * shape.window_width * channels;
    const int begin = number * part_cells, end = min(begin + part_cells, shape.batch * shape.rows * shape.columns);
    const int first_filter = int(blockIdx.y) * tile_rows, first_weight = int(blockIdx.x) * tile_columns;

    const auto copy_signals = [&](auto count, float* rows, int offset, int first) {
        constexpr int width = decltype(count)::value;
        const int filter = t % 32 * part + offset;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int term = t / 32 + 8 * i, cell = first + term;
            const bool valid = cell < end && first_filter + filter < filters;
            const std::int64_t at = valid ? std::int64_t(cell) * shape.filters + group * filters + first_filter + filter : 0;
            copy_async<width>(rows + apart<tile_rows>(term, filter), dy + at, valid);
        }
    };
    const auto copy_patches = [&](auto count, float* columns, int offset, int first) {
        constexpr int width = decltype(count)::value;
        const int column = t % 16 * part + offset, weight = first_weight + column;
        const int tap = weight / channels, channel = weight - tap * channels;
        const int tap_row = tap / shape.window_width * shape.dilation_vertical - shape.top;
        const int tap_column = tap % shape.window_width * shape.dilation_horizontal - shape.left;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int term = t / 16 + 16 * i, cell = first + term;
            const int q = cell % shape.columns, p = cell / shape.columns % shape.rows, n = cell / shape.columns / shape.rows;
            const int r = p * shape.stride_vertical + tap_row, s = q * shape.stride_horizontal + tap_column;
            const bool valid =
                cell < end && weight < weights && r >= 0 && r < shape.height && s >= 0 && s < shape.width;
            const std::int64_t at =
                valid ? ((std::int64_t(n) * shape.height + r) * shape.width + s) * shape.channels + group * channels + channel
                      : 0;
            copy_async<width>(columns + apart<tile_columns>(term, column), x + at, valid);
        }
    };
    const auto fetch = [&](int step_number, float* rows, float* columns) {
        const int first = begin + step_number * step;
        if (vectors) {
            copy_signals(std::integral_constant<int, part>(), rows, 0, first);
            copy_patches(std::integral_constant<int, part>(), columns, 0, first);
        } else {
            for (int i = 0; i < part; ++i) {
                copy_signals(std::integral_constant<int, 1>(), rows, i, first);
                copy_patches(std::integral_constant<int, 1>(), columns, i, first);
            }
        }
    };

    FragmentC results[2][4] = {};
    pipeline<true, true>(results, memory, divide_up(end - begin, step), fetch);

    const int warp = t / 32, lane = t % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int filter = first_filter + warp / 2 * 32 + 16 * i + lane / 4 + 8 * half;
            if (filter >= filters) continue;
            float* target = sums + (std::int64_t(number) * shape.filters + group * filters + filter) * weights;
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int v = 0; v < 2; ++v) {
                    const int weight = first_weight + warp % 2 * 32 + 8 * j + 2 * (lane % 4) + v;
                    if (weight < weights) target[weight] = results[i][j][2 * half + v];
                }
        }
}

// --------------------------------------------------------------------------------------- launchers

constexpr std::size_t shared_bytes(int rows_size, int columns_size) {
    return sizeof(float) * stages * std::size_t(rows_size + columns_size);
}

}  // namespace

template <bool transposed>
void gather_tf32(float* out, const float* in, const float* weight, const float* bias, const Gather& g, int groups,
                 bool relu, void* stream) {
    const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
    const unsigned tiles = blocks_yz(divide_up(g.width, tile_columns));
    ZF_CHECK(std::int64_t(tiles) * tile_columns >= g.width, "convolution: too many filters or channels");
    // A part of four terms has one tap, four columns one term, and all begin at multiples of 16 bytes.
    const bool vectors = g.depth % part == 0 && g.in_channels % part == 0 && (!transposed || g.width % part == 0) &&
                         aligned(in, 16) && aligned(weight, 16);
    const int columns_size = transposed ? apart_size(tile_columns) : together_size(tile_columns);
    launch({{blocks_x(cells, tile_rows), tiles, unsigned(groups)}, block_threads, stream,
            shared_bytes(together_size(tile_rows), columns_size)},
           vectors ? gather_tf32_kernel<transposed, true> : gather_tf32_kernel<transposed, false>, out, in, weight, bias, g,
           relu);
}

template void gather_tf32<false>(float*, const float*, const float*, const float*, const Gather&, int, bool, void*);
template void gather_tf32<true>(float*, const float*, const float*, const float*, const Gather&, int, bool, void*);

void weight_gradient_tf32(float* sums, const float* dy, const float* x, const Convolution& c, int part_count,
                          int part_cells, void* stream) {
    const int filters = c.filters / c.groups, channels = c.channels / c.groups;
    const std::int64_t weights = std::int64_t(c.window_height) * c.window_width * channels;
    const unsigned tiles = blocks_yz(divide_up(filters, tile_rows));
    ZF_CHECK(std::int64_t(tiles) * tile_rows >= filters, "convolution_weight_gradient: too many filters");
    const bool vectors = filters % part == 0 && channels % part == 0 && aligned(dy, 16) && aligned(x, 16);
    launch({{blocks_x(weights, tile_columns), tiles, unsigned(c.groups * part_count)}, block_threads, stream,
            shared_bytes(apart_size(tile_rows), apart_size(tile_columns))},
           vectors ? weight_gradient_tf32_kernel<true> : weight_gradient_tf32_kernel<false>, sums, dy, x, c, part_cells);
}

}  // namespace zf
