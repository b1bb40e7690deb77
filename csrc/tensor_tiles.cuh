// What the files of tensor-core products share: tiles in shared memory, their fragments, the pipeline of copies.
//
// A block of eight warps computes 128 x 64 results in steps of 128 bytes of terms (32 floats, or 64 of 16 bits); a
// warp 32 x 32 of them, as 2 x 4 tiles of 16 x 8. Three steps are in flight: cp.async fills one part of the shared
// memory while another is multiplied.
#pragma once

#include "gather.cuh"

namespace zf {

constexpr int tile_rows = 128, tile_columns = 64, stages = 3, block_threads = 256;
constexpr int parts = 8;  // 16-byte copies in a step of one row of terms
template <class T>
constexpr int part = 16 / int(sizeof(T));  // terms in one of them
// Blocks on a multiprocessor, for __launch_bounds__: two leave 128 registers, too few for split factors and copies in a
// loop.
template <class T, int count, bool split>
constexpr int blocks = split && count < part<T> ? 1 : 2;
template <class T>
constexpr int step = parts * part<T>;

// Two layouts of a tile in shared memory; both give the eight rows of a matrix, or the lanes of a fragment, all banks.
// Terms together: [row][terms of a step], the 16-byte parts of a row exchanged by the row's number; so rows a multiple
// of eight apart are that many steps apart.
template <class T>
__device__ __forceinline__ int swizzled(int row, int term) {
    return row * step<T> + ((term / part<T>) ^ (row % parts)) * part<T> + term % part<T>;
}
// Terms apart: [term][width], rows 8 elements longer than the tile.
template <int width>
__device__ __forceinline__ int apart(int term, int row) {
    return term * (width + 8) + row;
}

template <class T>
__host__ __device__ constexpr int tile_size(bool terms_apart, int width) {
    return (terms_apart ? width + 8 : width) * step<T>;
}

// What goes into the tensor core: floats are rounded, 16 bits are factors already.
template <class T, int count>
__device__ __forceinline__ void round_factors(std::uint32_t (&bits)[count]) {
    if constexpr (std::is_same_v<T, float>) {
#pragma unroll
        for (int v = 0; v < count; ++v) bits[v] = to_tf32(bits_to_float(bits[v]));
    }
}

// Splits float32 factors into big + small, both tf32. `big` is the nearest (ties away from zero; made of integers, as
// to_tf32 may leave bits below tf32's in the register, which nobody multiplies but a difference would see); what is
// left has 12 bits and a sign, so cutting it off loses the last of them at most: 2^-23 of the factor. An infinite or
// overflowing `big` leaves an infinite or NaN `small`, a NaN factor a NaN: what is made of them is never finite (mend).
template <int count>
__device__ __forceinline__ void split_factors(std::uint32_t (&big)[count], std::uint32_t (&small)[count]) {
#pragma unroll
    for (int v = 0; v < count; ++v) {
        const float whole = bits_to_float(big[v]);
        big[v] = (big[v] + 0x1000u) & ~0x1fffu;
        small[v] = float_to_bits(whole - bits_to_float(big[v])) & ~0x1fffu;
    }
}

// The 16 x depth fragment of rows from `row` on, of product k of the step, as in memory.
template <class T, bool terms_apart>
__device__ __forceinline__ void load_rows(FragmentA& a, const T* rows, int row, int k, int lane) {
    const int matrix = lane / 8, line = lane % 8;
    if constexpr (!terms_apart) {
        load_matrices<false>(a, rows + swizzled<T>(row + 8 * (matrix & 1) + line, (2 * k + (matrix >> 1)) * part<T>));
    } else if constexpr (sizeof(T) == 2) {
        load_matrices<true>(a, rows + apart<tile_rows>(16 * k + 8 * (matrix >> 1) + line, row + 8 * (matrix & 1)));
    } else {
#pragma unroll
        for (int v = 0; v < 4; ++v)
            a[v] = float_to_bits(rows[apart<tile_rows>(8 * k + lane % 4 + 4 * (v >> 1), row + lane / 4 + 8 * (v & 1))]);
    }
}

// Two depth x 8 fragments, of columns from `column` on and of the next eight: b[2 i + v] is register v of i.
template <class T, bool terms_apart>
__device__ __forceinline__ void load_columns(std::uint32_t (&b)[4], const T* columns, int column, int k, int lane) {
    const int matrix = lane / 8, line = lane % 8;
    if constexpr (!terms_apart) {
        load_matrices<false>(b, columns + swizzled<T>(column + 8 * (matrix >> 1) + line, (2 * k + (matrix & 1)) * part<T>));
    } else if constexpr (sizeof(T) == 2) {
        load_matrices<true>(b, columns + apart<tile_columns>(16 * k + 8 * (matrix & 1) + line, column + 8 * (matrix >> 1)));
    } else {
#pragma unroll
        for (int v = 0; v < 4; ++v)
            b[v] = float_to_bits(
                columns[apart<tile_columns>(8 * k + lane % 4 + 4 * (v & 1), column + lane / 4 + 8 * (v >> 1))]);
    }
}

// sums[j] += a times the columns of fragment j.
template <class T>
__device__ __forceinline__ void multiply_row(FragmentC (&sums)[4], const FragmentA& a, const std::uint32_t (&b)[2][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const FragmentB column = {b[j / 2][2 * (j % 2)], b[j / 2][2 * (j % 2) + 1]};
        multiply_tile<T>(sums[j], a, column);
    }
}

// The products of one step: four, of 32 bytes of terms each. `split`: each is three products of split factors, the
// smallest first (small times small is less than what is lost anyway), summed from zero and then added to the results:
// tensor cores cut off what they add, always towards zero, so a sum as long as a window's would drift; ordinary
// additions, in the order of the terms, round to the nearest.
template <class T, bool rows_apart, bool columns_apart, bool split>
__device__ __forceinline__ void multiply(FragmentC (&results)[2][4], const T* rows, const T* columns, int down, int across,
                                         int lane) {
    // Factors' loads, all at once, and their parts would need more registers than there are.
    [[maybe_unused]] constexpr int copies = split ? 1 : parts / 2;
#pragma unroll copies
    for (int k = 0; k < parts / 2; ++k) {
        std::uint32_t b[2][4];
#pragma unroll
        for (int j = 0; j < 2; ++j) load_columns<T, columns_apart>(b[j], columns, across + 16 * j, k, lane);
        if constexpr (split) {
            std::uint32_t b_small[2][4];
#pragma unroll
            for (int j = 0; j < 2; ++j) split_factors(b[j], b_small[j]);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                FragmentA a, a_small;
                load_rows<T, rows_apart>(a, rows, down + 16 * i, k, lane);
                split_factors(a, a_small);
                FragmentC sums[4] = {};
                multiply_row<T>(sums, a_small, b);
                multiply_row<T>(sums, a, b_small);
                multiply_row<T>(sums, a, b);
#pragma unroll
                for (int j = 0; j < 4 * 4; ++j) results[i][j / 4][j % 4] += sums[j / 4][j % 4];
            }
        } else {
            FragmentA a[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) load_rows<T, rows_apart>(a[i], rows, down + 16 * i, k, lane);
#pragma unroll
            for (int i = 0; i < 2; ++i) round_factors<T>(a[i]), round_factors<T>(b[i]);
#pragma unroll
            for (int i = 0; i < 2; ++i) multiply_row<T>(results[i], a[i], b);
        }
    }
}

