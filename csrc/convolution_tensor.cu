// Convolution on tensor cores: float32 arrays with factors rounded to tf32, or arrays of float16 or bfloat16,
// which are factors as they are; sums in float32.
//
// Tiles and pipeline are those of tensor_tiles.cuh. The order of every sum is that of the steps, so it depends on the
// window alone.
#include "tensor_tiles.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// The first cell of a window in the input of a gather: its offset (it may lie outside, where nothing is read), and its
// place in the map.
struct Origin {
    std::int64_t offset;
    int row, column;
};

// Grid: x over tiles of cells, y over tiles of columns, z over groups. Thread t copies part t % 8 of cells
// t / 8 + 32 i; of the filters the same way, or, transposed, one part of 64 / part columns of every
// (256 part / 64)th term; each part in copies of `count` terms, as depth and addresses allow (a first layer's three
// channels: pad_channels makes them four). Smaller copies are made in a loop: unrolled they need more registers than
// two blocks leave.
template <class T, bool transposed, int count>
__global__ void __launch_bounds__(block_threads, 2)
gather_tensor_kernel(T* __restrict__ out, const T* __restrict__ in, const T* __restrict__ weight,
                     const float* __restrict__ bias, Gather g, bool relu, bool pairs) {
    DYNAMIC_SHARED(T, memory);
    constexpr int wide = tile_columns / part<T>, terms_apart = block_threads / wide;
    const int t = threadIdx.x, group = blockIdx.z;
    const std::int64_t first_cell = std::int64_t(blockIdx.x) * tile_rows;
    const int first_column = int(blockIdx.y) * tile_columns, terms = g.down.taps * g.across.taps * g.depth;

    Origin place[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const Cell cell = cell_of(g, first_cell + t / parts + 32 * i);
        const int row = cell.p * g.down.stride + g.down.offset, column = cell.q * g.across.stride + g.across.offset;
        const std::int64_t line = std::int64_t(cell.image) * g.in_rows + row;
        place[i] = {(line * g.in_columns + column) * g.in_channels + group * g.depth,
                    cell.image >= 0 ? row : -0x40000000, column};  // no image: outside, whatever the tap
    }

    const Radix window = radix_of(g);
    const Digits per_step = window.of(step<T>), per_copy = window.of(count), per_row = window.of(terms_apart);
    const int own_filter = first_column + t / parts, own_part = t % parts * part<T>;
    const std::int64_t filters = (std::int64_t(group) * g.width + own_filter) * terms;
    Digits next_cells = window.of(own_part), next_filters = transposed ? window.of(t / wide) : Digits{};

    // One step of this thread's four cells.
    const auto copy_cells = [&](T* rows) {
        Digits at = next_cells;
#pragma unroll 1
        for (int offset = 0; offset < part<T>; offset += count, window.advance(at, per_copy)) {
            const int down = at.high * g.down.tap_step, across = at.middle * g.across.tap_step;
            const std::int64_t from = (std::int64_t(down) * g.in_columns + across) * g.in_channels + at.low;
            const bool has_term = at.high < g.down.taps;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool valid =
                    has_term && within(place[i].row + down, g.in_rows) && within(place[i].column + across, g.in_columns);
                copy_async<count>(rows + swizzled<T>(t / parts + 32 * i, own_part + offset),
                                  in + (valid ? place[i].offset + from : 0), valid);
            }
        }
        window.advance(next_cells, per_step);
    };
    const auto copy_filters = [&](T* columns, int first) {
        Digits at = next_filters;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const bool has_term = at.high < g.down.taps;
            const int r = g.down.first_tap + at.high * g.down.tap_spacing;
            const int s = g.across.first_tap + at.middle * g.across.tap_spacing;
            const std::int64_t k = std::int64_t(group) * g.depth + at.low;
            const std::int64_t row = ((k * g.filter_rows + r) * g.filter_columns + s) * g.filter_channels + first_column;
#pragma unroll 1
            for (int offset = 0; offset < part<T>; offset += count) {
                if (!transposed) {
                    const int term = first + own_part + offset;
                    const bool valid = term < terms && own_filter + 32 * i < g.width;
                    copy_async<count>(columns + swizzled<T>(t / parts + 32 * i, own_part + offset),
                                      weight + (valid ? filters + std::int64_t(32 * i) * terms + term : 0), valid);
                } else {
                    const int column = t % wide * part<T> + offset;
                    const bool valid = has_term && first_column + column < g.width;
                    copy_async<count>(columns + apart<tile_columns>(t / wide + terms_apart * i, column),
                                      weight + (valid ? row + column : 0), valid);
                }
            }
            if (transposed) window.advance(at, per_row);
        }
        if (transposed) window.advance(next_filters, per_step);
    };
    const auto fetch = [&](int number, T* rows, T* columns) {
        copy_cells(rows);
        copy_filters(columns, number * step<T>);
    };

    FragmentC results[2][4] = {};
    pipeline<T, false, transposed>(results, memory, divide_up(terms, step<T>), fetch);

    const int warp = t / 32, lane = t % 32;
    const auto finished = [&](float value, int column) {
        if (bias && column < g.width) value += bias[group * g.width + column];
        return relu && value <= 0 ? 0.0f : value;
    };
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Cell cell = cell_of(g, first_cell + warp / 2 * 32 + 16 * i + lane / 4 + 8 * half);
            if (cell.image < 0) continue;
            const int r = g.down.first + cell.p * g.down.spacing, s = g.across.first + cell.q * g.across.spacing;
            T* target =
                out + ((std::int64_t(cell.image) * g.out_rows + r) * g.out_columns + s) * g.out_channels + group * g.width;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int column = first_column + warp % 2 * 32 + 8 * j + 2 * (lane % 4);
                store_pair(target, column, g.width, pairs, finished(results[i][j][2 * half], column),
                           finished(results[i][j][2 * half + 1], column + 1));
            }
        }
}

