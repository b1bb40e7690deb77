// Convolution of an image of few channels, bias, ReLU and maximum pooling on tensor cores: a network's first stage.
//
// Three channels cannot be copied asynchronously, and every tile of 64 filters would copy each window anew. Here a block
// keeps its filters, takes the part of the image under a patch of pooled windows into shared memory once, and lays the
// windows out from there, for all its filters. The products are those of gather_tensor_kernel in its order, and so are
// the bits.
#include <cstdlib>

#include "chains.cuh"
#include "tensor_tiles.cuh"

namespace zf {
namespace {

// The image under a patch, and what a block makes of it.
struct Footprint {
    int height, width;   // cells of the image under a patch
    int terms, pitch;    // of a window: in whole products; with what keeps eight filters in all banks
    int patches;         // of all images
};

// Grid: x over as many blocks as the device holds, each of which takes every gridDim.x-th patch; y over tiles of 32 `pairs`
// filters. Warps stand as in tensor_tiles.cuh, each over 32 cells and 16 `pairs` filters; thread t lays out parts
// t / 128 + 2 i of the window of cell t % 128, by a table of where a window's terms lie. Shared memory: filters; the step's
// windows, and later the finished products; the image; the table.
template <class T, int pairs>
__global__ void __launch_bounds__(block_threads, 2)
convolution_pool_image_tensor_kernel(T* __restrict__ y, std::uint8_t* __restrict__ switches, const T* __restrict__ x,
                                     const T* __restrict__ weight, const float* __restrict__ bias, Gather g, bool relu,
                                     const Bounds* __restrict__ bounds, Maps maps, Windows window, Patch patch,
                                     Footprint footprint,
                                     bool vectors) {
    constexpr int columns = 32 * pairs, products = parts / 2;
    DYNAMIC_SHARED(T, filters);
    T* const stage = filters + columns * footprint.pitch;
    T* const image = stage + tile_rows * (columns + 8);
    const int t = threadIdx.x, warp = t / 32, lane = t % 32, matrix = lane / 8;
    const int first_column = int(blockIdx.y) * columns, terms = terms_of(g);
    const int line = footprint.width * g.depth;  // of the image under a patch
    int* const table = reinterpret_cast<int*>(image + divide_up(footprint.height * line, part<T>) * part<T>);

    const Radix rows{1, footprint.terms};
    const Digits next_filter = rows.of(block_threads);
    for (Digits at = rows.of(t); at.high < columns; rows.advance(at, next_filter)) {
        const bool valid = first_column + at.high < g.width && at.low < terms;
        filters[at.high * footprint.pitch + at.low] =
            valid ? to_factor(weight[std::int64_t(first_column + at.high) * terms + at.low]) : T{};
    }
    const Radix taps = radix_of(g);
    for (int term = t; term < footprint.terms; term += block_threads) {
        const Digits at = taps.of(term);
        const int offset = (at.high * g.down.tap_step * footprint.width + at.middle * g.across.tap_step) * g.depth + at.low;
        table[term] = term < terms ? offset : -1;
    }

    const int cell = min(t % tile_rows, patch.height * patch.width - 1);
    const T* const own =
        image + (cell / patch.width * g.down.stride * footprint.width + cell % patch.width * g.across.stride) * g.depth;

    for (int number = blockIdx.x; number < footprint.patches; number += gridDim.x) {
        const Patched block(number, patch, window);
        const int top = block.top * g.down.stride + g.down.offset;
        const int left = block.left * g.across.stride + g.across.offset;
        // A warp a line: those of the image lie together in memory, from `begin` to `end` of this one.
        const int begin = -left * g.depth, end = begin + g.in_columns * g.depth;
        for (int i = warp; i < footprint.height; i += block_threads / 32) {
            const bool inside = within(top + i, g.in_rows);
            const std::int64_t row = (std::int64_t(block.image) * g.in_rows + (inside ? top + i : 0)) * g.in_columns + left;
            const T* from = x + row * g.depth;
            for (int at = lane; at < line; at += 32)
                image[i * line + at] = inside && at >= begin && at < end ? to_factor(from[at]) : T{};
        }
        __syncthreads();  // the image is there, and the last patch pooled

        FragmentC results[2][2 * pairs] = {};
        for (int first = 0; first < footprint.terms; first += step<T>) {
            const int left_terms = min(footprint.terms - first, step<T>);
            for (int term = t / tile_rows * part<T>; term < left_terms; term += block_threads / tile_rows * part<T>) {
                Vector<std::uint32_t, 4> words{};
#pragma unroll
                for (int i = 0; i < part<T>; ++i) {
                    const int offset = table[first + term + i];
                    const T value = offset >= 0 ? own[offset] : T{};
                    if constexpr (sizeof(T) == 2)
                        words[i / 2] |= std::uint32_t(value.bits) << i % 2 * 16;
                    else
                        words[i] = float_to_bits(value);
                }
                *reinterpret_cast<Vector<std::uint32_t, 4>*>(stage + swizzled<T>(t % tile_rows, term)) = words;
            }
            __syncthreads();
#pragma unroll
            for (int k = 0; k < products; ++k) {
                if (2 * k * part<T> >= left_terms) break;
                FragmentA a[2];
#pragma unroll
                for (int i = 0; i < 2; ++i)
                    load_matrices<false>(a[i], stage + swizzled<T>(warp / 2 * 32 + 16 * i + 8 * (matrix & 1) + lane % 8,
                                                                   (2 * k + (matrix >> 1)) * part<T>));
#pragma unroll
                for (int pair = 0; pair < pairs; ++pair) {
                    std::uint32_t b[4];
                    const int column = warp % 2 * 16 * pairs + 16 * pair + 8 * (matrix >> 1) + lane % 8;
                    load_matrices<false>(b, filters + column * footprint.pitch + first + (2 * k + (matrix & 1)) * part<T>);
#pragma unroll
                    for (int i = 0; i < 2; ++i)
#pragma unroll
                        for (int j = 0; j < 2; ++j) {
                            const FragmentB factors = {b[2 * j], b[2 * j + 1]};
                            multiply_tile<T>(results[i][2 * pair + j], a[i], factors);
                        }
                }
            }
            __syncthreads();  // the windows have been read
        }
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int j = 0; j < 2 * pairs; ++j) {
                    const int column = warp % 2 * 16 * pairs + 8 * j + 2 * (lane % 4), filter = first_column + column;
                    store(stage + apart<columns>(warp / 2 * 32 + 16 * i + lane / 4 + 8 * half, column),
                          Vector<float, 2>{{with_bias(results[i][j][2 * half], bias, g, 0, filter, relu),
                                            with_bias(results[i][j][2 * half + 1], bias, g, 0, filter + 1, relu)}});
                }
        __syncthreads();
        const auto finished_cell = [&](int i) { return stage + apart<columns>(i, 0); };
        if (vectors)
            pool_patch<columns, part<T>>(y, switches, finished_cell, block, patch, bounds, maps, window, g, 0, first_column);
        else
            pool_patch<columns, 1>(y, switches, finished_cell, block, patch, bounds, maps, window, g, 0, first_column);
    }
}

// --------------------------------------------------------------------------------------- launchers

template <class T>
Footprint footprint_of(const Gather& g, const Patch& patch) {
    constexpr int whole = 2 * part<T>;  // terms of a product
    const int terms = divide_up(terms_of(g), whole) * whole;
    return {(patch.height - 1) * g.down.stride + (g.down.taps - 1) * g.down.tap_step + 1,
            (patch.width - 1) * g.across.stride + (g.across.taps - 1) * g.across.tap_step + 1, terms, terms + part<T>,
            int(g.batch * patch.count())};
}

template <class T>
std::int64_t bytes_of(const Gather& g, const Footprint& footprint, int columns) {
    const std::int64_t cells = std::int64_t(footprint.height) * footprint.width;
    const std::int64_t image = divide_up(cells * g.depth, std::int64_t(part<T>)) * part<T>;
    return (std::int64_t(columns) * footprint.pitch + tile_rows * (columns + 8) + image) * sizeof(T) +
           footprint.terms * sizeof(int);
}

}  // namespace

