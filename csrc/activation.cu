// Pointwise operations, dropout's counter-based generator, copies of channel ranges, clearing of crops.
#include "device.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

struct Relu {  // a NaN stays
    template <class T>
    __device__ T operator()(T x, T) const { return x <= 0 ? T(0) : x; }
};
struct ReluGradient {
    template <class T>
    __device__ T operator()(T dy, T y) const { return y > 0 ? dy : T(0); }
};
struct ReluGuided {
    template <class T>
    __device__ T operator()(T dy, T y) const { return y > 0 && !(dy <= 0) ? dy : T(0); }
};
struct Add {
    template <class T>
    __device__ T operator()(T a, T b) const { return a + b; }
};

// A thread works on `width` neighbours: out = Operation(a, b). out may be a or b; b may be a.
template <class T, int width, class Operation>
__global__ void __launch_bounds__(256) pointwise_kernel(T* out, const T* a, const T* b, std::int64_t vectors) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= vectors) return;
    const auto left = load<width>(a + item * width), right = load<width>(b + item * width);
    Vector<Wide<T>, width> result;
#pragma unroll
    for (int i = 0; i < width; ++i) result[i] = Operation{}(left[i], right[i]);
    store(out + item * width, result);
}

// A thread converts `width` neighbours.
template <class To, class From, int width>
__global__ void __launch_bounds__(256) convert_kernel(To* __restrict__ y, const From* __restrict__ x, std::int64_t vectors) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item < vectors) store(y + item * width, load<width>(x + item * width));
}

struct Counter {
    std::uint32_t a, b, c, d;
};

// Philox4x32-10 (Salmon et al. 2011): four random words from a counter and a key.
__device__ __forceinline__ Counter philox(Counter counter, std::uint32_t key, std::uint32_t other) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t left = std::uint64_t(counter.a) * 0xD2511F53u, right = std::uint64_t(counter.c) * 0xCD9E8D57u;
        counter = {std::uint32_t(right >> 32) ^ counter.b ^ key, std::uint32_t(right),
                   std::uint32_t(left >> 32) ^ counter.d ^ other, std::uint32_t(left)};
        key += 0x9E3779B9u;
        other += 0xBB67AE85u;
    }
    return counter;
}

// A thread draws four words for four neighbouring elements of one image (z): counter (element / 4,
// first + image, step), key seed. So an element's fate depends on its image and place alone. `width`: elements in one
// access.
template <class T, int width>
__global__ void __launch_bounds__(256)
dropout_kernel(T* y, const T* x, int images, std::int64_t elements, std::uint64_t threshold, Wide<T> scale,
               std::uint64_t seed, Setting<std::uint64_t> counter, std::uint32_t first) {
    const std::int64_t quad = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (quad * 4 >= elements) return;
    const std::uint64_t step = given(counter);
    for (int n = blockIdx.z; n < images; n += gridDim.z) {
        const Counter words = philox({std::uint32_t(quad), first + std::uint32_t(n), std::uint32_t(step),
                                      std::uint32_t(step >> 32)},
                                     std::uint32_t(seed), std::uint32_t(seed >> 32));
        const std::uint32_t word[4] = {words.a, words.b, words.c, words.d};
#pragma unroll
        for (int i = 0; i < 4; i += width) {
            const std::int64_t at = n * elements + quad * 4 + i;
            if (quad * 4 + i >= elements) break;
            auto value = load<width>(x + at);
#pragma unroll
            for (int j = 0; j < width; ++j) value[j] = word[i + j] >= threshold ? value[j] * scale : Wide<T>(0);
            store(y + at, value);
        }
    }
}

// A thread copies `width` neighbouring columns of one row (y steps through rows).
template <class T, int width>
__global__ void __launch_bounds__(256)
copy_columns_kernel(T* __restrict__ target, const T* __restrict__ source, std::int64_t rows, int target_columns,
                    int source_columns, int target_column, int source_column, int vectors) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const auto [row, vector] = divide(item, vectors);
    const int column = vector * width;
    if (row < rows)
        store(target + row * target_columns + target_column + column,
              load<width>(source + row * source_columns + source_column + column));
}

