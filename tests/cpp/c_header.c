/* facemix.h is C: this file is compiled as C99, with every warning an error. */
#include "facemix.h"

int64_t pooled_height_from_c(void);

int64_t pooled_height_from_c(void) {
    facemix_conv_mix_args args = {0};
    int64_t size[2] = {-1, -1};
    args.channels = 3, args.height = 218, args.width = 178, args.out_channels = 64;
    args.kernel[0] = args.kernel[1] = 7, args.stride[0] = args.stride[1] = 2, args.padding[0] = args.padding[1] = 3;
    args.pool_kernel[0] = args.pool_kernel[1] = 3, args.pool_stride[0] = args.pool_stride[1] = 2;
    args.pool_padding[0] = args.pool_padding[1] = 1;
    return facemix_conv_mix_size(&args, size) == FACEMIX_OK ? size[0] : -1;
}
