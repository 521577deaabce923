// Kernels of the cell list on GPUs: one thread an index, the bodies are in neighbors_device.hpp.
#include "neighbors_device.hpp"

#define RK_LAUNCHED(name)                                                                                 \
    extern "C" __global__ void rk_neighbors_device_##name(const rk::device::Block* block, int64_t n) {    \
        const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;                    \
        if (i < n) rk::device::name(i, *block);                                                           \
    }
RK_NEIGHBOR_KERNELS(RK_LAUNCHED)
