// What the files of convolution kernels share: the geometry of a gather, its products on plain arithmetic, and
// the tensor-core launchers.
#pragma once

#include "device.cuh"

namespace zf {

// One axis of a gather: output j and tap i meet at input j * stride + offset + i * tap_step; the output is
// cell first + j * spacing of its map, the tap is first_tap + i * tap_spacing of the filter.
struct Axis {
    int outputs, stride, offset;
    int taps, tap_step;
    int first, spacing;
    int first_tap, tap_spacing;
};

// A whole gather. Forward: out = y, in = x, depth = channels of a group, width = its filters. Input
// gradient: out = cells of dx of one phase, in = dy, depth = filters, width = channels.
struct Gather {
    Axis down, across;
    int batch;
    int in_rows, in_columns, in_channels;
    int out_rows, out_columns, out_channels;
    int depth, width;
    int filter_rows, filter_columns, filter_channels;  // of the weight (filters, rows, columns, channels)
};

// Where a number stands in three nested loops, the innermost fastest: a term in (row, column, channel) of a window, a
// cell in (image, row, column).
struct Digits {
    int high, middle, low;
};

// The sizes of the two inner loops. A kernel divides once and moves on by additions: a division costs some twenty
// instructions.
struct Radix {
    int middle, low;
    __device__ Digits of(int number) const {
        const int above = number / low;
        return {above / middle, above % middle, number - above * low};
    }
    // `step`: digits of what is added.
    __device__ void advance(Digits& at, const Digits& step) const {
        at.low += step.low;
        const bool over = at.low >= low;
        at.low -= over ? low : 0;
        at.middle += step.middle + over;
        const bool above = at.middle >= middle;
        at.middle -= above ? middle : 0;
        at.high += step.high + above;
    }
};

// Of a gather's window: terms in (row, column, channel).
__device__ __forceinline__ Radix radix_of(const Gather& g) { return {max(g.across.taps, 1), g.depth}; }

// Groups of so few columns that kernels of tiles would compute next to nothing but padding.
inline bool is_narrow(int groups, int columns) { return groups > 1 && columns <= 8; }

void check(const Convolution&);
Gather gather_of_forward(const Convolution&);
Gather gather_of_input_gradient(const Convolution&, int phase_down, int phase_across);

// -------------------------------------------------------------------------------- plain arithmetic

// A block of 256 threads computes 64 x 64 results, 4 x 4 a thread, in steps of 16 terms. While a step is
// multiplied from one half of the shared memory the next is on its way into the other.
constexpr int tile = 64, tile_step = 16, tile_padded = tile + 4, tile_threads = 256;

// Both halves of the rows (cells), then of the columns. A finished block may keep its 64 x 64 results here.
template <class A>
using Tiles = A[4][tile_step][tile_padded];

// results[i][j] += sum over the step's terms of rows[term][4 * down + i] * columns[term][4 * across + j].
template <class A>
__device__ __forceinline__ void multiply(A (&results)[4][4], const A (&rows)[tile_step][tile_padded],
                                         const A (&columns)[tile_step][tile_padded], int down, int across) {
#pragma unroll
    for (int term = 0; term < tile_step; ++term) {
        A a[4], b[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = rows[term][4 * down + i], b[i] = columns[term][4 * across + i];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) results[i][j] = fma(a[i], b[j], results[i][j]);
    }
}

// All steps of the terms from `begin` to `end`. fetch(from) reads one step into registers, each once and in order;
// put(half) writes it into a half of the shared memory.
template <class A, class F, class P>
__device__ __forceinline__ void add_products(A (&results)[4][4], const Tiles<A>& tiles, int begin, int end, F&& fetch,
                                             P&& put) {
    if (begin < end) {
        fetch(begin);
        put(0);
    }
    const int down = threadIdx.x / 16, across = threadIdx.x % 16;
    for (int from = begin, half = 0; from < end; from += tile_step, half ^= 1) {
        __syncthreads();
        if (from + tile_step < end) fetch(from + tile_step);
        multiply(results, tiles[half], tiles[2 + half], down, across);
        if (from + tile_step < end) put(half ^ 1);
    }
}

// A cell of a gather's output: its image, and its place on the two axes. No image (-1): no cell.
struct Cell {
    int image, p, q;
};

__device__ __forceinline__ Cell cell_of(const Gather& g, std::int64_t cell) {
    const Divided line = divide(cell, g.across.outputs), image = divide(line.quotient, g.down.outputs);
    return {image.quotient < g.batch ? int(image.quotient) : -1, image.remainder, line.remainder};
}

__host__ __device__ inline int terms_of(const Gather& g) { return g.down.taps * g.across.taps * g.depth; }

// The array that a gather reads, as it is.
template <class T>
struct Stored {
    using Image = const T*;
    const T* array;
    std::int64_t image_size;
    int columns, channels;
    __device__ Image image(int n) const { return array + n * image_size; }
    __device__ Wide<T> operator()(Image image, int r, int s, int channel) const {
        return widen(image[(std::int64_t(r) * columns + s) * channels + channel]);
    }
};

template <class T>
__device__ __forceinline__ Stored<T> stored(const T* in, const Gather& g) {
    return {in, std::int64_t(g.in_rows) * g.in_columns * g.in_channels, g.in_columns, g.in_channels};
}

// The block's 64 cells times 64 columns of a group: results[i][j] of cell 4 (t / 16) + i and column
// first_column + 4 (t % 16) + j. Sums run over (row, column, channel) of the window in order, one fused
// multiply-add a term, in one thread: a result depends on its own window alone. Thread t loads term t % 16 of
// cells t / 16 + 16 i, whose places `locate` tells; so they are worked out once, and the term's tap once a
// step. Filters: forward the same way (terms are neighbours), else 16 columns of terms t / 16 (columns are).
// Terms from `begin` to `end` alone are summed, a part of all.
template <bool transposed, class T, class Source, class Locate>
__device__ __forceinline__ void gather_products(Wide<T> (&results)[4][4], Tiles<Wide<T>>& tiles, const Source& source,
                                                const T* __restrict__ weight, const Gather& g, int group, int first_column,
                                                const Locate& locate, int begin, int end) {
    const int t = threadIdx.x, slow = t / tile_step, fast = t % tile_step;
    const int terms = terms_of(g);

    typename Source::Image image[4];
    int row[4], column[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const Cell cell = locate(slow + i * tile_step);
        image[i] = source.image(max(cell.image, 0));
        row[i] = cell.image >= 0 ? cell.p * g.down.stride + g.down.offset : -0x40000000;  // outside, whatever the tap
        column[i] = cell.q * g.across.stride + g.across.offset;
    }

    const Radix window = radix_of(g);
    const Digits per_step = window.of(tile_step);
    Digits signal = window.of(begin + fast), factor = transposed ? window.of(begin + slow) : Digits{};

    Wide<T> next_rows[4], next_columns[4];
    const auto fetch = [&](int from) {
        const int term = from + fast, channel = group * g.depth + signal.low;
        const int down = signal.high * g.down.tap_step, across = signal.middle * g.across.tap_step;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int r = row[i] + down, s = column[i] + across;
            const bool valid = term < end && within(r, g.in_rows) && within(s, g.in_columns);
            next_rows[i] = valid ? source(image[i], r, s, channel) : Wide<T>(0);
        }
        window.advance(signal, per_step);
        const int r = g.down.first_tap + factor.high * g.down.tap_spacing;
        const int s = g.across.first_tap + factor.middle * g.across.tap_spacing;
        const std::int64_t k = std::int64_t(group) * g.depth + factor.low;
        const std::int64_t line = ((k * g.filter_rows + r) * g.filter_columns + s) * g.filter_channels;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            Wide<T> value = 0;
            if (!transposed) {
                const int filter = first_column + slow + i * tile_step;
                if (term < end && filter < g.width)
                    value = widen(weight[(std::int64_t(group) * g.width + filter) * terms + term]);
            } else {
                const int c = first_column + fast + i * tile_step;
                if (from + slow < end && c < g.width) value = widen(weight[line + c]);
            }
            next_columns[i] = value;
        }
        if (transposed) window.advance(factor, per_step);
    };
    const auto put = [&](int half) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            tiles[half][fast][slow + i * tile_step] = next_rows[i];
            if (!transposed)
                tiles[2 + half][fast][slow + i * tile_step] = next_columns[i];
            else
                tiles[2 + half][slow][fast + i * tile_step] = next_columns[i];
        }
    };

    add_products(results, tiles, begin, end, fetch, put);
}

