/* The edge half of facemix for C and C++: sample a key, conv_mix, send; receive, unmix_linear, wipe the key.
 *
 * With A = key.coeffs, B = key.groups * key.size images in groups of S = key.size:
 *     mix    y[order[g*S + i]] = sum_j A[g, i, j] * x[g*S + j]
 *     unmix  x[g*S + j]        = sum_i A[g, i, j] * y[order[g*S + i]]
 *
 * Images g*S to g*S + S-1 of x share a group: which do is the caller's to choose. Send no image twice in different
 * groups; docs/security.md says why. The edge in Python computes groups from the images, by their SHA-256.
 *
 * Mixing hides images from a casual look only: see "Honest limits" in the README.
 *
 * Every function may be called from any thread. All memory is the caller's; nothing is kept but scratch memory. A
 * function that can fail returns a facemix_status, and writes results only where that is FACEMIX_OK. In the argument
 * structs 0 stands for the default where one is named, so that a struct can start as {0}. All counts are of elements.
 */
#ifndef FACEMIX_H
#define FACEMIX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FACEMIX_API __attribute__((visibility("default")))

typedef enum facemix_status {
    FACEMIX_OK = 0,
    FACEMIX_INVALID = 1,   /* an argument breaks a rule */
    FACEMIX_NO_MEMORY = 2, /* no scratch memory */
    FACEMIX_FAILED = 3     /* the operating system refused: no random numbers */
} facemix_status;

/* Why the calling thread's last function failed: "op: argument must RULE, got WHAT". Valid until its next failure. */
FACEMIX_API const char* facemix_last_error(void);

/* "MAJOR.MINOR.PATCH" */
FACEMIX_API const char* facemix_version(void);

/* --- The instruction set ------------------------------------------------------------------------------------------ */

/* The names of those that this library has and this CPU can run, separated by spaces, the widest last. */
FACEMIX_API const char* facemix_capabilities(void);

/* The name of the one in use, for the whole process: the widest, until chosen otherwise. */
FACEMIX_API const char* facemix_capability(void);
FACEMIX_API facemix_status facemix_use_capability(const char* name);

/* --- Keys --------------------------------------------------------------------------------------------------------- */

/* A private key, in memory of the caller: for one request, never stored, logged or sent. Group sizes: 2 to 64. */
typedef struct facemix_key {
    double* coeffs; /* [groups, size, size]: orthogonal matrices */
    int64_t* order; /* [groups * size]: a permutation; mixed row b is sent as row order[b] */
    int64_t groups; /* G */
    int64_t size;   /* S */
} facemix_key;

/* Fills coeffs and order from the operating system's CSPRNG: Haar-distributed orthogonal matrices, a uniform
 * permutation. max_coeff bounds the largest |coefficient|: at most 1, at least 1/cbrt(size) rounded up to three digits
 * (0.5 for groups of 8); 0 for no bound. 0.6 is good for groups of 8 whose images are sent once; where the same group
 * may be sent again, with another key, a bound shows the key (docs/security.md). The bounded distribution is that of a
 * random walk that tends to the Haar measure within the bound. Where it fails, the key's memory is wiped. */
FACEMIX_API facemix_status facemix_key_sample(const facemix_key* key, double max_coeff);

/* Overwrites coeffs and order with zeros, in a way that the compiler may not remove. No function takes such a key. */
FACEMIX_API facemix_status facemix_key_wipe(const facemix_key* key);

/* --- Ops ---------------------------------------------------------------------------------------------------------- */

/* I8 is for y of conv_mix alone: rounded to nearest, ties to even, at most 127 in magnitude, NaN as 0. To scale the
 * channels, divide weight and bias by a positive scale for each: mix, activations and max-pool pass it on to y. */
enum facemix_dtype { FACEMIX_F32 = 0, FACEMIX_F64 = 1, FACEMIX_BF16 = 2, FACEMIX_F16 = 3, FACEMIX_I8 = 4 };
enum facemix_layout { FACEMIX_NCHW = 0, FACEMIX_NHWC = 1 };
enum facemix_activation {
    FACEMIX_NONE = 0,
    FACEMIX_RELU = 1,
    FACEMIX_LEAKY_RELU = 2 /* z where it is positive, slope * z elsewhere */
};

/* y = mix(maxpool(activation(conv2d(x, weight) + bias))), in one pass: the edge's first half. */
typedef struct facemix_conv_mix_args {
    const void* x;                   /* [B, C, H, W], dense in x_layout */
    const void* weight;              /* [OC, C, KH, KW], contiguous, of x_dtype, finite */
    const void* bias;                /* [OC], of x_dtype, finite; or NULL */
    void* y;                         /* [B, OC, PH, PW], dense in y_layout; facemix_conv_mix_size gives PH and PW */
    int x_dtype, y_dtype;            /* enum facemix_dtype; F64 only both. Sums are taken in float32 or better */
    int x_layout, y_layout;          /* enum facemix_layout */
    int64_t channels, height, width; /* C, H, W */
    int64_t out_channels, kernel[2]; /* OC; KH, KW */
    int64_t stride[2];               /* default 1, 1 */
    int64_t padding[2];              /* with zeros; default 0, 0 */
    int64_t dilation[2];             /* default 1, 1 */
    int activation;                  /* enum facemix_activation */
    double slope;                    /* of FACEMIX_LEAKY_RELU */
    int64_t pool_kernel[2];          /* of the max-pool, at most 127 elements; default 1, 1: no pool */
    int64_t pool_stride[2];          /* default: pool_kernel */
    int64_t pool_padding[2];         /* at most half of pool_kernel; default 0, 0 */
    facemix_key key;
    int threads; /* at least 1; more than cores is allowed */
} facemix_conv_mix_args;

FACEMIX_API facemix_status facemix_conv_mix(const facemix_conv_mix_args* args);

/* size = {PH, PW}. Reads the shapes alone: pointers and the key may be 0. */
FACEMIX_API facemix_status facemix_conv_mix_size(const facemix_conv_mix_args* args, int64_t size[2]);

typedef struct facemix_group_mix_args {
    const void* x; /* [B, n] */
    void* y;       /* [B, n] */
    int dtype;     /* enum facemix_dtype */
    int64_t n;     /* elements a row */
    facemix_key key;
    int threads; /* at least 1 */
} facemix_group_mix_args;

/* y = mix(x) */
FACEMIX_API facemix_status facemix_group_mix(const facemix_group_mix_args* args);
/* y = unmix(x) */
FACEMIX_API facemix_status facemix_group_unmix(const facemix_group_mix_args* args);

/* out = unmix(y) weight^T + bias, in one pass: the edge's last layer. */
typedef struct facemix_unmix_linear_args {
    const void* y;                     /* [B, M, K] */
    const void* weight;                /* [N, K], finite */
    const void* bias;                  /* [N], finite; or NULL */
    void* out;                         /* [B, M, N] */
    int dtype;                         /* enum facemix_dtype, of all four */
    int64_t positions;                 /* M: 1 for a vector an image */
    int64_t in_features, out_features; /* K, N */
    facemix_key key;
    int threads; /* at least 1 */
} facemix_unmix_linear_args;

FACEMIX_API facemix_status facemix_unmix_linear(const facemix_unmix_linear_args* args);

#ifdef __cplusplus
}
#endif

#endif
