// The deconvnet's way down into an image, on tensor cores: unpooling, rectification, filtering, where the convolution
// sees few channels, as a network's first does.
//
// Tiles of 64 columns would compute padding for the most part, and unpool each cell anew for every tap. Here a block
// unpools the cells that reach its part of the image once, into shared memory; then all taps of all phases of the stride
// read them there. The products are those of gather_tensor_kernel, transposed, in its order, and so are the bits.
#include "chains.cuh"
#include "tensor_tiles.cuh"

namespace zf {
namespace {

constexpr int warps = block_threads / 32, tile_across = 16, most_stride = 8;

// The words of a product's factors in one column, in the order of the lanes that hold them: both of a lane together.
template <class T>
constexpr int packed = 4 / int(sizeof(T));
constexpr int product_words = 8;
__device__ __forceinline__ int place_of_word(int word) {
    return word / product_words * product_words + word % 4 * 2 + word % product_words / 4;
}

// What all blocks share. A block's cells are rows x columns of the maps between, from (first_row, first_column) of its
// tile on.
struct Image {
    Axis down[most_stride], across[most_stride];  // of each phase
    // What a division by its taps, and by those of an axis across, is as a product: exact while both numbers are small.
    int per_taps[most_stride][most_stride], per_across[most_stride];
    int strides_down, strides_across;
    int first_row, first_column, rows, columns;
    int tiles_down, tiles_across;
    int taps;  // of a phase, at most
};

// The factors in one word: neighbouring filters k and k + 1 of 16 bits, or one of 32.
template <class T>
__device__ __forceinline__ std::uint32_t word_of(const T* weight, std::int64_t filter) {
    if constexpr (std::is_same_v<T, float>)
        return to_tf32(*weight);
    else
        return weight[0].bits | std::uint32_t(weight[filter].bits) << 16;
}

// Grid: x over tiles (of all images) of 8 `lines` x 16 cells of each phase; warp w computes lines w `lines` on of each, 16
// cells and at most 8 channels: one product. Cells lie in shared memory with their filters (the depth) together, 16 bytes
// longer than those are: the eight rows of a matrix lie in all banks. Weights are taken phase by phase, a word of factors a
// thread.
template <class T, bool last_wins, int lines>
__global__ void __launch_bounds__(block_threads, 3)
unpool_filter_image_tensor_kernel(T* __restrict__ dx, Unpooled<T, last_wins> map, const T* __restrict__ weight, Gather g,
                           Image image) {
    DYNAMIC_SHARED(T, cells);
    const int t = threadIdx.x, warp = t / 32, lane = t % 32, matrix = lane / 8;
    const int pitch = g.depth + part<T>, words = g.depth / packed<T>, word_pitch = pitch / packed<T>;
    const auto factors = reinterpret_cast<std::uint32_t*>(cells + image.rows * image.columns * pitch);
    const auto over_rows = reinterpret_cast<Range*>(factors + image.taps * g.width * word_pitch);
    const auto over_columns = over_rows + image.rows;

    const int tiles = image.tiles_down * image.tiles_across, number = int(blockIdx.x % unsigned(tiles));
    const int n = int(blockIdx.x / unsigned(tiles));
    const int first_p = number / image.tiles_across * warps * lines, first_q = number % image.tiles_across * tile_across;
    const int top = first_p + image.first_row, left = first_q + image.first_column;

    // The windows over each row and column of the cells, worked out once.
    const Bounds inside = bounds_of(map.bounds, n, map.maps);
    for (int i = t; i < image.rows + image.columns; i += block_threads) {
        const bool row = i < image.rows;
        const int at = row ? top + i : left + i - image.rows;
        const bool outside = row ? at < inside.top || at >= inside.bottom || !within(at, g.in_rows)
                                 : at < inside.left || at >= inside.right || !within(at, g.in_columns);
        const Windows& window = map.window;
        over_rows[i] = outside ? Range{}
                       : row   ? covering(at, window.height, window.stride_vertical, window.top, map.maps.rows)
                               : covering(at, window.width, window.stride_horizontal, window.left, map.maps.columns);
    }
    __syncthreads();
    const Radix vectors{image.columns, g.depth / part<T>};
    const Digits per_block = vectors.of(block_threads);
    for (Digits at = vectors.of(t); at.high < image.rows; vectors.advance(at, per_block)) {
        auto value = map.template values<part<T>>(n, top + at.high, left + at.middle, over_rows[at.high],
                                                  over_columns[at.middle], at.low * part<T>);
        Vector<T, part<T>> stored;
#pragma unroll
        for (int i = 0; i < part<T>; ++i) stored[i] = to_factor(narrow<T>(value[i]));
        *reinterpret_cast<Vector<T, part<T>>*>(cells + (at.high * image.columns + at.middle) * pitch + at.low * part<T>) =
            stored;
    }

    const int line = lane % 8 + 8 * (matrix & 1), own = min(lane / 4, g.width - 1);
    const std::int64_t filter = std::int64_t(g.filter_rows) * g.filter_columns * g.filter_channels;
    const Digits begin = Radix{1, g.width}.of(t), block = Radix{1, g.width}.of(block_threads);
    for (int a = 0; a < image.strides_down; ++a)
        for (int b = 0; b < image.strides_across; ++b) {
            const Axis down = image.down[a], across = image.across[b];
            const int taps = down.taps * across.taps, per_taps = image.per_taps[a][b], per_across = image.per_across[b];
            if (a + b) __syncthreads();  // the last phase's factors have been read
            const Radix order{taps, g.width};  // word, tap, channel
            const auto of = [&](const Digits& digits) {
                const int word = digits.high * per_taps >> 16;
                return Digits{word, digits.high - word * taps, digits.low};
            };
            const Digits next = of(block);
            for (Digits at = of(begin); taps && at.high < words; order.advance(at, next)) {
                const int i = at.middle * per_across >> 16, j = at.middle - i * across.taps;
                const int r = down.first_tap + i * down.tap_spacing, s = across.first_tap + j * across.tap_spacing;
                const int tap = (r * g.filter_columns + s) * g.filter_channels + at.low;
                factors[(at.middle * g.width + at.low) * word_pitch + place_of_word(at.high)] =
                    word_of(weight + at.high * packed<T> * filter + tap, filter);
            }
            __syncthreads();

            FragmentC sums[lines] = {};
            for (int i = 0; i < down.taps; ++i)
                for (int j = 0; j < across.taps; ++j) {
                    const int row = warp * lines + down.offset + i * down.tap_step - image.first_row;
                    const int column = line + across.offset + j * across.tap_step - image.first_column;
                    const T* from = cells + (row * image.columns + column) * pitch + (matrix >> 1) * part<T>;
                    const std::uint32_t* pairs =
                        factors + ((i * across.taps + j) * g.width + own) * word_pitch + lane % 4 * 2;
#pragma unroll 2
                    for (int word = 0; word < words; word += product_words) {
                        const auto column_factors = *reinterpret_cast<const Vector<std::uint32_t, 2>*>(pairs + word);
#pragma unroll
                        for (int l = 0; l < lines; ++l) {
                            FragmentA rows;
                            load_matrices<false>(rows, from + l * image.columns * pitch + word * packed<T>);
                            multiply_tile<T>(sums[l], rows, column_factors.value);
                        }
                    }
                }
#pragma unroll
            for (int l = 0; l < lines; ++l)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int p = first_p + warp * lines + l, q = first_q + lane / 4 + 8 * half, channel = lane % 4 * 2;
                    if (p >= down.outputs || q >= across.outputs) continue;
                    const int r = down.first + p * down.spacing, s = across.first + q * across.spacing;
                    T* target = dx + ((std::int64_t(n) * g.out_rows + r) * g.out_columns + s) * g.out_channels;
                    store_pair(target, channel, g.width, false, sums[l][2 * half], sums[l][2 * half + 1]);
                }
        }
}

// --------------------------------------------------------------------------------------- launchers

// The geometry of blocks of `tile_down` rows of each phase.
Image image_of(const Convolution& c, int tile_down) {
    Image image{};
    image.strides_down = c.stride_vertical;
    image.strides_across = c.stride_horizontal;
    int most[2] = {};
    const auto reach = [](const Axis* axes, int phases, int tile, int& first, int& size, int& taps) {
        int last = 0, outputs = 0;
        bool any = false;
        for (int i = 0; i < phases; ++i) {
            const Axis& axis = axes[i];
            outputs = max(outputs, axis.outputs);
            if (!axis.taps) continue;
            const int low = axis.offset + (axis.taps - 1) * axis.tap_step;
            first = any ? min(first, low) : low;
            last = any ? max(last, axis.offset) : axis.offset;
            taps = max(taps, axis.taps);
            any = true;
        }
        size = tile + last - first;
        return divide_up(outputs, tile);
    };
    for (int i = 0; i < c.stride_vertical; ++i) image.down[i] = gather_of_input_gradient(c, i, 0).down;
    for (int i = 0; i < c.stride_horizontal; ++i) image.across[i] = gather_of_input_gradient(c, 0, i).across;
    image.tiles_down = reach(image.down, c.stride_vertical, tile_down, image.first_row, image.rows, most[0]);
    image.tiles_across =
        reach(image.across, c.stride_horizontal, tile_across, image.first_column, image.columns, most[1]);
    image.taps = most[0] * most[1];
    const auto inverse = [](int taps) { return taps ? divide_up(1 << 16, taps) : 0; };
    for (int b = 0; b < c.stride_horizontal; ++b) {
        image.per_across[b] = inverse(image.across[b].taps);
        for (int a = 0; a < c.stride_vertical; ++a)
            image.per_taps[a][b] = inverse(image.down[a].taps * image.across[b].taps);
    }
    return image;
}

template <class T>
std::int64_t bytes_of(const Image& image, const Convolution& c) {
    const std::int64_t cells = std::int64_t(image.rows) * image.columns, rows = std::int64_t(image.taps) * c.channels;
    return (cells + rows) * (c.filters + part<T>) * sizeof(T) + (image.rows + image.columns) * sizeof(Range);
}

}  // namespace