// Where a sum of split factors is not finite, plain arithmetic's: a factor was infinite or NaN, or so large that its
// big part overflowed, and inf - inf, or inf times a small part that is 0 or of the other sign, made NaN of what may
// be infinite, or finite. Finite sums hold no such factor. sum(row, column) of the block's tile; where there is no such
// row or column, anything. A result's own terms alone decide. Rare, so a loop, and no array that it would index.
template <class F>
__device__ __forceinline__ void mend(FragmentC (&results)[2][4], F&& sum) {
    unsigned wrong = 0;
#pragma unroll
    for (int i = 0; i < 8 * 4; ++i)
        wrong |= unsigned(!is_finite(results[i / 16][i / 4 % 4][i % 4])) << i;
#pragma unroll 1
    for (int n = 0; wrong; ++n, wrong >>= 1) {
        if (!(wrong & 1)) continue;
        const int t = opaque(int(threadIdx.x)), warp = t / 32, lane = t % 32;
        const float value = sum(warp / 2 * 32 + n / 16 * 16 + n / 2 % 2 * 8 + lane / 4,
                                warp % 2 * 32 + n / 4 % 4 * 8 + lane % 4 * 2 + n % 2);
#pragma unroll
        for (int i = 0; i < 8 * 4; ++i)
            if (i == n) results[i / 16][i / 4 % 4][i % 4] = value;
    }
    __syncwarp();  // the next products are the whole warp's
}

