// Fully connected layers on tensor cores: few rows, so the terms are cut into pieces (linear.cuh) for enough blocks.
// Tiles and pipeline are those of tensor_tiles.cuh; float32 factors are rounded to tf32.
#include "linear.cuh"
#include "tensor_tiles.cuh"

namespace zf {
namespace {

// ------------------------------------------------------------------------------------------ kernel

// Grid: x over tiles of rows, y over tiles of columns, z over pieces where `sums` keeps each of them; else one block
// makes them all, in one pipeline, and adds them. Thread t copies part t % 8 of rows t / 8 + 32 i; of the weights the
// same way, or, transposed, one part of 64 / part columns of every (256 part / 64)th term; each part in copies of
// `count`. Warps without a row multiply nothing.
template <class T, bool transposed, int count, bool split>
__global__ void __launch_bounds__(block_threads, blocks<T, count, split>)
linear_tensor_kernel(T* __restrict__ out, float* __restrict__ sums, const T* __restrict__ in, const T* __restrict__ weight,
                     const float* __restrict__ bias, int rows, int columns, int terms, int piece, bool relu, bool pairs) {
    DYNAMIC_SHARED(T, memory);
    constexpr int wide = tile_columns / part<T>, terms_apart = block_threads / wide;
    const int t = threadIdx.x, warp = t / 32, lane = t % 32;
    const int first_row = int(blockIdx.x) * tile_rows, first_column = int(blockIdx.y) * tile_columns;
    const int begin = int(blockIdx.z) * piece, end = sums ? min(begin + piece, terms) : terms;
    const int own_row = first_row + t / parts, own_column = first_column + t / parts, own_part = t % parts * part<T>;
    const T* row = in + std::int64_t(own_row) * terms;

    const auto copy_rows = [&](T* to, int first) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll 1
            for (int offset = 0; offset < part<T>; offset += count) {
                const int term = first + own_part + offset;
                const bool valid = term < end && own_row + 32 * i < rows;
                copy_async<count>(to + swizzled<T>(t / parts, own_part + offset) + 32 * i * step<T>,
                                  valid ? row + std::int64_t(32 * i) * terms + term : in, valid);
            }
    };
    const auto copy_weights = [&](T* to, int first) {
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll 1
            for (int offset = 0; offset < part<T>; offset += count) {
                if (!transposed) {
                    const int term = first + own_part + offset, column = own_column + 32 * i;
                    const bool valid = term < end && column < columns;
                    copy_async<count>(to + swizzled<T>(t / parts, own_part + offset) + 32 * i * step<T>,
                                      weight + (valid ? std::int64_t(column) * terms + term : 0), valid);
                } else {
                    const int line = t / wide + terms_apart * i, term = first + line, column = t % wide * part<T> + offset;
                    const bool valid = term < end && first_column + column < columns;
                    copy_async<count>(to + apart<tile_columns>(line, column),
                                      weight + (valid ? std::int64_t(term) * columns + first_column + column : 0), valid);
                }
            }
    };
    const auto fetch = [&](int number, T* to_rows, T* to_columns) {
        const int first = begin + number * step<T>;
        copy_rows(to_rows, first);
        copy_weights(to_columns, first);
    };

