// Fused chains: what lies between their ends never reaches memory, and every result has the bits of the chain's single
// operations. Here on plain arithmetic, and what decides between that and the tensor cores.
//
// Up, the first stage: convolution, bias, ReLU, maximum pooling with switches. Down, the deconvnet's: unpooling,
// rectification, filtering. Both are gathers (gather.cuh): the first with another end, the second with another source.
#include "chains.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// Grid: x over patches (of all images), y over tiles of 64 filters, z over groups. A block computes the 64 cells under
// its patch as a gather does; they go, rounded as in memory, to the shared memory of the finished products, and
// thread t pools windows t / 64 + 4 i of filter t % 64. Cells under two patches are computed twice.
template <class T>
__global__ void __launch_bounds__(tile_threads, sizeof(T) == 8 ? 1 : 2)
convolution_pool_kernel(T* __restrict__ y, std::uint8_t* __restrict__ switches, const T* __restrict__ x,
                        const T* __restrict__ weight, const Wide<T>* __restrict__ bias, Gather g, bool relu,
                        const Bounds* __restrict__ bounds, Maps maps, Windows window, Patch patch) {
    SHARED_ARRAY(Wide<T>, tiles, [4][tile_step][tile_padded]);
    const int group = blockIdx.z, first_column = int(blockIdx.y) * tile, t = threadIdx.x;
    const Patched block(blockIdx.x, patch, window);
    const auto locate = [&](int i) { return block.cell(i, patch, maps); };
    Wide<T> results[4][4] = {};
    gather_products<false>(results, tiles, stored(x, g), weight, g, group, first_column, locate, 0, terms_of(g));
    __syncthreads();  // all products are made: their factors' memory is free
    const int down = t / 16, across = t % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int cell = down * 4 + i, filter = first_column + across * 4 + j;
            if (filter < g.width)
                tiles[cell / tile_step][cell % tile_step][across * 4 + j] =
                    widen(finished<T>(results[i][j], bias, group * g.width + filter, relu));
        }
    __syncthreads();
    const auto cell = [&](int i) { return &tiles[i / tile_step][i % tile_step][0]; };
    pool_patch<tile, 1>(y, switches, cell, block, patch, bounds, maps, window, g, group, first_column);
}

// As gather_kernel of convolution.cu, transposed: x over tiles of 64 cells of dx (of one phase), y over tiles of 64
// channels, z over groups.
template <class T, bool last_wins>
__global__ void __launch_bounds__(tile_threads, sizeof(T) == 8 ? 1 : 2)
unpool_filter_kernel(T* __restrict__ dx, Unpooled<T, last_wins> source, const T* __restrict__ weight, Gather g) {
    SHARED_ARRAY(Wide<T>, tiles, [4][tile_step][tile_padded]);
    const int group = blockIdx.z, first_column = int(blockIdx.y) * tile;
    const std::int64_t first_cell = std::int64_t(blockIdx.x) * tile;
    const auto locate = [&](int i) { return cell_of(g, first_cell + i); };
    Wide<T> results[4][4] = {};
    gather_products<true>(results, tiles, source, weight, g, group, first_column, locate, 0, terms_of(g));
    store_results<T>(dx, results, nullptr, g, group, first_column, false, locate);
}

// --------------------------------------------------------------------------------------- launchers

void check_chain(const Convolution& c, const Maps& maps, const Windows& window) {
    check(c);
    check(maps, window);
    check_area(window);
    ZF_CHECK(maps.batch == c.batch && maps.height == c.rows && maps.width == c.columns && maps.channels == c.filters,
             "a fused chain: the pooled maps are not the convolution's");
}

template <class T, bool last_wins>
void filter(T* dx, const Unpooled<T, last_wins>& source, const T* weight, const Convolution& c,
            Precision precision, void* stream) {
    const int columns = c.channels / c.groups;
    const bool tensor = on_tensor_cores<T>(precision);
    const unsigned tiles = blocks_yz(divide_up(columns, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= columns, "unpool_filter: too many channels");
    if constexpr (!std::is_same_v<T, double>)
        if (tensor && !is_narrow(c.groups, columns) &&
            ((precision != Precision::tf32x3 && unpool_filter_image(dx, source, weight, c, stream)) ||
             unpool_filter_tensor(dx, source, weight, c, precision, stream)))
            return;
    for (int i = 0; i < c.stride_vertical; ++i)
        for (int j = 0; j < c.stride_horizontal; ++j) {
            const Gather g = gather_of_input_gradient(c, i, j);
            const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
            launch({{blocks_x(cells, tile), tiles, unsigned(c.groups)}, tile_threads, stream},
                   unpool_filter_kernel<T, last_wins>, dx, source, weight, g);
        }
}

}  // namespace

template <class T>
void convolution_pool(T* y, std::uint8_t* switches, const T* x, const T* weight, const Wide<T>* bias, const Bounds* bounds,
                      const Convolution& c, bool relu, const Maps& maps, const Windows& window, Precision precision,
                      void* stream) {
    check_chain(c, maps, window);
    const bool tensor = on_tensor_cores<T>(precision);
    if (!maps.rows || !maps.columns) return;
    const Patch patch = choose_patch(maps, window, tile);
    ZF_CHECK(patch.rows, "convolution_pool: windows of at most 64 cells");
    ZF_CHECK(patch.count() < 0x7fffffff, "convolution_pool: too many windows");
    const Gather g = gather_of_forward(c);
    const unsigned tiles = blocks_yz(divide_up(g.width, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= g.width, "convolution_pool: too many filters");
    if constexpr (!std::is_same_v<T, double>)
        if (tensor && !is_narrow(c.groups, g.width) &&
            ((precision != Precision::tf32x3 &&
              convolution_pool_image(y, switches, x, weight, bias, bounds, g, c.groups, relu, maps, window, stream)) ||
             convolution_pool_tensor(y, switches, x, weight, bias, bounds, g, c.groups, relu, maps, window, precision,
                                     stream)))
            return;
    launch({{blocks_x(c.batch * patch.count(), 1), tiles, unsigned(c.groups)}, tile_threads, stream},
           convolution_pool_kernel<T>, y, switches, x, weight, bias, g, relu, bounds, maps, window, patch);
}

template <class T>
void unpool_filter(T* dx, const T* y, const std::uint8_t* switches, const T* weight, const Bounds* bounds, const Maps& maps,
                   const Windows& window, bool last_wins, bool rectify, const Convolution& c, Precision precision,
                   void* stream) {
    check_chain(c, maps, window);
    if (last_wins)
        filter(dx, Unpooled<T, true>{y, switches, bounds, maps, window, rectify}, weight, c, precision, stream);
    else
        filter(dx, Unpooled<T, false>{y, switches, bounds, maps, window, rectify}, weight, c, precision, stream);
}

#define INSTANTIATE(T) \
    template void convolution_pool(T*, std::uint8_t*, const T*, const T*, const Wide<T>*, const Bounds*, const Convolution&, \
                                   bool, const Maps&, const Windows&, Precision, void*); \
    template void unpool_filter(T*, const T*, const std::uint8_t*, const T*, const Bounds*, const Maps&, const Windows&, \
                                bool, bool, const Convolution&, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
