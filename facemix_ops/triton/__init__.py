"""The ops as Triton kernels, one file per op: for GPUs without the CUDA kernels of the extension (no nvcc, ROCm, XPU).

They compute what ``facemix_ops.reference`` does, in one pass. A program holds the mixed values of all S images of a
group for one tile of an image, makes the tile of one image after the other, and adds it to all of them,

    out[i] += A[i, j] * tile_j          i = 0..S-1, j = 0..S-1,

so that any group size is one loop, and nothing but the result is written. Tested in Triton's interpreter and compiled
for sm_80 and sm_90; it has not run on a GPU yet.

Nothing here is imported before a kernel is wanted: ``facemix_ops`` works without Triton.
"""
