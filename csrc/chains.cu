// Fused chains, on plain arithmetic: what lies between their ends never reaches memory, and every result has the
// bits of the chain's single operations.
//
// Up, the first stage: convolution, bias, ReLU, maximum pooling with switches. Down, the deconvnet's: unpooling,
// rectification, filtering. Both are gathers (gather.cuh): the first with another end, the second with another source.
#include "gather.cuh"
#include "windows.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// A patch of pooled cells, and the convolution's cells under it: at most 64.
struct Patch {
    int rows, columns;            // windows
    int height, width;            // cells that they cover
    int patches_down, patches_across;
};

// Grid: x over patches (of all images), y over tiles of 64 filters, z over groups. A block computes the cells under
// its patch as a gather does; they go, rounded as in memory, to the shared memory of the finished products, and
// thread t pools windows t / 64 + 4 i of filter t % 64. Cells under two patches are computed twice.
template <class T>
__global__ void __launch_bounds__(tile_threads, sizeof(T) == 8 ? 1 : 2)
convolution_pool_kernel(T* __restrict__ y, std::uint8_t* __restrict__ switches, const T* __restrict__ x,
                        const T* __restrict__ weight, const Wide<T>* __restrict__ bias, Gather g, bool relu,
                        const Bounds* __restrict__ bounds, Maps maps, Windows window, Patch patch) {
    SHARED_ARRAY(Wide<T>, tiles, [4][tile_step][tile_padded]);
    const int group = blockIdx.z, first_column = int(blockIdx.y) * tile, t = threadIdx.x;
    const int number = int(blockIdx.x % unsigned(patch.patches_down * patch.patches_across));
    const int n = int(blockIdx.x / unsigned(patch.patches_down * patch.patches_across));
    const int first_p = number / patch.patches_across * patch.rows, first_q = number % patch.patches_across * patch.columns;
    const int top = first_p * window.stride_vertical - window.top, left = first_q * window.stride_horizontal - window.left;
    const auto locate = [&](int i) {
        const int r = top + i / patch.width, s = left + i % patch.width;
        const bool inside = i < patch.height * patch.width && r >= 0 && r < maps.height && s >= 0 && s < maps.width;
        return Cell{inside ? n : -1, r, s};
    };
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

    const int filter = first_column + t % tile;
    if (filter >= g.width) return;
    const Bounds inside = bounds_of(bounds, n, maps);
    for (int place = t / tile; place < patch.rows * patch.columns; place += tile_threads / tile) {
        const int p = first_p + place / patch.columns, q = first_q + place % patch.columns;
        if (p >= maps.rows || q >= maps.columns) continue;
        const int row = p * window.stride_vertical - window.top, column = q * window.stride_horizontal - window.left;
        const Range rows = clip(row, window.height, inside.top, inside.bottom);
        const Range columns = clip(column, window.width, inside.left, inside.right);
        Wide<T> best = 0;
        std::uint8_t which = 0;
        bool first = true;
        for (int r = rows.begin; r < rows.end; ++r)
            for (int s = columns.begin; s < columns.end; ++s, first = false) {
                const int cell = (r - top) * patch.width + s - left;
                const Wide<T> value = tiles[cell / tile_step][cell % tile_step][t % tile];
                if (first || wins(value, best)) best = value, which = std::uint8_t((r - row) * window.width + s - column);
            }
        const std::int64_t out = at(n, p, q, group * g.width + filter, maps.rows, maps.columns, maps.channels);
        y[out] = narrow<T>(best);
        switches[out] = which;
    }
}

// The map that unpooling would have written, and rectification passed on, made cell by cell.
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
    __device__ Wide<T> operator()(Image n, int r, int s, int channel) const {
        const Bounds inside = bounds_of(bounds, n, maps);
        if (r < inside.top || r >= inside.bottom || s < inside.left || s >= inside.right) return 0;
        const Range down = covering(r, window.height, window.stride_vertical, window.top, maps.rows);
        const Range across = covering(s, window.width, window.stride_horizontal, window.left, maps.columns);
        const auto total = unpooled<last_wins, 1>(y, switches, down, across, n, r, s, channel, maps, window);
        const Wide<T> value = rounded<T>(total[0]);
        return rectify && value <= 0 ? Wide<T>(0) : value;
    }
};

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

