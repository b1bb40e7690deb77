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
template <class T>
constexpr int step = parts * part<T>;

// Two layouts of a tile in shared memory; both give the eight rows of a matrix, or the lanes of a fragment, all banks.
// Terms together: [row][terms of a step], the 16-byte parts of a row exchanged by the row's number.
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
template <class T>
__device__ __forceinline__ std::uint32_t factors(std::uint32_t bits) {
    return std::is_same_v<T, float> ? to_tf32(bits_to_float(bits)) : bits;
}

// The 16 x depth fragment of rows from `row` on, of product k of the step.
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
#pragma unroll
    for (int v = 0; v < 4; ++v) a[v] = factors<T>(a[v]);
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
#pragma unroll
    for (int v = 0; v < 4; ++v) b[v] = factors<T>(b[v]);
}

// The products of one step: four, of 32 bytes of terms each.
template <class T, bool rows_apart, bool columns_apart>
__device__ __forceinline__ void multiply(FragmentC (&results)[2][4], const T* rows, const T* columns, int down, int across,
                                         int lane) {
#pragma unroll
    for (int k = 0; k < parts / 2; ++k) {
        FragmentA a[2];
        std::uint32_t b[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i) load_rows<T, rows_apart>(a[i], rows, down + 16 * i, k, lane);
#pragma unroll
        for (int j = 0; j < 2; ++j) load_columns<T, columns_apart>(b[j], columns, across + 16 * j, k, lane);
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const FragmentB column = {b[j / 2][2 * (j % 2)], b[j / 2][2 * (j % 2) + 1]};
                multiply_tile<T>(results[i][j], a[i], column);
            }
    }
}

// The pipeline over `count` steps; fetch(step, rows, columns) issues this thread's copies of one step, each step once
// and in order, and after() follows each step's products. `wanted`: this warp's results are (the same for all its
// lanes); else it copies only.
template <class T, bool rows_apart, bool columns_apart, class F, class A>
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
            multiply<T, rows_apart, columns_apart>(results, now, now + rows_size, warp / 2 * 32, warp % 2 * 32, lane);
        after();
    }
    copies_wait<0>();
}
template <class T, bool rows_apart, bool columns_apart, class F>
__device__ __forceinline__ void pipeline(FragmentC (&results)[2][4], T* memory, int count, F&& fetch) {
    pipeline<T, rows_apart, columns_apart>(results, memory, count, true, fetch, [] {});
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
