// Host loops over the kernel bodies of the neighbour lists for GPUs: the tests run them in several orders.
#include <cstring>

#include "neighbors_device.hpp"
#include "neighbors_device_rows.hpp"

namespace {

using rk::device::Block;
using rk::device::Rows;

// Threads of a GPU run in any order. 0: forwards, on several threads; 1: backwards; 2: far apart one after the other.
template <class Body>
void in_order(int64_t n, int64_t threads, int64_t order, Body body) {
    if (order == 0) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n > 2048)
        for (int64_t i = 0; i < n; ++i) body(i);
    } else if (order == 1) {
        for (int64_t i = n; i-- > 0;) body(i);
    } else {
        constexpr int64_t STRIDE = 37;
        for (int64_t first = STRIDE; first-- > 0;)
            for (int64_t i = first; i < n; i += STRIDE) body(i);
    }
}

int64_t copy_names(const char* names, int64_t fields, char* text, int64_t size) {
    std::strncpy(text, names, size);
    return fields;
}

}  // namespace

// rk_neighbors_device_<kernel>(block, n, threads, order): the body of one kernel for 0 <= i < n.
#define RK_LOOP(type, name)                                                                                     \
    RK_EXPORT int64_t rk_neighbors_device_##name(const void* block, int64_t n, int64_t threads, int64_t order) { \
        const type& b = *static_cast<const type*>(block);                                                       \
        in_order(n, threads, order, [&](int64_t i) { rk::device::name(i, b); });                                \
        return 0;                                                                                               \
    }
#define RK_BLOCK_LOOP(name) RK_LOOP(Block, name)
#define RK_ROWS_LOOP(name) RK_LOOP(Rows, name)
RK_NEIGHBOR_KERNELS(RK_BLOCK_LOOP)
RK_NEIGHBOR_ROW_KERNELS(RK_ROWS_LOOP)

// The names of a block's fields, in order and each followed by a space, go into text; returns how many there are.
#define RK_NAME(type, name) #name " "
RK_EXPORT int64_t rk_neighbors_device_fields(char* text, int64_t size) {
    static_assert(sizeof(Block) % 8 == 0, "fields of 8 bytes");
    return copy_names(RK_NEIGHBOR_BLOCK(RK_NAME), sizeof(Block) / 8, text, size);
}
RK_EXPORT int64_t rk_neighbors_device_row_fields(char* text, int64_t size) {
    static_assert(sizeof(Rows) % 8 == 0, "fields of 8 bytes");
    return copy_names(RK_NEIGHBOR_ROWS(RK_NAME), sizeof(Rows) / 8, text, size);
}
