"""The ops as Triton kernels, one file per op: for GPUs without the CUDA kernels of the extension (no nvcc, ROCm, XPU).

They compute what ``facemix_ops.reference`` does, in one pass: a program has one tile of all S images of a group, mixes
it, and writes nothing but the result. What multiplies matrices mixes by a second product of what the first one left in
registers. Tested in Triton's interpreter and as PTX for sm_80 and sm_90; it has not run on a GPU yet.

Nothing here is imported before a kernel is wanted: ``facemix_ops`` works without Triton.
"""
