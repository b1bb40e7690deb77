// Fully connected layers: matrix products in fixed tiles, on plain arithmetic (here) or tensor cores (linear_tensor.cu).
//
// Sums are made in pieces of terms (linear.cuh), added in order. Where the tiles fill the device a block makes all
// pieces of its results; where there are few rows each piece is another block's, and a second kernel adds them in
// the same order: the same bits, so a row's result does not depend on how many there are.
#include "linear.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// A piece has an even number of steps: it ends in the half of the shared memory that the next does not begin in.
constexpr int piece = plain_piece;
static_assert(piece % (2 * tile_step) == 0);

// Grid: x over tiles of 64 rows, y over tiles of 64 columns.
template <class T, bool transposed>
__global__ void __launch_bounds__(tile_threads, sizeof(T) == 8 ? 1 : 2)
linear_kernel(T* __restrict__ out, const T* __restrict__ in, const T* __restrict__ weight,
              const Wide<T>* __restrict__ bias, Gather g, bool relu) {
    SHARED_ARRAY(Wide<T>, tiles, [4][tile_step][tile_padded]);
    const int first_column = int(blockIdx.y) * tile, terms = terms_of(g);
    const std::int64_t first_row = std::int64_t(blockIdx.x) * tile;
    const auto locate = [&](int i) { return cell_of(g, first_row + i); };
    Wide<T> totals[4][4] = {};
    for (int begin = 0; begin < terms; begin += piece) {
        Wide<T> results[4][4] = {};
        gather_products<transposed>(results, tiles, stored(in, g), weight, g, 0, first_column, locate, begin,
                                    min(begin + piece, terms));
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) totals[i][j] += results[i][j];
    }
    store_results(out, totals, bias, g, 0, first_column, relu, locate);
}

// sums[piece] (rows, columns). Grid: x over tiles of 64 rows, y over tiles of 64 columns, z over pieces.
template <class T, bool transposed>
__global__ void __launch_bounds__(tile_threads, sizeof(T) == 8 ? 1 : 2)
linear_piece_kernel(Wide<T>* __restrict__ sums, const T* __restrict__ in, const T* __restrict__ weight, Gather g) {
    SHARED_ARRAY(Wide<T>, tiles, [4][tile_step][tile_padded]);
    const int first_column = int(blockIdx.y) * tile, begin = int(blockIdx.z) * piece;
    const std::int64_t first_row = std::int64_t(blockIdx.x) * tile;
    const auto locate = [&](int i) { return cell_of(g, first_row + i); };
    Wide<T> results[4][4] = {};
    gather_products<transposed>(results, tiles, stored(in, g), weight, g, 0, first_column, locate, begin,
                                min(begin + piece, terms_of(g)));
    Wide<T>* mine = sums + std::int64_t(blockIdx.z) * g.batch * g.width;
    store_results<Wide<T>>(mine, results, nullptr, g, 0, first_column, false, locate);
}

// A thread adds the pieces of one result in their order.
template <class T>
__global__ void __launch_bounds__(256)
linear_sum_kernel(T* __restrict__ out, const Wide<T>* __restrict__ sums, const Wide<T>* __restrict__ bias,
                  std::int64_t size, int columns, int pieces, bool relu) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= size) return;
    Wide<T> total = 0;
    for (int i = 0; i < pieces; ++i) total += sums[i * size + item];
    out[item] = finished<T>(total, bias, int(item % columns), relu);
}

// --------------------------------------------------------------------------------------- launchers

// How many pieces are other blocks' each: none where the tiles of `height` rows are enough blocks.
int pieces_apart(int rows, int columns, int terms, int height, int length) {
    const bool few = std::int64_t(divide_up(rows, height)) * divide_up(columns, tile) < enough_blocks;
    return few && terms > length ? divide_up(terms, length) : 0;
}
int plain_pieces(int rows, int columns, int terms) { return pieces_apart(rows, columns, terms, tile, piece); }
int tensor_pieces(int rows, int columns, int terms) {
    return pieces_apart(rows, columns, terms, 2 * tile, tensor_piece(columns, terms));
}

// A layer as a convolution of maps of one cell.
Convolution one_cell(int rows, int inputs, int outputs) {
    return {rows, 1, 1, inputs, outputs, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1};
}

template <class T>
void add_pieces(T* out, const Wide<T>* sums, const Wide<T>* bias, int rows, int columns, int pieces, bool relu, void* stream) {
    const std::int64_t size = std::int64_t(rows) * columns;
    launch({blocks_x(size, 256), 256, stream}, linear_sum_kernel<T>, out, sums, bias, size, columns, pieces, relu);
}

template <class T, bool transposed>
void multiply(T* out, Wide<T>* workspace, const T* in, const T* weight, const Wide<T>* bias, const Gather& g, bool relu,
              Precision precision, void* stream) {
    const int terms = terms_of(g);
    const bool tensor = on_tensor_cores<T>(precision);
    if constexpr (!std::is_same_v<T, double>)
        if (tensor) {
            const int pieces = tensor_pieces(g.batch, g.width, terms);
            float* sums = pieces ? workspace : nullptr;
            if (linear_tensor<T, transposed>(out, sums, in, weight, bias, g.batch, g.width, terms, relu, precision, stream)) {
                if (sums) add_pieces(out, sums, bias, g.batch, g.width, pieces, relu, stream);
                return;
            }
            workspace = nullptr;  // its size is that of other pieces
        }
    const unsigned tiles = blocks_yz(divide_up(g.width, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= g.width && divide_up(terms, piece) <= 65535, "linear: too many inputs or outputs");
    const unsigned rows = blocks_x(g.batch, tile);
    const int pieces = plain_pieces(g.batch, g.width, terms);
    if (!workspace || !pieces)
        return launch({{rows, tiles}, tile_threads, stream}, linear_kernel<T, transposed>, out, in, weight, bias, g, relu);
    launch({{rows, tiles, unsigned(pieces)}, tile_threads, stream}, linear_piece_kernel<T, transposed>, workspace, in, weight,
           g);
    add_pieces(out, workspace, bias, g.batch, g.width, pieces, relu, stream);
}

}  // namespace

std::int64_t linear_workspace(int rows, int columns, int terms, Precision precision) {
    const int pieces = (precision == Precision::float32 ? plain_pieces : tensor_pieces)(rows, columns, terms);
    return std::int64_t(pieces) * rows * columns;
}

template <class T>
void linear_forward(T* y, Wide<T>* workspace, const T* x, const T* weight, const Wide<T>* bias, int rows, int inputs,
                    int outputs, bool relu, Precision precision, void* stream) {
    const Convolution layer = one_cell(rows, inputs, outputs);
    check(layer);
    multiply<T, false>(y, workspace, x, weight, bias, gather_of_forward(layer), relu, precision, stream);
}

template <class T>
void linear_input_gradient(T* dx, Wide<T>* workspace, const T* dy, const T* weight, int rows, int inputs, int outputs,
                           Precision precision, void* stream) {
    const Convolution layer = one_cell(rows, inputs, outputs);
    check(layer);
    multiply<T, true>(dx, workspace, dy, weight, nullptr, gather_of_input_gradient(layer, 0, 0), false, precision, stream);
}

#define INSTANTIATE(T) \
    template void linear_forward(T*, Wide<T>*, const T*, const T*, const Wide<T>*, int, int, int, bool, Precision, void*); \
    template void linear_input_gradient(T*, Wide<T>*, const T*, const T*, int, int, int, Precision, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

}  // namespace zf
