// What the files of fully connected layers share: how the terms of their sums are cut into pieces.
#pragma once

#include "gather.cuh"

namespace zf {

// Sums are made in pieces of so many terms, each from zero on, which are added in order, by one block or after several:
// the same bits. Nothing here asks for the number of rows, so a row's result does not depend on it.
constexpr int plain_piece = 512, enough_blocks = 128;

// On tensor cores: pieces of whole steps (64 terms), at least four, and so many of them that with the tiles of columns
// they are work for twice enough blocks, however few the rows.
inline int tensor_piece(int columns, int terms) {
    const int steps = divide_up(terms, 64), wanted = 2 * enough_blocks / divide_up(columns, 64);
    return 64 * divide_up(steps, max(1, min(wanted, steps / 4)));
}

// In linear_tensor.cu, for float (factors rounded to tf32, or split in two), float16 and bfloat16: out (rows, columns), or, unless
// `sums` is null, one such array of float32 for each piece, without bias. False, and nothing done, where the device has
// no such tensor cores.
template <class T, bool transposed>
bool linear_tensor(T* out, float* sums, const T* in, const T* weight, const float* bias, int rows, int columns, int terms,
                   bool relu, Precision, void* stream);

}  // namespace zf