// A thread writes `width` neighbouring columns of one row of y, those beyond x's as 0.
template <class T, int width>
__global__ void __launch_bounds__(256)
pad_channels_kernel(T* __restrict__ y, const T* __restrict__ x, std::int64_t rows, int channels, int vectors) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const auto [row, vector] = divide(item, vectors);
    if (row >= rows) return;
    const int column = vector * width;
    Vector<T, width> value{};
#pragma unroll
    for (int i = 0; i < width; ++i)
        if (column + i < channels) value[i] = x[row * channels + column + i];
    store(y + item * width, value);
}

// A thread owns one element of a row (x), y steps through rows, z through images.
template <class T>
__global__ void __launch_bounds__(256)
clear_outside_kernel(T* __restrict__ x, const Bounds* __restrict__ bounds, int batch, int rows, int columns,
                     int channels) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x, line = std::int64_t(columns) * channels;
    if (item >= line) return;
    const int column = int(item / channels);
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        const Bounds inside = bounds[n];
        const bool inside_columns = column >= inside.left && column < inside.right;
        for (int r = blockIdx.y; r < rows; r += gridDim.y)
            if (!inside_columns || r < inside.top || r >= inside.bottom) x[(std::int64_t(n) * rows + r) * line + item] = T{};
    }
}

// --------------------------------------------------------------------------------------- launchers

template <class Operation, class T>
void pointwise(T* out, const T* a, const T* b, std::int64_t size, void* stream) {
    ZF_CHECK(size >= 0, "a negative size");
    constexpr int full = full_width<T>;
    if (size % full == 0 && aligned(out, 16) && aligned(a, 16) && aligned(b, 16))
        launch({blocks_x(size / full, 256), 256, stream}, pointwise_kernel<T, full, Operation>, out, a, b, size / full);
    else
        launch({blocks_x(size, 256), 256, stream}, pointwise_kernel<T, 1, Operation>, out, a, b, size);
}

}  // namespace

template <class T>
void relu(T* y, const T* x, std::int64_t size, void* stream) {
    pointwise<Relu>(y, x, x, size, stream);
}

template <class T>
void relu_gradient(T* dx, const T* dy, const T* y, std::int64_t size, void* stream) {
    pointwise<ReluGradient>(dx, dy, y, size, stream);
}

template <class T>
void relu_guided(T* dx, const T* dy, const T* y, std::int64_t size, void* stream) {
    pointwise<ReluGuided>(dx, dy, y, size, stream);
}

template <class T>
void add(T* y, const T* a, const T* b, std::int64_t size, void* stream) {
    pointwise<Add>(y, a, b, size, stream);
}

template <class T>
void dropout(T* y, const T* x, int images, std::int64_t elements, std::uint64_t threshold, Wide<T> scale, std::uint64_t seed,
             Setting<std::uint64_t> step, std::uint32_t first, void* stream) {
    ZF_CHECK(images >= 0 && elements >= 0, "dropout: sizes must not be negative");
    ZF_CHECK(elements / 4 <= 0xffffffff, "dropout: an image of 2^34 elements or more");
    constexpr int full = sizeof(T) <= 4 ? 4 : 2;
    const bool vectors = elements % full == 0 && aligned(y, full * sizeof(T)) && aligned(x, full * sizeof(T));
    launch({{blocks_x(divide_up(elements, std::int64_t(4)), 256), 1, blocks_yz(images)}, 256, stream},
           vectors ? dropout_kernel<T, full> : dropout_kernel<T, 1>, y, x, images, elements, threshold, scale, seed, step,
           first);
}

