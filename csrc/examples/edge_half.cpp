// The edge half of one request in C++, without Python: mix, (send and receive), un-mix, classify, wipe.
#include <facemix.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

static void check(facemix_status status) {
    if (status == FACEMIX_OK) return;
    std::fprintf(stderr, "%s\n", facemix_last_error());
    std::exit(1);
}

int main() {
    const int64_t groups = 2, size = 8, batch = groups * size, pixels = 112 * 112 * 3, classes = 10;
    std::mt19937 generator(0);  // stands for a trained model and for photographs: never for a key
    const auto values = [&](int64_t n) {
        std::vector<float> v(n);
        for (float& f : v) f = std::normal_distribution<float>(0, 0.1f)(generator);
        return v;
    };
    const auto images = values(batch * pixels), weight = values(64 * 3 * 7 * 7), bias = values(64);

    std::vector<double> coeffs(groups * size * size);
    std::vector<int64_t> order(batch);
    const facemix_key key = {coeffs.data(), order.data(), groups, size};
    check(facemix_key_sample(&key, 0));  // no bound: these images may be sent again, under another key

    // Image n is row rows[n] of x. Who shares a group is as private as the key, and stays if the images are sent again.
    std::vector<int64_t> rows(batch);
    std::iota(rows.begin(), rows.end(), 0);
    std::random_device system;
    std::shuffle(rows.begin(), rows.end(), system);
    std::vector<float> x(images.size());
    for (int64_t n = 0; n < batch; ++n) std::copy_n(&images[n * pixels], pixels, &x[rows[n] * pixels]);

    facemix_conv_mix_args conv = {};  // 7x7/2, padding 3, ReLU, max-pool 3x3/2, bfloat16 to send
    conv.channels = 3, conv.height = conv.width = 112, conv.out_channels = 64;
    conv.kernel[0] = conv.kernel[1] = 7, conv.stride[0] = conv.stride[1] = 2, conv.padding[0] = conv.padding[1] = 3;
    conv.pool_kernel[0] = conv.pool_kernel[1] = 3, conv.pool_stride[0] = conv.pool_stride[1] = 2;
    conv.pool_padding[0] = conv.pool_padding[1] = 1;
    conv.activation = FACEMIX_RELU, conv.x_layout = conv.y_layout = FACEMIX_NHWC, conv.y_dtype = FACEMIX_BF16;
    int64_t out[2];
    check(facemix_conv_mix_size(&conv, out));
    std::vector<uint16_t> sent(batch * out[0] * out[1] * 64);
    conv.x = x.data(), conv.weight = weight.data(), conv.bias = bias.data(), conv.y = sent.data();
    conv.key = key, conv.threads = 2;
    check(facemix_conv_mix(&conv));

    const auto reply = values(batch * 512), fc = values(classes * 512);  // here the cloud gets `sent` and answers
    std::vector<float> scores(batch * classes);                          // image n has those of row rows[n]
    facemix_unmix_linear_args linear = {};
    linear.y = reply.data(), linear.weight = fc.data(), linear.out = scores.data();
    linear.positions = 1, linear.in_features = 512, linear.out_features = classes;
    linear.key = key, linear.threads = 2;
    check(facemix_unmix_linear(&linear));
    check(facemix_key_wipe(&key));
    for (volatile int64_t& row : rows) row = 0;
    std::printf("facemix %s on %s: %zu bytes to send, %zu scores\n", facemix_version(), facemix_capability(),
                sent.size() * 2, scores.size());
}