    FragmentC results[2][4] = {}, totals[2][4] = {};
    const int all = divide_up(end - begin, step<T>), steps = piece / step<T>;
    int piece_end = steps;  // in steps
    // The sum of the pieces so far is in registers, or, of split factors, whose products need those, in `out`; the last
    // piece, and the only one where `sums` keeps them, is added after the pipeline.
    const auto add_piece = [&] {
        if constexpr (split)
            mend(results, [&](int down, int across) {
                const int own = first_row + down, column = first_column + across;
                const int last = begin + piece_end * step<T>;
                float sum = 0;
                if (own < rows && column < columns)
#pragma unroll 1
                    for (int term = last - piece; term < min(last, terms); ++term)
                        sum = fma(in[std::int64_t(own) * terms + term],
                                  weight[transposed ? std::int64_t(term) * columns + column
                                                    : std::int64_t(column) * terms + term],
                                  sum);
                return sum;
            });
        const int thread = opaque(t), down = first_row + thread / 64 * 32 + thread % 32 / 4;
        const int across = first_column + thread / 32 % 2 * 32 + thread % 4 * 2;
#pragma unroll
        for (int i = 0; i < 8 * 4; ++i) {
            float &result = results[i / 16][i / 4 % 4][i % 4], &total = totals[i / 16][i / 4 % 4][i % 4];
            if constexpr (split) {
                const int own = down + i / 16 * 16 + i / 2 % 2 * 8, column = across + i / 4 % 4 * 8 + i % 2;
                const bool kept = own < rows && column < columns;
                T* place = out + (kept ? std::int64_t(own) * columns + column : 0);
                total = result + (kept && piece_end > steps ? *place : T(0));
                if (kept && piece_end < all) *place = total;
            } else {
                total += result;
            }
            result = 0;
        }
        piece_end += steps;
    };
    pipeline<T, false, transposed, split>(results, memory, all, first_row + warp / 2 * 32 < rows, fetch, [&](int done) {
        if (done == piece_end && done < all) add_piece();
    });
    add_piece();

    const auto finished = [&](float value, int column) {
        if (bias && column < columns) value += bias[column];
        return relu && value <= 0 ? 0.0f : value;
    };
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int down = first_row + warp / 2 * 32 + 16 * i + lane / 4 + 8 * half;
            if (down >= rows) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int column = first_column + warp % 2 * 32 + 8 * j + 2 * (lane % 4);
                const float first = totals[i][j][2 * half], second = totals[i][j][2 * half + 1];
                if (sums)
                    store_pair(sums + (std::int64_t(blockIdx.z) * rows + down) * columns, column, columns, pairs, first, second);
                else
                    store_pair(out + std::int64_t(down) * columns, column, columns, pairs, finished(first, column),
                               finished(second, column + 1));
            }
        }
}

}  // namespace

// ---------------------------------------------------------------------------------------- launcher

template <class T, bool transposed>
bool linear_tensor(T* out, float* sums, const T* in, const T* weight, const float* bias, int rows, int columns, int terms,
                   bool relu, Precision precision, void* stream) {
    const int piece = tensor_piece(columns, terms), pieces = sums ? divide_up(terms, piece) : 1;
    const unsigned tiles = blocks_yz(divide_up(columns, tile_columns));
    ZF_CHECK(std::int64_t(tiles) * tile_columns >= columns, "linear: too many inputs or outputs");
    const bool pairs = columns % 2 == 0 && (sums ? aligned(sums, 8) : aligned(out, 2 * sizeof(T)));
    // A copy's terms are one row's, its columns one term's, and all begin at multiples of its bytes.
    const bool whole = allows<T, part<T>>(terms | (transposed ? columns : 0), in, weight);
    auto kernel =
        whole ? linear_tensor_kernel<T, transposed, part<T>, false> : linear_tensor_kernel<T, transposed, 1, false>;
    if constexpr (std::is_same_v<T, float>)
        if (precision == Precision::tf32x3)
            kernel = whole ? linear_tensor_kernel<T, transposed, part<T>, true> : linear_tensor_kernel<T, transposed, 1, true>;
    if (!tensor_cores(kernel)) return false;
    launch({{blocks_x(rows, tile_rows), tiles, unsigned(pieces)}, block_threads, stream, shared_bytes<T>(false, transposed)},
           kernel, out, sums, in, weight, bias, rows, columns, terms, piece, relu, pairs);
    return true;
}

#define INSTANTIATE(T) \
    template bool linear_tensor<T, false>(T*, float*, const T*, const T*, const float*, int, int, int, bool, Precision, \
                                         void*); \
    template bool linear_tensor<T, true>(T*, float*, const T*, const T*, const float*, int, int, int, bool, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
