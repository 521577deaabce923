// Host loops over the kernel bodies of the cell list for GPUs: the tests run them in several orders.
#include "neighbors_device.hpp"

namespace {

using rk::device::Block;

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

}  // namespace

// rk_neighbors_device_<kernel>(block, n, threads, order): the body of one kernel for 0 <= i < n.
#define RK_LOOP(name)                                                                                           \
    RK_EXPORT int64_t rk_neighbors_device_##name(const void* block, int64_t n, int64_t threads, int64_t order) { \
        const Block& b = *static_cast<const Block*>(block);                                                     \
        in_order(n, threads, order, [&](int64_t i) { rk::device::name(i, b); });                                \
        return 0;                                                                                               \
    }
RK_NEIGHBOR_KERNELS(RK_LOOP)
#undef RK_LOOP

#define RK_NAME(type, name) #name " "
static_assert(sizeof(Block) % 8 == 0, "fields of 8 bytes");

// Writes the names of Block's fields, in order and each followed by a space, into text; returns how many there are.
RK_EXPORT int64_t rk_neighbors_device_fields(char* text, int64_t size) {
    const char names[] = RK_NEIGHBOR_BLOCK(RK_NAME);
    for (int64_t c = 0; c < size && c < int64_t(sizeof(names)); ++c) text[c] = names[c];
    return sizeof(Block) / 8;
}
#undef RK_NAME
