// Fused chains on tensor cores: the tiles, steps and products of convolution_tensor.cu, and so its bits, with another end
// and another source.
#include "chains.cuh"
#include "gather_tensor.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// Grid: x over patches (of all images), y over tiles of 64 filters, z over groups. A block computes the 128 cells under
// its patch as a gather does, in copies of `count` terms; they go, rounded as in memory, to the shared memory of the
// finished products, terms apart: the rows that a warp writes, and the vectors that its lanes read, lie in all banks.
// `vectors`: a thread pools 16 bytes of filters at once. Cells under two patches are computed twice.
template <class T, int count, bool split>
__global__ void __launch_bounds__(block_threads, blocks<T, count, split>)
convolution_pool_tensor_kernel(T* __restrict__ y, std::uint8_t* __restrict__ switches, const T* __restrict__ x,
                               const T* __restrict__ weight, const float* __restrict__ bias, Gather g, bool relu,
                               const Bounds* __restrict__ bounds, Maps maps, Windows window, Patch patch, bool vectors) {
    static_assert(tile == tile_columns && tile_threads == block_threads);
    DYNAMIC_SHARED(T, memory);
    const int group = blockIdx.z, first_column = int(blockIdx.y) * tile_columns;
    FragmentC results[2][4] = {};
    {
        const Patched block(blockIdx.x, patch, window);
        Copied<T, count> source(x, g, group, [&](int i) { return block.cell(i, patch, maps); });
        gather_products<T, false, count, split>(results, memory, source, weight, g, group, first_column);
    }
    if constexpr (split)
        mend(results, [&](int row, int column) {
            const Patched block(blockIdx.x, patch, window);
            return gather_sum<false>(stored(x, g), weight, g, group, block.cell(row, patch, maps), first_column + column);
        });
    __syncthreads();  // all products are made: their factors' memory is free
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int own = warp % 2 * 32 + 8 * j + 2 * (lane % 4), column = first_column + own;
                store(memory + apart<tile_columns>(warp / 2 * 32 + 16 * i + lane / 4 + 8 * half, own),
                      Vector<float, 2>{{with_bias(results[i][j][2 * half], bias, g, group, column, relu),
                                        with_bias(results[i][j][2 * half + 1], bias, g, group, column + 1, relu)}});
            }
    __syncthreads();
    const Patched block(unsigned(opaque(int(blockIdx.x))), patch, window);
    const auto cell = [&](int i) { return memory + apart<tile_columns>(i, 0); };
    if (vectors)
        pool_patch<tile_columns, part<T>>(y, switches, cell, block, patch, bounds, maps, window, g, group, first_column);
    else
        pool_patch<tile_columns, 1>(y, switches, cell, block, patch, bounds, maps, window, g, group, first_column);
}

// The cells of one step, made by unpooling: thread t makes part t % 8 of cells t / 8 + 32 i, `count` channels at once, as
// Copied copies them. Plain stores: they are there after the step's barrier.
template <class T, bool last_wins, int count>
struct UnpooledStep {
    const Unpooled<T, last_wins>& map;
    const Gather& g;
    const int group;
    Cell place[4];
    Radix window;
    Digits per_step, per_copy, next;
    template <class Locate>
    __device__ __forceinline__ UnpooledStep(const Unpooled<T, last_wins>& map, const Gather& g, int group,
                                            const Locate& locate)
        : map(map), g(g), group(group), window(radix_of(g)), per_step(window.of(step<T>)), per_copy(window.of(count)),
          next(window.of(threadIdx.x % parts * part<T>)) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Cell cell = locate(threadIdx.x / parts + 32 * i);
            place[i] = {cell.image, cell.p * g.down.stride + g.down.offset, cell.q * g.across.stride + g.across.offset};
        }
    }
    __device__ __forceinline__ void operator()(T* rows) {
        const int t = threadIdx.x;
        Digits at = next;
#pragma unroll 1
        for (int offset = 0; offset < part<T>; offset += count, window.advance(at, per_copy)) {
            const int down = at.high * g.down.tap_step, across = at.middle * g.across.tap_step;
            const bool has_term = at.high < g.down.taps;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int r = place[i].p + down, s = place[i].q + across;
                Vector<float, count> value{};
                if (has_term && place[i].image >= 0 && within(r, g.in_rows) && within(s, g.in_columns))
                    value = map.template values<count>(place[i].image, r, s, group * g.depth + at.low);
                store(rows + swizzled<T>(t / parts + 32 * i, t % parts * part<T> + offset), value);
            }
        }
        window.advance(next, per_step);
    }
};