template <class T>
void copy_columns(T* target, const T* source, std::int64_t rows, int target_columns, int source_columns,
                  int target_column, int source_column, int width, void* stream) {
    ZF_CHECK(rows >= 0 && width >= 0 && target_column >= 0 && source_column >= 0 &&
                 std::int64_t(target_column) + width <= target_columns &&
                 std::int64_t(source_column) + width <= source_columns,
             "copy_columns: columns outside an array");
    if (!width) return;
    constexpr int full = full_width<T>;
    const bool vectors = (target_columns | source_columns | target_column | source_column | width) % full == 0 &&
                         aligned(target, 16) && aligned(source, 16);
    const int pieces = vectors ? width / full : width;
    launch({blocks_x(rows * pieces, 256), 256, stream},
           vectors ? copy_columns_kernel<T, full> : copy_columns_kernel<T, 1>, target, source, rows, target_columns,
           source_columns, target_column, source_column, pieces);
}

template <class T>
void pad_channels(T* y, const T* x, std::int64_t rows, int channels, int wide, void* stream) {
    ZF_CHECK(rows >= 0 && channels >= 0 && wide >= channels, "pad_channels: fewer channels than before");
    if (!wide) return;
    const bool vectors = wide % 4 == 0 && aligned(y, 4 * sizeof(T)) && sizeof(T) <= 4;
    const int pieces = vectors ? wide / 4 : wide;
    launch({blocks_x(rows * pieces, 256), 256, stream},
           vectors ? pad_channels_kernel<T, sizeof(T) <= 4 ? 4 : 1> : pad_channels_kernel<T, 1>, y, x, rows, channels, pieces);
}

template <class T>
void clear_outside(T* x, const Bounds* bounds, int batch, int rows, int columns, int channels, void* stream) {
    ZF_CHECK(batch >= 0 && rows >= 0 && columns >= 0 && channels >= 0, "clear_outside: sizes must not be negative");
    ZF_CHECK(bounds || !batch, "clear_outside: needs bounds");
    launch({{blocks_x(std::int64_t(columns) * channels, 256), blocks_yz(rows), blocks_yz(batch)}, 256, stream},
           clear_outside_kernel<T>, x, bounds, batch, rows, columns, channels);
}

template <class To, class From>
void convert(To* y, const From* x, std::int64_t size, void* stream) {
    ZF_CHECK(size >= 0, "convert: a negative size");
    constexpr int full = 16 / int(sizeof(To) > sizeof(From) ? sizeof(To) : sizeof(From));
    if (size % full == 0 && aligned(y, full * sizeof(To)) && aligned(x, full * sizeof(From)))
        launch({blocks_x(size / full, 256), 256, stream}, convert_kernel<To, From, full>, y, x, size / full);
    else
        launch({blocks_x(size, 256), 256, stream}, convert_kernel<To, From, 1>, y, x, size);
}

template void convert(float16*, const float*, std::int64_t, void*);
template void convert(float*, const float16*, std::int64_t, void*);
template void convert(bfloat16*, const float*, std::int64_t, void*);
template void convert(float*, const bfloat16*, std::int64_t, void*);

#define INSTANTIATE(T) \
    template void relu(T*, const T*, std::int64_t, void*); \
    template void relu_gradient(T*, const T*, const T*, std::int64_t, void*); \
    template void relu_guided(T*, const T*, const T*, std::int64_t, void*); \
    template void add(T*, const T*, const T*, std::int64_t, void*); \
    template void dropout(T*, const T*, int, std::int64_t, std::uint64_t, Wide<T>, std::uint64_t, \
                          Setting<std::uint64_t>, std::uint32_t, void*); \
    template void clear_outside(T*, const Bounds*, int, int, int, int, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

#define INSTANTIATE(T) \
    template void copy_columns(T*, const T*, std::int64_t, int, int, int, int, int, void*); \
    template void pad_channels(T*, const T*, std::int64_t, int, int, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(std::uint16_t)
#undef INSTANTIATE

}  // namespace zf
