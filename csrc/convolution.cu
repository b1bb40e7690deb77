// Convolution and its input gradient as implicit matrix products on plain arithmetic: right for every
// geometry and type (gather.cuh holds the products), and what decides between them and the tensor cores.
#include "gather.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// out (cells of a phase) x (columns): grid x runs over tiles of 64 cells, y over tiles of 64 columns, z over
// groups.
template <class T, bool transposed>
__global__ void __launch_bounds__(tile_threads, sizeof(T) == 8 ? 1 : 2)
gather_kernel(T* __restrict__ out, const T* __restrict__ in, const T* __restrict__ weight,
              const Wide<T>* __restrict__ bias, Gather g, bool relu) {
    SHARED_ARRAY(Wide<T>, tiles, [4][tile_step][tile_padded]);
    const int group = blockIdx.z, first_column = int(blockIdx.y) * tile;
    const std::int64_t first_cell = std::int64_t(blockIdx.x) * tile;
    const auto locate = [&](int i) { return cell_of(g, first_cell + i); };
    Wide<T> results[4][4] = {};
    gather_products<transposed>(results, tiles, stored(in, g), weight, g, group, first_column, locate, 0, terms_of(g));
    store_results(out, results, bias, g, group, first_column, relu, locate);
}

// Groups of few columns, depthwise above all, would leave a tile's columns empty: here a thread owns one output
// element of a row (x of the grid), channels fastest, so that neighbours read neighbours; y steps through the rows of
// all images. The same terms in the same order, so the same bits.
template <class T, bool transposed>
__global__ void __launch_bounds__(256, 4)
narrow_gather_kernel(T* __restrict__ out, const T* __restrict__ in, const T* __restrict__ weight,
                     const Wide<T>* __restrict__ bias, Gather g, bool relu) {
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;
    const int q = int(item / unsigned(g.out_channels)), channel = int(item % unsigned(g.out_channels));
    if (q >= g.across.outputs) return;
    const int group = channel / g.width, filter_size = g.filter_rows * g.filter_columns * g.filter_channels;
    const T* filters = weight + (transposed ? std::int64_t(group) * g.depth * filter_size + channel % g.width
                                            : std::int64_t(channel) * filter_size);
    for (int line = blockIdx.y; line < g.batch * g.down.outputs; line += gridDim.y) {
        const int n = line / g.down.outputs, p = line % g.down.outputs;
        const T* image = in + std::int64_t(n) * g.in_rows * g.in_columns * g.in_channels + group * g.depth;
        Wide<T> sum = 0;
        for (int i = 0; i < g.down.taps; ++i) {
            const int r = p * g.down.stride + g.down.offset + i * g.down.tap_step;
            if (r < 0 || r >= g.in_rows) continue;
            for (int j = 0; j < g.across.taps; ++j) {
                const int s = q * g.across.stride + g.across.offset + j * g.across.tap_step;
                if (s < 0 || s >= g.in_columns) continue;
                const T* signals = image + (std::int64_t(r) * g.in_columns + s) * g.in_channels;
                const int row = g.down.first_tap + i * g.down.tap_spacing;
                const int column = g.across.first_tap + j * g.across.tap_spacing;
                const T* tap = filters + (row * g.filter_columns + column) * g.filter_channels;
                for (int d = 0; d < g.depth; ++d)
                    sum = fma(widen(signals[d]), widen(tap[transposed ? std::int64_t(d) * filter_size : d]), sum);
            }
        }
        columns_of(out, g, 0, Cell{n, p, q})[channel] = finished<T>(sum, bias, channel, relu);
    }
}

// --------------------------------------------------------------------------------------- launchers

template <class T, bool transposed>
void gather(T* out, const T* in, const T* weight, const Wide<T>* bias, const Gather& g, int groups, bool relu,
            Precision precision, void* stream) {
    const bool tensor = on_tensor_cores<T>(precision);
    if (is_narrow(groups, g.width)) {
        const std::int64_t line = std::int64_t(g.across.outputs) * g.out_channels;
        ZF_CHECK(line < 0x7fffffff, "convolution: rows of a map must be shorter than 2^31 elements");
        return launch({{blocks_x(line, 256), blocks_yz(std::int64_t(g.batch) * g.down.outputs)}, 256, stream},
                      narrow_gather_kernel<T, transposed>, out, in, weight, bias, g, relu);
    }
    if constexpr (!std::is_same_v<T, double>)
        if (tensor && gather_tensor<T, transposed>(out, in, weight, bias, g, groups, relu, precision, stream)) return;
    const std::int64_t cells = std::int64_t(g.batch) * g.down.outputs * g.across.outputs;
    const unsigned tiles = blocks_yz(divide_up(g.width, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= g.width, "convolution: too many filters or channels");
    launch({{blocks_x(cells, tile), tiles, unsigned(groups)}, tile_threads, stream}, gather_kernel<T, transposed>, out, in,
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

}  // namespace

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

Gather gather_of_forward(const Convolution& c) {
    const Axis down{c.rows, c.stride_vertical, -c.top, c.window_height, c.dilation_vertical, 0, 1, 0, 1};
    const Axis across{c.columns, c.stride_horizontal, -c.left, c.window_width, c.dilation_horizontal, 0, 1, 0, 1};
    return {down,   across,    c.batch,    c.height,           c.width,           c.channels,
            c.rows, c.columns, c.filters,  c.channels / c.groups, c.filters / c.groups,
            c.window_height, c.window_width, c.channels / c.groups};
}

Gather gather_of_input_gradient(const Convolution& c, int phase_down, int phase_across) {
    const Axis down = phase_of(phase_down, c.height, c.stride_vertical, c.top, c.dilation_vertical, c.window_height);
    const Axis across = phase_of(phase_across, c.width, c.stride_horizontal, c.left, c.dilation_horizontal, c.window_width);
    return {down,     across,  c.batch,    c.rows,               c.columns,             c.filters,
            c.height, c.width, c.channels, c.filters / c.groups, c.channels / c.groups,
            c.window_height, c.window_width, c.channels / c.groups};
}

template <class T>
void convolution_forward(T* y, const T* x, const T* weight, const Wide<T>* bias, const Convolution& c, bool relu,
                         Precision precision, void* stream) {
    check(c);
    gather<T, false>(y, x, weight, bias, gather_of_forward(c), c.groups, relu, precision, stream);
}

template <class T>
void convolution_input_gradient(T* dx, const T* dy, const T* weight, const Convolution& c, Precision precision,
                                void* stream) {
    check(c);
    for (int i = 0; i < c.stride_vertical; ++i)
        for (int j = 0; j < c.stride_horizontal; ++j)
            gather<T, true>(dx, dy, weight, static_cast<const Wide<T>*>(nullptr), gather_of_input_gradient(c, i, j), c.groups,
                            false, precision, stream);
}

#define INSTANTIATE(T) \
    template void convolution_forward(T*, const T*, const T*, const Wide<T>*, const Convolution&, bool, Precision, void*); \
    template void convolution_input_gradient(T*, const T*, const T*, const Convolution&, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