// As gather_tensor_kernel, transposed: x over tiles of 128 cells of dx (of one phase), y over tiles of 64 channels, z
// over groups.
template <class T, bool last_wins, int count, bool split>
__global__ void __launch_bounds__(block_threads, blocks<T, count, split>)
unpool_filter_tensor_kernel(T* __restrict__ dx, Unpooled<T, last_wins> map, const T* __restrict__ weight, Gather g,
                            bool pairs) {
    DYNAMIC_SHARED(T, memory);
    const int group = blockIdx.z, first_column = int(blockIdx.y) * tile_columns;
    const std::int64_t first_cell = std::int64_t(blockIdx.x) * tile_rows;
    const auto locate = [&](int i) { return cell_of(g, first_cell + i); };
    UnpooledStep<T, last_wins, count> source(map, g, group, locate);
    FragmentC results[2][4] = {};
    gather_products<T, true, count, split>(results, memory, source, weight, g, group, first_column);
    if constexpr (split)
        mend(results, [&](int row, int column) {
            return gather_sum<true>(map, weight, g, group, locate(row), first_column + column);
        });
    store_results(dx, results, nullptr, g, group, first_column, false, pairs, locate);
}

// --------------------------------------------------------------------------------------- launchers

// Whether `count` switches, or channels of any kind, may be read at once.
template <class T, int count>
bool allows_switches(int sizes, const T* y, const T* other, const std::uint8_t* switches) {
    return allows<T, count>(sizes, y, other) && aligned(switches, count);
}

// The kernel for copies of as many terms as sizes and addresses allow.
template <class T, bool split>
auto pool_kernel_of(int sizes, const T* x, const T* weight) {
    return allows<T, part<T>>(sizes, x, weight) ? convolution_pool_tensor_kernel<T, part<T>, split>
           : allows<T, 4>(sizes, x, weight)     ? convolution_pool_tensor_kernel<T, 4, split>
                                                : convolution_pool_tensor_kernel<T, 1, split>;
}
template <bool split, class T, bool last_wins>
auto filter_kernel_of(int sizes, const Unpooled<T, last_wins>& map, const T* weight) {
    return allows_switches<T, part<T>>(sizes, map.y, weight, map.switches)
               ? unpool_filter_tensor_kernel<T, last_wins, part<T>, split>
           : allows_switches<T, 4>(sizes, map.y, weight, map.switches) ? unpool_filter_tensor_kernel<T, last_wins, 4, split>
                                                                       : unpool_filter_tensor_kernel<T, last_wins, 1, split>;
}

}  // namespace

template <class T>
bool convolution_pool_tensor(T* y, std::uint8_t* switches, const T* x, const T* weight, const float* bias,
                             const Bounds* bounds, const Gather& g, int groups, bool relu, const Maps& maps,
                             const Windows& window, Precision precision, void* stream) {
    const int common = g.depth | g.in_channels;
    auto kernel = pool_kernel_of<T, false>(common, x, weight);
    if constexpr (std::is_same_v<T, float>)
        if (precision == Precision::tf32x3) kernel = pool_kernel_of<T, true>(common, x, weight);
    if (!tensor_cores(kernel)) return false;
    const Patch patch = choose_patch(maps, window, tile_rows);
    const bool vectors = allows_switches<T, part<T>>(g.width, y, y, switches);
    launch({{blocks_x(maps.batch * patch.count(), 1), blocks_yz(divide_up(g.width, tile_columns)), unsigned(groups)},
            block_threads, stream, shared_bytes<T>(false, false)},
           kernel, y, switches, x, weight, bias, g, relu, bounds, maps, window, patch, vectors);
    return true;
}

template <class T, bool last_wins>
bool unpool_filter_tensor(T* dx, const Unpooled<T, last_wins>& map, const T* weight, const Convolution& c,
                          Precision precision, void* stream) {
    for (int i = 0; i < c.stride_vertical; ++i)
        for (int j = 0; j < c.stride_horizontal; ++j) {
            const Gather g = gather_of_input_gradient(c, i, j);
            const int common = g.depth | g.in_channels | g.width;
            const bool pairs = g.width % 2 == 0 && g.out_channels % 2 == 0 && aligned(dx, 2 * sizeof(T));
            auto kernel = filter_kernel_of<false>(common, map, weight);
            if constexpr (std::is_same_v<T, float>)
                if (precision == Precision::tf32x3) kernel = filter_kernel_of<true>(common, map, weight);
            if (!tensor_cores(kernel)) return false;
            const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
            launch({{blocks_x(cells, tile_rows), blocks_yz(divide_up(g.width, tile_columns)), unsigned(c.groups)},
                    block_threads, stream, shared_bytes<T>(false, true)},
                   kernel, dx, map, weight, g, pairs);
        }
    return true;
}

#define INSTANTIATE(T) \
    template bool convolution_pool_tensor(T*, std::uint8_t*, const T*, const T*, const float*, const Bounds*, const Gather&, \
                                          int, bool, const Maps&, const Windows&, Precision, void*); \
    template bool unpool_filter_tensor(T*, const Unpooled<T, true>&, const T*, const Convolution&, Precision, void*); \
    template bool unpool_filter_tensor(T*, const Unpooled<T, false>&, const T*, const Convolution&, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
