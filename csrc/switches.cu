// Switches by themselves: their check, and their exchange with the flat indices of PyTorch and ONNX.
#include "windows.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// Output: one flag. A thread reads `width` switches of one window.
template <int width>
__global__ void __launch_bounds__(256, 4)
check_switches_kernel(std::int32_t* __restrict__ bad, const std::uint8_t* __restrict__ switches,
                      const Bounds* __restrict__ bounds, Maps maps, Windows window) {
    const Place<width> place(maps.columns, maps.channels);
    if (!place.valid) return;
    bool fault = false;
    for (int n = blockIdx.z; n < maps.batch; n += gridDim.z) {
        const Bounds inside = bounds_of(bounds, n, maps);
        const int column = place.column * window.stride_horizontal - window.left;
        const Range columns = clip(column, window.width, inside.left, inside.right);
        for (int p = blockIdx.y; p < maps.rows; p += gridDim.y) {
            const int row = p * window.stride_vertical - window.top;
            const Range rows = clip(row, window.height, inside.top, inside.bottom);
            if (rows.empty() || columns.empty()) continue;  // touches no cell, whatever its switch
            const auto which =
                load<width>(switches + at(n, p, place.column, place.channel, maps.rows, maps.columns, maps.channels));
#pragma unroll
            for (int i = 0; i < width; ++i) {
                const int r = row + which[i] / window.width, s = column + which[i] % window.width;
                fault |= r < rows.begin || r >= rows.end || s < columns.begin || s >= columns.end;
            }
        }
    }
    if (fault) atomicOr(bad, 1);
}

// Output: row * maps.width + column of each switch's cell. A thread has one switch of a row.
__global__ void __launch_bounds__(256, 4)
switches_to_flat_kernel(std::int64_t* __restrict__ flat, const std::uint8_t* __restrict__ switches, Maps maps, Windows window) {
    const Place<1> place(maps.columns, maps.channels);
    if (!place.valid) return;
    const int column = place.column * window.stride_horizontal - window.left;
    for (int n = blockIdx.z; n < maps.batch; n += gridDim.z)
        for (int p = blockIdx.y; p < maps.rows; p += gridDim.y) {
            const std::int64_t i = at(n, p, place.column, place.channel, maps.rows, maps.columns, maps.channels);
            const int which = switches[i], row = p * window.stride_vertical - window.top + which / window.width;
            flat[i] = std::int64_t(row) * maps.width + column + which % window.width;
        }
}

// Output: the switches, and one flag: an index outside its window, whose switch is 0. A thread has one index of a row.
__global__ void __launch_bounds__(256, 4)
switches_from_flat_kernel(std::uint8_t* __restrict__ switches, std::int32_t* __restrict__ bad,
                          const std::int64_t* __restrict__ flat, Maps maps, Windows window) {
    const Place<1> place(maps.columns, maps.channels);
    if (!place.valid) return;
    const int column = place.column * window.stride_horizontal - window.left;
    bool fault = false;
    for (int n = blockIdx.z; n < maps.batch; n += gridDim.z)
        for (int p = blockIdx.y; p < maps.rows; p += gridDim.y) {
            const std::int64_t i = at(n, p, place.column, place.channel, maps.rows, maps.columns, maps.channels);
            const Divided cell = divide(max(flat[i], std::int64_t(0)), maps.width);
            const std::int64_t r = cell.quotient - (p * window.stride_vertical - window.top), s = cell.remainder - column;
            const bool right = flat[i] >= 0 && r >= 0 && r < window.height && s >= 0 && s < window.width;
            switches[i] = right ? std::uint8_t(r * window.width + s) : 0;
            fault |= !right;
        }
    if (fault) atomicOr(bad, 1);
}

}  // namespace

// --------------------------------------------------------------------------------------- launchers

void check_switches(std::int32_t* bad, const std::uint8_t* switches, const Bounds* bounds, const Maps& maps,
                    const Windows& window, void* stream) {
    check(maps, window);
    check_area(window);
    if (maps.channels % 16 == 0 && aligned(switches, 16))
        launch(over_rows<16>(maps, maps.rows, maps.columns, stream), check_switches_kernel<16>, bad, switches, bounds,
               maps, window);
    else
        launch(over_rows<1>(maps, maps.rows, maps.columns, stream), check_switches_kernel<1>, bad, switches, bounds,
               maps, window);
}

void switches_to_flat(std::int64_t* flat, const std::uint8_t* switches, const Maps& maps, const Windows& window,
                      void* stream) {
    check(maps, window);
    check_area(window);
    launch(over_rows<1>(maps, maps.rows, maps.columns, stream), switches_to_flat_kernel, flat, switches, maps, window);
}

void switches_from_flat(std::uint8_t* switches, std::int32_t* bad, const std::int64_t* flat, const Maps& maps,
                        const Windows& window, void* stream) {
    check(maps, window);
    check_area(window);
    ZF_CHECK(maps.width >= 1, "switches_from_flat: a map of no columns");
    launch(over_rows<1>(maps, maps.rows, maps.columns, stream), switches_from_flat_kernel, switches, bad, flat, maps, window);
}

}  // namespace zf
