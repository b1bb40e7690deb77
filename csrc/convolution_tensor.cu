// Convolution on tensor cores: float32 arrays with factors rounded to tf32, or arrays of float16 or bfloat16,
// which are factors as they are; sums in float32.
//
// Tiles and pipeline are those of tensor_tiles.cuh, a gather's cells and filters those of gather_tensor.cuh. The order
// of every sum is that of the steps, so it depends on the window alone.
#include "gather_tensor.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// Grid: x over tiles of 128 cells, y over tiles of 64 columns, z over groups; copies of `count` terms.
template <class T, bool transposed, int count, bool split>
__global__ void __launch_bounds__(block_threads, blocks<T, count, split>)
gather_tensor_kernel(T* __restrict__ out, const T* __restrict__ in, const T* __restrict__ weight,
                     const float* __restrict__ bias, Gather g, bool relu, bool pairs) {
    DYNAMIC_SHARED(T, memory);
    const int group = blockIdx.z, first_column = int(blockIdx.y) * tile_columns;
    const std::int64_t first_cell = std::int64_t(blockIdx.x) * tile_rows;
    const auto locate = [&](int i) { return cell_of(g, first_cell + i); };
    Copied<T, count> source(in, g, group, locate);
    FragmentC results[2][4] = {};
    gather_products<T, transposed, count, split>(results, memory, source, weight, g, group, first_column);
    if constexpr (split)
        mend(results, [&](int row, int column) {
            return gather_sum<transposed>(stored(in, g), weight, g, group, locate(row), first_column + column);
        });
    store_results(out, results, bias, g, group, first_column, relu, pairs, locate);
}

// parts[part][filter][tap, channel] = sum over the part's cells of dy times the patches of x, in float32. Grid: x over
// tiles of (tap, channel), y over tiles of a group's filters, z over groups times parts. Terms are cells: thread t
// copies one part of the 128 filters of every (256 part / 128)th cell, and one of the 64 weights of every
// (256 part / 64)th.
template <class T, int count, bool split>
__global__ void __launch_bounds__(block_threads, blocks<T, count, split>)
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
    pipeline<T, true, true, split>(results, memory, divide_up(end - begin, step<T>), fetch);
    if constexpr (split)
        mend(results, [&](int row, int column) {
            const int filter = first_filter + row, weight = first_weight + column;
            float sum = 0;
            if (filter >= filters || weight >= weights) return sum;
            const Digits tap = window.of(weight), next = map.of(1);
            Digits at = map.of(begin);
#pragma unroll 1
            for (int cell = begin; cell < end; ++cell, map.advance(at, next)) {
                const int r = at.middle * shape.stride_vertical - shape.top + tap.high * shape.dilation_vertical;
                const int s = at.low * shape.stride_horizontal - shape.left + tap.middle * shape.dilation_horizontal;
                const bool inside = within(r, shape.height) && within(s, shape.width);
                const std::int64_t line = (std::int64_t(at.high) * shape.height + r) * shape.width + s;
                sum = fma(dy[std::int64_t(cell) * shape.filters + group * filters + filter],
                          inside ? x[line * shape.channels + group * channels + tap.low] : 0.0f, sum);
            }
            return sum;
        });

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

// The kernel for copies of as many terms as sizes and addresses allow.
template <class T, bool transposed, bool split>
auto gather_kernel_of(int sizes, const T* in, const T* weight) {
    return allows<T, part<T>>(sizes, in, weight) ? gather_tensor_kernel<T, transposed, part<T>, split>
           : allows<T, 4>(sizes, in, weight)     ? gather_tensor_kernel<T, transposed, 4, split>
                                                 : gather_tensor_kernel<T, transposed, 1, split>;
}
template <class T, bool split>
auto weight_gradient_kernel_of(int sizes, const T* dy, const T* x) {
    return allows<T, part<T>>(sizes, dy, x) ? weight_gradient_tensor_kernel<T, part<T>, split>
           : allows<T, 4>(sizes, dy, x)     ? weight_gradient_tensor_kernel<T, 4, split>
                                            : weight_gradient_tensor_kernel<T, 1, split>;
}

}  // namespace

template <class T, bool transposed>
bool gather_tensor(T* out, const T* in, const T* weight, const float* bias, const Gather& g, int groups, bool relu,
                   Precision precision, void* stream) {
    const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
    const unsigned tiles = blocks_yz(divide_up(g.width, tile_columns));
    ZF_CHECK(std::int64_t(tiles) * tile_columns >= g.width, "convolution: too many filters or channels");
    // A copy's terms have one tap, its columns one term, and all begin at multiples of its bytes.
    const int common = g.depth | g.in_channels | (transposed ? g.width : 0);
    const bool pairs = g.width % 2 == 0 && g.out_channels % 2 == 0 && aligned(out, 2 * sizeof(T));
    auto kernel = gather_kernel_of<T, transposed, false>(common, in, weight);
    if constexpr (std::is_same_v<T, float>)
        if (precision == Precision::tf32x3) kernel = gather_kernel_of<T, transposed, true>(common, in, weight);
    if (!tensor_cores(kernel)) return false;
    launch({{blocks_x(cells, tile_rows), tiles, unsigned(groups)}, block_threads, stream, shared_bytes<T>(false, transposed)},
           kernel, out, in, weight, bias, g, relu, pairs);
    return true;
}

template <class T>
bool weight_gradient_tensor(float* sums, const T* dy, const T* x, const Convolution& c, int part_count, int part_cells,
                            Precision precision, void* stream) {
    const int filters = c.filters / c.groups, channels = c.channels / c.groups;
    const std::int64_t weights = std::int64_t(c.window_height) * c.window_width * channels;
    const unsigned tiles = blocks_yz(divide_up(filters, tile_rows));
    ZF_CHECK(std::int64_t(tiles) * tile_rows >= filters, "convolution_weight_gradient: too many filters");
    const bool pairs = weights % 2 == 0 && aligned(sums, 8);
    auto kernel = weight_gradient_kernel_of<T, false>(filters | channels, dy, x);
    if constexpr (std::is_same_v<T, float>)
        if (precision == Precision::tf32x3) kernel = weight_gradient_kernel_of<T, true>(filters | channels, dy, x);
    if (!tensor_cores(kernel)) return false;
    launch({{blocks_x(weights, tile_columns), tiles, unsigned(c.groups * part_count)}, block_threads, stream,
            shared_bytes<T>(true, true)},
           kernel, sums, dy, x, c, part_cells, pairs);
    return true;
}

#define INSTANTIATE(T) \
    template bool gather_tensor<T, false>(T*, const T*, const T*, const float*, const Gather&, int, bool, Precision, \
                                          void*); \
    template bool gather_tensor<T, true>(T*, const T*, const T*, const float*, const Gather&, int, bool, Precision, \
                                          void*); \
    template bool weight_gradient_tensor(float*, const T*, const T*, const Convolution&, int, int, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
