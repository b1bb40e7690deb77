// What the files of gathers on tensor cores share: the block's cells and filters in the pipeline of tensor_tiles.cuh,
// and the way of its results to memory.
//
// A block's 128 cells are those that `locate(i)` tells, i from 0 to 127; where they come from is a source's affair:
// source(rows) fills this thread's share of one step, each step once and in order.
#pragma once

#include "tensor_tiles.cuh"

namespace zf {

// The first cell of a window in the input of a gather: its offset (it may lie outside, where nothing is read), and its
// place in the map. Four words, so that one access reads them.
struct Origin {
    Vector<std::int32_t, 4> words;
    __device__ std::int64_t offset() const { return std::int64_t(words[1]) << 32 | std::uint32_t(words[0]); }
    __device__ int row() const { return words[2]; }
    __device__ int column() const { return words[3]; }
};

template <class Locate>
__device__ __forceinline__ Origin origin_of(const Gather& g, int group, const Locate& locate, int i) {
    const Cell cell = locate(i);
    const int row = cell.p * g.down.stride + g.down.offset, column = cell.q * g.across.stride + g.across.offset;
    const std::int64_t line = std::int64_t(cell.image) * g.in_rows + row;
    const std::int64_t offset = (line * g.in_columns + column) * g.in_channels + group * g.depth;
    const int inside = cell.image >= 0 ? row : -0x40000000;  // no image: outside, whatever the tap
    return {{{std::int32_t(offset), std::int32_t(offset >> 32), inside, column}}};
}

// The array that a gather reads, as it is. Thread t copies part t % 8 of cells t / 8 + 32 i, in copies of `count` terms,
// as depth and addresses allow (a first layer's three channels: pad_channels makes them four). Smaller copies are made
// in a loop: unrolled they need more registers than two blocks leave. A cell's place is worked out by one of its eight
// threads, thread t that of cell t / 8 + 32 (t % 8), and kept in shared memory, not in registers.
template <class T, int count>
struct Copied {
    const T* __restrict__ in;
    const Gather& g;
    const Origin* own;  // of cell t / 8
    Radix window;
    Digits per_step, per_copy, next;
    template <class Locate>
    __device__ __forceinline__ Copied(const T* in, const Gather& g, int group, const Locate& locate)
        : in(in), g(g), window(radix_of(g)), per_step(window.of(step<T>)), per_copy(window.of(count)),
          next(window.of(threadIdx.x % parts * part<T>)) {
        SHARED_ARRAY(Origin, places, [tile_rows]);
        const int t = threadIdx.x, mine = t / parts + 32 * (t % parts);
        if (mine < tile_rows) places[mine] = origin_of(g, group, locate, mine);
        __syncwarp();
        own = places + t / parts;
    }
    __device__ __forceinline__ void operator()(T* rows) {
        const int t = threadIdx.x;
        Digits at = next;
        Origin place[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // all of them before the first copy: sm_80 has to wait where these alternate
            place[i] = own[32 * i];
            keep_whole(place[i].words);
        }
#pragma unroll 1
        for (int offset = 0; offset < part<T>; offset += count, window.advance(at, per_copy)) {
            const int down = at.high * g.down.tap_step, across = at.middle * g.across.tap_step;
            const std::int64_t from = (std::int64_t(down) * g.in_columns + across) * g.in_channels + at.low;
            const bool has_term = at.high < g.down.taps;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool valid = has_term && within(place[i].row() + down, g.in_rows) &&
                                   within(place[i].column() + across, g.in_columns);
                copy_async<count>(rows + swizzled<T>(t / parts, t % parts * part<T> + offset) + 32 * i * step<T>,
                                  in + (valid ? place[i].offset() + from : 0), valid);
            }
        }
        window.advance(next, per_step);
    }
};

// The block's cells times 64 filters, or channels, of a group from `first_column` on. Filters are copied the same way
// as cells, or, transposed, thread t copies one part of 64 / part columns of every (256 part / 64)th term.
template <class T, bool transposed, int count, bool split = false, class Source>
__device__ __forceinline__ void gather_products(FragmentC (&results)[2][4], T* memory, Source& source,
                                                const T* __restrict__ weight, const Gather& g, int group,
                                                int first_column) {
    constexpr int wide = tile_columns / part<T>, terms_apart = block_threads / wide;
    const int t = threadIdx.x, terms = terms_of(g);
    const Radix window = radix_of(g);
    const Digits per_step = window.of(step<T>), per_row = window.of(terms_apart);
    const int own_filter = first_column + t / parts, own_part = t % parts * part<T>;
    const std::int64_t filters = (std::int64_t(group) * g.width + own_filter) * terms;
    Digits next = transposed ? window.of(t / wide) : Digits{};

    const auto copy_filters = [&](T* columns, int first) {
        Digits at = next;
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
                    copy_async<count>(columns + swizzled<T>(t / parts, own_part + offset) + 32 * i * step<T>,
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
        if (transposed) window.advance(next, per_step);
    };
    const auto fetch = [&](int number, T* rows, T* columns) {
        source(rows);
        copy_filters(columns, number * step<T>);
    };
    pipeline<T, false, transposed, split>(results, memory, divide_up(terms, step<T>), fetch);
}

// Writes the block's results to their cells; `pairs`: two neighbours at once.
template <class T, class Locate>
__device__ __forceinline__ void store_results(T* __restrict__ out, const FragmentC (&results)[2][4], const float* bias,
                                              const Gather& g, int group, int first_column, bool relu, bool pairs,
                                              const Locate& locate) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Cell cell = locate(warp / 2 * 32 + 16 * i + lane / 4 + 8 * half);
            if (cell.image < 0) continue;
            T* target = columns_of(out, g, group, cell);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int column = first_column + warp % 2 * 32 + 8 * j + 2 * (lane % 4);
                store_pair(target, column, g.width, pairs,
                           with_bias(results[i][j][2 * half], bias, g, group, column, relu),
                           with_bias(results[i][j][2 * half + 1], bias, g, group, column + 1, relu));
            }
        }
}

}  // namespace zf