// The pipeline over `count` steps; fetch(step, rows, columns) issues this thread's copies of one step, each step once
// and in order, and after(steps done) follows each step's products. `wanted`: this warp's results are (the same for all
// its lanes); else it copies only.
template <class T, bool rows_apart, bool columns_apart, bool split = false, class F, class A>
__device__ __forceinline__ void pipeline(FragmentC (&results)[2][4], T* memory, int count, bool wanted, F&& fetch,
                                         A&& after) {
    constexpr int rows_size = tile_size<T>(rows_apart, tile_rows);
    constexpr int size = rows_size + tile_size<T>(columns_apart, tile_columns);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < stages - 1; ++i) {
        if (i < count) fetch(i, memory + i * size, memory + i * size + rows_size);
        copies_commit();
    }
    T *now = memory, *free = memory + (stages - 1) * size;
    const auto next = [&](T* stage) { return stage == memory + (stages - 1) * size ? memory : stage + size; };
    for (int i = 0; i < count; ++i, now = next(now), free = next(free)) {
        copies_wait<stages - 2>();
        __syncthreads();  // the copies of all threads are there, and the stage before last is free
        if (i + stages - 1 < count) fetch(i + stages - 1, free, free + rows_size);
        copies_commit();
        if (wanted)
            multiply<T, rows_apart, columns_apart, split>(results, now, now + rows_size, warp / 2 * 32, warp % 2 * 32, lane);
        after(i + 1);
    }
    copies_wait<0>();
}
template <class T, bool rows_apart, bool columns_apart, bool split = false, class F>
__device__ __forceinline__ void pipeline(FragmentC (&results)[2][4], T* memory, int count, F&& fetch) {
    pipeline<T, rows_apart, columns_apart, split>(results, memory, count, true, fetch, [](int) {});
}

// A result with its bias, rectified; before it is rounded.
__device__ __forceinline__ float with_bias(float value, const float* bias, const Gather& g, int group, int column,
                                           bool relu) {
    if (bias && column < g.width) value += bias[group * g.width + column];
    return relu && value <= 0 ? 0.0f : value;
}

// Two neighbouring results, the first at a column that is even; `pairs`: they can be written at once.
template <class T>
__device__ __forceinline__ void store_pair(T* target, int column, int width, bool pairs, float first, float second) {
    if (pairs && column < width) {
        store(target + column, Vector<float, 2>{{first, second}});
    } else {
        if (column < width) target[column] = narrow<T>(first);
        if (column + 1 < width) target[column + 1] = narrow<T>(second);
    }
}

// --------------------------------------------------------------------------------------- launchers

template <class T>
constexpr std::size_t shared_bytes(bool rows_apart, bool columns_apart) {
    return sizeof(T) * stages * std::size_t(tile_size<T>(rows_apart, tile_rows) + tile_size<T>(columns_apart, tile_columns));
}

// Whether sizes (their bits together) and addresses are multiples of copies of `count`, a power of two.
template <class T, int count>
bool allows(int sizes, const T* a, const T* b) {
    return sizes % count == 0 && aligned(a, count * sizeof(T)) && aligned(b, count * sizeof(T));
}

}  // namespace zf
