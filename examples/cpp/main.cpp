// One step of a convnet up and down again, from C++: convolve and rectify, pool with switches, keep the
// strongest activation, unpool it, filter it back to the pixels (the deconvnet of Zeiler & Fergus).
//
// Arrays lie where the library computes: host memory here, for the library on the CPU; with the CUDA
// library they come from cudaMalloc, and the last argument is a stream.
#include <zfcore/ops.h>

#include <algorithm>
#include <cstdio>
#include <vector>

int main() {
    constexpr int size = 8, channels = 1, filters = 2;
    const zf::Convolution sizes{1, size, size, channels, filters, 3, 3, size, size, 1, 1, 1, 1, 1, 1, 1};
    const zf::Maps maps{1, size, size, filters, size / 2, size / 2};
    const zf::Windows windows{2, 2, 2, 2, 0, 0};

    std::vector<float> image(size * size), y(size * size * filters), pooled(size * size / 4 * filters);
    for (int r = 0; r < size; ++r)
        for (int c = 0; c < size; ++c) image[r * size + c] = c >= 4 ? 1.0f : 0.0f;  // a vertical edge
    const std::vector<float> weight = {-1, 0, 1, -1, 0, 1, -1, 0, 1,   // looks for vertical edges
                                       -1, -1, -1, 0, 0, 0, 1, 1, 1};  // for horizontal ones
    std::vector<std::uint8_t> switches(pooled.size());
    zf::convolution_forward(y.data(), image.data(), weight.data(), static_cast<float*>(nullptr), sizes, true,
                            zf::Precision::float32, nullptr);
    zf::max_pool(pooled.data(), switches.data(), y.data(), nullptr, maps, windows, nullptr);

    const auto strongest = std::max_element(pooled.begin(), pooled.end());
    std::vector<float> seed(pooled.size(), 0.0f), signal(y.size()), pixels(image.size());
    seed[std::size_t(strongest - pooled.begin())] = *strongest;
    zf::max_unpool(signal.data(), seed.data(), switches.data(), nullptr, maps, windows, false, nullptr);
    zf::relu(signal.data(), signal.data(), std::int64_t(signal.size()), nullptr);
    zf::convolution_input_gradient(pixels.data(), signal.data(), weight.data(), sizes, zf::Precision::float32, nullptr);

    std::printf("strongest activation: %g in map %d\n", *strongest, int(strongest - pooled.begin()) % filters);
    for (int r = 0; r < size; ++r, std::puts(""))
        for (int c = 0; c < size; ++c) std::printf("%4g", pixels[r * size + c]);
}
