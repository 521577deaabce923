// Kernels of the neighbour lists on GPUs: one thread an index; the bodies stand in the headers.
#include "neighbors_device.hpp"
#include "neighbors_device_rows.hpp"

#define RK_LAUNCHED(type, name)                                                              \
    extern "C" __global__ void rk_neighbors_device_##name(const type* block, int64_t n) {    \
        const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;       \
        if (i < n) rk::device::name(i, *block);                                              \
    }
#define RK_BLOCK_LAUNCHED(name) RK_LAUNCHED(rk::device::Block, name)
#define RK_ROWS_LAUNCHED(name) RK_LAUNCHED(rk::device::Rows, name)
RK_NEIGHBOR_KERNELS(RK_BLOCK_LAUNCHED)
RK_NEIGHBOR_ROW_KERNELS(RK_ROWS_LAUNCHED)