template <class T>
bool convolution_pool_image(T* y, std::uint8_t* switches, const T* x, const T* weight, const float* bias,
                            const Bounds* bounds, const Gather& g, int groups, bool relu, const Maps& maps,
                            const Windows& window, void* stream) {
    const Patch patch = choose_patch(maps, window, tile_rows);
    if (groups > 1 || g.depth > most_image_channels || g.batch * patch.count() > 0x3fffffff) return false;
    const std::int64_t far = 1 << 20;  // what is counted in 32 bits stays far from the end
    const auto reach = [](std::int64_t cells, const Axis& axis) {
        return cells * axis.stride + std::int64_t(axis.taps) * axis.tap_step + std::abs(std::int64_t(axis.offset));
    };
    if (reach(patch.height, g.down) > far || reach(patch.width, g.across) > far || std::int64_t(g.in_columns) > far)
        return false;
    const Device device = this_device();
    const Footprint footprint = footprint_of<T>(g, patch);
    // The tile that leaves fewer filters empty; two blocks a multiprocessor are worth some.
    auto kernel = convolution_pool_image_tensor_kernel<T, 2>;
    int columns = 64;
    const int empty = divide_up(g.width, 64) * 64 - g.width;
    if (divide_up(g.width, 96) * 96 - g.width < empty && blocks_at_once(device, bytes_of<T>(g, footprint, 96)) > 1)
        kernel = convolution_pool_image_tensor_kernel<T, 3>, columns = 96;
    const std::int64_t bytes = bytes_of<T>(g, footprint, columns);
    const int at_once = min(blocks_at_once(device, bytes), 2);
    if (!at_once || !tensor_cores(kernel)) return false;
    const bool vectors = allows<T, part<T>>(g.width, y, y) && aligned(switches, part<T>);
    const unsigned tiles = unsigned(divide_up(g.width, columns));
    const int most = max(1, device.multiprocessors * at_once / int(tiles));
    launch({{unsigned(min(footprint.patches, most)), tiles}, block_threads, stream, std::size_t(bytes)},
           kernel, y, switches, x, weight, bias, g, relu, bounds, maps, window, patch, footprint, vectors);
    return true;
}

#define INSTANTIATE(T) \
    template bool convolution_pool_image(T*, std::uint8_t*, const T*, const T*, const float*, const Bounds*, const Gather&, \
                                         int, bool, const Maps&, const Windows&, void*);
INSTANTIATE(float)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