// parts[part][filter][tap, channel] = sum over the part's cells of dy times the patches of x, in float32. Grid: x over
// tiles of (tap, channel), y over tiles of a group's filters, z over groups times parts. Terms are cells: thread t
// copies one part of the 128 filters of every (256 part / 128)th cell, and one of the 64 weights of every
// (256 part / 64)th.
template <class T, int count>
__global__ void __launch_bounds__(block_threads, 2)
weight_gradient_tensor_kernel(float* __restrict__ sums, const T* __restrict__ dy, const T* __restrict__ x,
                              Convolution shape, int part_cells, bool pairs) {
    DYNAMIC_SHARED(T, memory);
    constexpr int tall = tile_rows / part<T>, wide = tile_columns / part<T>;
    const int t = threadIdx.x, group = int(blockIdx.z) % shape.groups, number = int(blockIdx.z) / shape.groups;
    const int filters = shape.filters / shape.groups, channels = shape.channels / shape.groups;
    const int weights = shape.window_height * shape.window_width * channels;
    const int begin = number * part_cells, end = min(begin + part_cells, shape.batch * shape.rows * shape.columns);
    const int first_filter = int(blockIdx.y) * tile_rows, first_weight = int(blockIdx.x) * tile_columns;

    const Radix map{shape.rows, shape.columns}, window{shape.window_width, channels};
    const Digits per_step = map.of(step<T>), per_row = map.of(block_threads / wide), per_copy = window.of(count);
    const int own_weight = first_weight + t % wide * part<T>;
    const Digits first_tap = window.of(own_weight);
    Digits next_cells = map.of(begin + t / wide);

    const auto copy_signals = [&](T* rows, int first) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int term = t / tall + block_threads / tall * i, cell = first + term;
            const std::int64_t row = std::int64_t(cell) * shape.filters + group * filters + first_filter;
#pragma unroll 1
            for (int offset = 0; offset < part<T>; offset += count) {
                const int filter = t % tall * part<T> + offset;
                const bool valid = cell < end && first_filter + filter < filters;
                copy_async<count>(rows + apart<tile_rows>(term, filter), dy + (valid ? row + filter : 0), valid);
            }
        }
    };
    const auto copy_patches = [&](T* columns, int first) {
        Digits at = next_cells;
#pragma unroll
        for (int i = 0; i < 2; ++i, map.advance(at, per_row)) {
            const int term = t / wide + block_threads / wide * i;
            const int row = at.middle * shape.stride_vertical - shape.top, column = at.low * shape.stride_horizontal - shape.left;
            const std::int64_t image = std::int64_t(at.high) * shape.height;
            Digits tap = first_tap;
#pragma unroll 1
            for (int offset = 0; offset < part<T>; offset += count, window.advance(tap, per_copy)) {
                const int r = row + tap.high * shape.dilation_vertical, s = column + tap.middle * shape.dilation_horizontal;
                const bool valid = first + term < end && tap.high < shape.window_height && within(r, shape.height) &&
                                   within(s, shape.width);
                const std::int64_t from = ((image + r) * shape.width + s) * shape.channels + group * channels + tap.low;
                copy_async<count>(columns + apart<tile_columns>(term, t % wide * part<T> + offset), x + (valid ? from : 0),
                                  valid);
            }
        }
        map.advance(next_cells, per_step);
    };
    const auto fetch = [&](int number, T* rows, T* columns) {
        const int first = begin + number * step<T>;
        copy_signals(rows, first);
        copy_patches(columns, first);
    };

    FragmentC results[2][4] = {};
    pipeline<T, true, true>(results, memory, divide_up(end - begin, step<T>), fetch);

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
                store_pair(target, first_weight + warp % 2 * 32 + 8 * j + 2 * (lane % 4), weights, pairs,
                           results[i][j][2 * half], results[i][j][2 * half + 1]);
        }
}