// One of a gather's sums by itself, the terms and their order as above: what gather_products makes of this cell and
// this column of the group. 0 where there is none.
template <bool transposed, class T, class Source>
__device__ Wide<T> gather_sum(const Source& source, const T* __restrict__ weight, const Gather& g, int group,
                              const Cell& cell, int column) {
    Wide<T> sum = 0;
    if (cell.image < 0 || column >= g.width) return sum;
    const typename Source::Image image = source.image(cell.image);
    const T* filter = weight + (std::int64_t(group) * g.width + column) * terms_of(g);
    for (int i = 0; i < g.down.taps; ++i)
        for (int j = 0; j < g.across.taps; ++j) {
            const int r = cell.p * g.down.stride + g.down.offset + i * g.down.tap_step;
            const int s = cell.q * g.across.stride + g.across.offset + j * g.across.tap_step;
            const bool inside = within(r, g.in_rows) && within(s, g.in_columns);
            const int row = g.down.first_tap + i * g.down.tap_spacing, tap = g.across.first_tap + j * g.across.tap_spacing;
#pragma unroll 1
            for (int k = 0; k < g.depth; ++k) {
                const std::int64_t line =
                    ((std::int64_t(group) * g.depth + k) * g.filter_rows + row) * g.filter_columns + tap;
                const T factor = transposed ? weight[line * g.filter_channels + column] : *filter++;
                sum = fma(inside ? source(image, r, s, group * g.depth + k) : Wide<T>(0), widen(factor), sum);
            }
        }
    return sum;
}

