// Lets g++ compile a .cu file: a launch becomes a loop over threads. For tests of what kernels compute, not of races.
#pragma once
#define __global__
#define __device__

struct Dimension {
    unsigned x;
};
static Dimension blockIdx, blockDim, threadIdx;

extern "C" void at_thread(unsigned block, unsigned thread, unsigned size) {
    blockIdx.x = block;
    threadIdx.x = thread;
    blockDim.x = size;
}