// The patch that wastes the fewest of a block's cells; of equals the first. No windows: none fits.
Patch choose_patch(const Maps& maps, const Windows& window) {
    Patch best{};
    for (int rows = 1; rows <= min(maps.rows, tile); ++rows)
        for (int columns = 1; columns <= min(maps.columns, tile); ++columns) {
            const std::int64_t height = std::int64_t(rows - 1) * window.stride_vertical + window.height;
            const std::int64_t width = std::int64_t(columns - 1) * window.stride_horizontal + window.width;
            if (height * width > tile) break;
            if (rows * columns > best.rows * best.columns)
                best = {rows, columns, int(height), int(width), divide_up(maps.rows, rows), divide_up(maps.columns, columns)};
        }
    return best;
}

void check_chain(const Convolution& c, const Maps& maps, const Windows& window) {
    check(c);
    check(maps, window);
    check_area(window);
    ZF_CHECK(maps.batch == c.batch && maps.height == c.rows && maps.width == c.columns && maps.channels == c.filters,
             "a fused chain: the pooled maps are not the convolution's");
}

}  // namespace

template <class T>
void convolution_pool(T* y, std::uint8_t* switches, const T* x, const T* weight, const Wide<T>* bias, const Bounds* bounds,
                      const Convolution& c, bool relu, const Maps& maps, const Windows& window, void* stream) {
    check_chain(c, maps, window);
    if (!maps.rows || !maps.columns) return;
    const Patch patch = choose_patch(maps, window);
    ZF_CHECK(patch.rows, "convolution_pool: windows of at most 64 cells");
    ZF_CHECK(std::int64_t(patch.patches_down) * patch.patches_across < 0x7fffffff, "convolution_pool: too many windows");
    const Gather g = gather_of_forward(c);
    const unsigned tiles = blocks_yz(divide_up(g.width, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= g.width, "convolution_pool: too many filters");
    launch({{blocks_x(std::int64_t(c.batch) * patch.patches_down * patch.patches_across, 1), tiles, unsigned(c.groups)},
            tile_threads, stream},
           convolution_pool_kernel<T>, y, switches, x, weight, bias, g, relu, bounds, maps, window, patch);
}

template <class T>
void unpool_filter(T* dx, const T* y, const std::uint8_t* switches, const T* weight, const Bounds* bounds, const Maps& maps,
                   const Windows& window, bool last_wins, bool rectify, const Convolution& c, void* stream) {
    check_chain(c, maps, window);
    for (int i = 0; i < c.stride_vertical; ++i)
        for (int j = 0; j < c.stride_horizontal; ++j) {
            const Gather g = gather_of_input_gradient(c, i, j);
            const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
            const unsigned tiles = blocks_yz(divide_up(g.width, tile));
            ZF_CHECK(std::int64_t(tiles) * tile >= g.width, "unpool_filter: too many channels");
            const Launch on{{blocks_x(cells, tile), tiles, unsigned(c.groups)}, tile_threads, stream};
            if (last_wins)
                launch(on, unpool_filter_kernel<T, true>, dx, Unpooled<T, true>{y, switches, bounds, maps, window, rectify},
                       weight, g);
            else
                launch(on, unpool_filter_kernel<T, false>, dx, Unpooled<T, false>{y, switches, bounds, maps, window, rectify},
                       weight, g);
        }
}

#define INSTANTIATE(T) \
    template void convolution_pool(T*, std::uint8_t*, const T*, const T*, const Wide<T>*, const Bounds*, const Convolution&, \
                                   bool, const Maps&, const Windows&, void*); \
    template void unpool_filter(T*, const T*, const std::uint8_t*, const T*, const Bounds*, const Maps&, const Windows&, \
                                bool, bool, const Convolution&, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
