// Sums over all rows of (rows, channels) arrays, in float64 and in an order that only sizes decide.
#include "device.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

constexpr int lanes = 32, strands = 8;  // channels, and interleaved sequences of rows, of one block

// A block sums `part` rows (y of the grid) of 32 channels (x): eight strands, added in their order.
// Its two results, sum of a (b - mean) and sum of a, go to sums[part][2][channels].
template <class T, bool products>
__global__ void __launch_bounds__(lanes * strands)
part_sums_kernel(double* __restrict__ sums, const T* __restrict__ a, const T* __restrict__ b,
                 const double* __restrict__ mean, std::int64_t rows, int channels, std::int64_t part) {
    SHARED_ARRAY(double, product_of, [strands][lanes]);
    SHARED_ARRAY(double, plain_of, [strands][lanes]);
    const int channel = int(blockIdx.x) * lanes + int(threadIdx.x), strand = threadIdx.y;
    const std::int64_t begin = blockIdx.y * part, end = min(begin + part, rows);
    double product = 0, plain = 0;
    if (channel < channels) {
        const double centre = products ? mean[channel] : 0;
        for (std::int64_t row = begin + strand; row < end; row += strands) {
            const double value = widen(a[row * channels + channel]);
            if (products) product += value * (double(widen(b[row * channels + channel])) - centre);
            plain += value;
        }
    }
    product_of[strand][threadIdx.x] = product;
    plain_of[strand][threadIdx.x] = plain;
    __syncthreads();
    if (strand > 1 || channel >= channels) return;  // one strand for each result
    const auto& mine = strand ? plain_of : product_of;
    double total = 0;
    for (int i = 0; i < strands; ++i) total += mine[i][threadIdx.x];
    sums[(std::int64_t(blockIdx.y) * 2 + strand) * channels + channel] = total;
}

// A thread adds the parts of one result in their order.
template <class T>
__global__ void __launch_bounds__(64)
add_parts_kernel(T* __restrict__ totals, const double* __restrict__ sums, int parts, int first, int results,
                 int channels) {
    const int item = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (item >= results) return;
    double total = 0;
    for (int i = 0; i < parts; ++i) total += sums[std::int64_t(i) * 2 * channels + first + item];
    totals[item] = T(total);
}

// --------------------------------------------------------------------------------------- launchers

// Rows in one part: enough blocks to fill a device, cut by size alone.
std::int64_t rows_in_part(std::int64_t rows) {
    const std::int64_t part = divide_up(rows, std::int64_t(512));
    return part < 64 ? 64 : part;
}

template <class T, bool products>
int part_sums(double* workspace, const T* a, const T* b, const double* mean, std::int64_t rows, int channels,
              void* stream) {
    ZF_CHECK(rows >= 0 && channels >= 0 && channels < 0x3fffffff, "channel sums: sizes out of range");
    const int parts = channel_sum_parts(rows);
    launch({{blocks_x(channels, lanes), unsigned(parts)}, {lanes, strands}, stream}, part_sums_kernel<T, products>,
           workspace, a, b, mean, rows, channels, rows_in_part(rows));
    return parts;
}

}  // namespace

int channel_sum_parts(std::int64_t rows) { return int(divide_up(rows, rows_in_part(rows))); }

template <class T>
void channel_sum(Wide<T>* sums, double* workspace, const T* x, std::int64_t rows, int channels, void* stream) {
    const int parts = part_sums<T, false>(workspace, x, x, nullptr, rows, channels, stream);
    launch({blocks_x(channels, 64), 64, stream}, add_parts_kernel<Wide<T>>, sums, workspace, parts, channels, channels,
           channels);
}

template <class T>
void channel_products(double* sums, double* workspace, const T* a, const T* b, const double* mean, std::int64_t rows,
                      int channels, void* stream) {
    const int parts = part_sums<T, true>(workspace, a, b, mean, rows, channels, stream);
    launch({blocks_x(2 * channels, 64), 64, stream}, add_parts_kernel<double>, sums, workspace, parts, 0, 2 * channels,
           channels);
}

#define INSTANTIATE_SUM(T) template void channel_sum(Wide<T>*, double*, const T*, std::int64_t, int, void*);
INSTANTIATE_SUM(float16)
INSTANTIATE_SUM(bfloat16)
#undef INSTANTIATE_SUM
#define INSTANTIATE(T) \
    template void channel_sum(T*, double*, const T*, std::int64_t, int, void*); \
    template void channel_products(double*, double*, const T*, const T*, const double*, std::int64_t, int, void*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace zf