// A result with its bias, rectified; as it will be in memory.
template <class T>
__device__ __forceinline__ T finished(Wide<T> value, const Wide<T>* bias, int filter, bool relu) {
    if (bias) value += bias[filter];
    return narrow<T>(relu && value <= 0 ? Wide<T>(0) : value);
}

// Where the group's columns of a cell begin.
template <class T>
__device__ __forceinline__ T* columns_of(T* out, const Gather& g, int group, const Cell& cell) {
    const int r = g.down.first + cell.p * g.down.spacing, s = g.across.first + cell.q * g.across.spacing;
    return out + ((std::int64_t(cell.image) * g.out_rows + r) * g.out_columns + s) * g.out_channels + group * g.width;
}

// Writes the block's results to their cells.
template <class T, class Locate>
__device__ __forceinline__ void store_results(T* __restrict__ out, const Wide<T> (&results)[4][4], const Wide<T>* bias,
                                              const Gather& g, int group, int first_column, bool relu,
                                              const Locate& locate) {
    const int down = threadIdx.x / 16, across = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const Cell cell = locate(down * 4 + i);
        if (cell.image < 0) continue;
        T* place = columns_of(out, g, group, cell);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int c = first_column + across * 4 + j;
            if (c < g.width) place[c] = finished<T>(results[i][j], bias, group * g.width + c, relu);
        }
    }
}

// ------------------------------------------------------------------------------------ tensor cores

// In convolution_tensor.cu, for float (factors rounded to tf32, or split in two), float16 and bfloat16. False, and
// nothing done, where the device has no such tensor cores.
template <class T, bool transposed>
bool gather_tensor(T* out, const T* in, const T* weight, const float* bias, const Gather&, int groups, bool relu,
                   Precision, void* stream);
template <class T>
bool weight_gradient_tensor(float* parts, const T* dy, const T* x, const Convolution&, int part_count, int part_cells,
                            Precision, void* stream);

// Whether tensor cores are asked for; a precision that is none of T's is refused.
template <class T>
bool on_tensor_cores(Precision precision) {
    constexpr bool single = std::is_same_v<T, float>;
    constexpr Precision own = single                        ? Precision::tf32
                              : std::is_same_v<T, float16>  ? Precision::float16
                              : std::is_same_v<T, bfloat16> ? Precision::bfloat16
                                                            : Precision::float32;
    ZF_CHECK(precision == Precision::float32 || precision == own || (single && precision == Precision::tf32x3),
             "convolution: tf32 and tf32x3 are precisions of float32 arrays, float16 and bfloat16 are precisions of their own");
    return precision != Precision::float32;
}

}  // namespace zf