// --------------------------------------------------------------------------------------- launchers

}  // namespace

template <class T, bool transposed>
bool gather_tensor(T* out, const T* in, const T* weight, const float* bias, const Gather& g, int groups, bool relu,
                   void* stream) {
    const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
    const unsigned tiles = blocks_yz(divide_up(g.width, tile_columns));
    ZF_CHECK(std::int64_t(tiles) * tile_columns >= g.width, "convolution: too many filters or channels");
    // A copy's terms have one tap, its columns one term, and all begin at multiples of its bytes.
    const int common = g.depth | g.in_channels | (transposed ? g.width : 0);
    const bool pairs = g.width % 2 == 0 && g.out_channels % 2 == 0 && aligned(out, 2 * sizeof(T));
    const auto kernel = allows<T, part<T>>(common, in, weight) ? gather_tensor_kernel<T, transposed, part<T>>
                        : allows<T, 4>(common, in, weight)     ? gather_tensor_kernel<T, transposed, 4>
                                                               : gather_tensor_kernel<T, transposed, 1>;
    if (!tensor_cores(kernel)) return false;
    launch({{blocks_x(cells, tile_rows), tiles, unsigned(groups)}, block_threads, stream, shared_bytes<T>(false, transposed)},
           kernel, out, in, weight, bias, g, relu, pairs);
    return true;
}

template <class T>
bool weight_gradient_tensor(float* sums, const T* dy, const T* x, const Convolution& c, int part_count, int part_cells,
                            void* stream) {
    const int filters = c.filters / c.groups, channels = c.channels / c.groups;
    const std::int64_t weights = std::int64_t(c.window_height) * c.window_width * channels;
    const unsigned tiles = blocks_yz(divide_up(filters, tile_rows));
    ZF_CHECK(std::int64_t(tiles) * tile_rows >= filters, "convolution_weight_gradient: too many filters");
    const bool pairs = weights % 2 == 0 && aligned(sums, 8);
    const auto kernel = allows<T, part<T>>(filters | channels, dy, x) ? weight_gradient_tensor_kernel<T, part<T>>
                        : allows<T, 4>(filters | channels, dy, x)     ? weight_gradient_tensor_kernel<T, 4>
                                                                      : weight_gradient_tensor_kernel<T, 1>;
    if (!tensor_cores(kernel)) return false;
    launch({{blocks_x(weights, tile_columns), tiles, unsigned(c.groups * part_count)}, block_threads, stream,
            shared_bytes<T>(true, true)},
           kernel, sums, dy, x, c, part_cells, pairs);
    return true;
}

#define INSTANTIATE(T) \
    template bool gather_tensor<T, false>(T*, const T*, const T*, const float*, const Gather&, int, bool, void*); \
    template bool gather_tensor<T, true>(T*, const T*, const T*, const float*, const Gather&, int, bool, void*); \
    template bool weight_gradient_tensor(float*, const T*, const T*, const Convolution&, int, int, void*);
INSTANTIATE(float)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