template <class T, bool last_wins>
bool unpool_filter_image(T* dx, const Unpooled<T, last_wins>& map, const T* weight, const Convolution& c, void* stream) {
    if (c.groups > 1 || c.channels > most_image_channels || c.filters % (product_words * packed<T>) ||
        c.stride_vertical > most_stride || c.stride_horizontal > most_stride || !aligned(map.y, 16) ||
        !aligned(map.switches, part<T>) ||
        std::int64_t(c.window_height) * c.window_width * max(c.window_width, block_threads) >= 1 << 16)
        return false;
    const Device device = this_device();
    auto kernel = unpool_filter_image_tensor_kernel<T, last_wins, 2>;
    Image image = image_of(c, 2 * warps);
    if (blocks_at_once(device, bytes_of<T>(image, c)) < 2) {
        kernel = unpool_filter_image_tensor_kernel<T, last_wins, 1>;
        image = image_of(c, warps);
    }
    const std::int64_t bytes = bytes_of<T>(image, c);
    if (!blocks_at_once(device, bytes) || !tensor_cores(kernel)) return false;
    launch({{blocks_x(std::int64_t(c.batch) * image.tiles_down * image.tiles_across, 1)}, block_threads, stream,
            std::size_t(bytes)},
           kernel, dx, map, weight, gather_of_input_gradient(c, 0, 0), image);
    return true;
}

#define INSTANTIATE(T) \
    template bool unpool_filter_image(T*, const Unpooled<T, true>&, const T*, const Convolution&, void*); \
    template bool unpool_filter_image(T*, const Unpooled<T, false>&, const T*, const Convolution&, void*);
INSTANTIATE(float)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
