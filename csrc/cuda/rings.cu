// Kernels of the ring search: thin wrappers of csrc/rings_links.hpp and csrc/rings_search.hpp.
//
// A search runs one root a thread. Scratch lies in global memory, one block a thread; a root whose ball does not fit
// notes what was lacking and is taken again by a launch with more room.
#include "rings_links.hpp"
#include "rings_search.hpp"

using namespace rk::rings;

namespace {

__device__ int64_t thread_index() { return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; }

__device__ Net net_of(const int64_t* rows, const End* ends, const int32_t* back, const int64_t* angle_rows,
                      int64_t n_nodes) {
    return {n_nodes, rows, ends, back, angle_rows};
}

// Hands the roots to `slots` threads in turn.
template <class Work>
__device__ void each_root(int64_t slots, const int64_t* roots, int64_t n_roots, int32_t* lack, char* scratch,
                          const Room& room, Work work) {
    const int64_t slot = thread_index();
    if (slot >= slots) return;
    Scratch s = lay_out(scratch + slot * scratch_bytes(room), room);
    empty(s);
    for (int64_t k = slot; k < n_roots; k += slots) {
        s.lack = 0;
        work(s, static_cast<int32_t>(roots[k]));
        lack[k] = s.lack;
        clear(s);
    }
}

}  // namespace

extern "C" __global__ void rings_count_bonds(const int64_t* edges, const int32_t* shifts, int64_t n_bonds,
                                             int64_t n_atoms, int32_t* degrees, int64_t* first_bad) {
    const int64_t b = thread_index();
    if (b < n_bonds) count_bond({edges, shifts, n_bonds}, b, n_atoms, degrees, first_bad);
}

extern "C" __global__ void rings_fill_bonds(const int64_t* edges, const int32_t* shifts, int64_t n_bonds,
                                            const int64_t* rows, int32_t* written, Link* bonds) {
    const int64_t b = thread_index();
    if (b < n_bonds) fill_bond({edges, shifts, n_bonds}, b, rows, written, bonds);
}

extern "C" __global__ void rings_tidy_rows(const int64_t* rows, int64_t n_rows, Link* links, int32_t* lengths) {
    const int64_t i = thread_index();
    if (i < n_rows) tidy_row(rows, i, links, lengths);
}

extern "C" __global__ void rings_count_links(const int64_t* nodes, int64_t n_nodes, const int64_t* rows,
                                             const int32_t* lengths, const Link* bonds, const int32_t* index,
                                             int32_t* counts) {
    const int64_t k = thread_index();
    if (k < n_nodes) counts[k] = links_of({rows, lengths, bonds, index}, nodes[k], nullptr);
}

extern "C" __global__ void rings_fill_links(const int64_t* nodes, int64_t n_nodes, const int64_t* rows,
                                            const int32_t* lengths, const Link* bonds, const int32_t* index,
                                            const int64_t* places, Link* links) {
    const int64_t k = thread_index();
    if (k < n_nodes) links_of({rows, lengths, bonds, index}, nodes[k], links + places[k]);
}

extern "C" __global__ void rings_pack_links(const int64_t* places, const int64_t* rows, int64_t n_nodes,
                                            const Link* links, End* ends, int32_t* back, int32_t* bridges) {
    const int64_t k = thread_index();
    if (k < n_nodes) pack_row(places, rows, links, k, ends, back, bridges);
}

extern "C" __global__ void rings_shortest(const int64_t* rows, const End* ends, const int32_t* back,
                                          const int64_t* angle_rows, int64_t n_nodes, int64_t slots,
                                          const int64_t* roots, int64_t n_roots, int32_t* lack, char* scratch,
                                          int64_t room_nodes, int64_t room_ends, int64_t room_words, int64_t max_size,
                                          int32_t* shortest, int32_t* at_end) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    each_root(slots, roots, n_roots, lack, scratch, {room_nodes, room_ends, room_words, max_size},
              [&](Scratch& s, int32_t root) {
                  find_shortest(net, s, root, static_cast<int32_t>(max_size), shortest, at_end);
              });
}

extern "C" __global__ void rings_count(const int64_t* rows, const End* ends, const int32_t* back,
                                       const int64_t* angle_rows, int64_t n_nodes, int64_t slots, const int64_t* roots,
                                       int64_t n_roots, int32_t* lack, char* scratch, int64_t room_nodes,
                                       int64_t room_ends, int64_t room_words, int64_t max_size, int64_t criterion,
                                       const int32_t* shortest, const int32_t* at_end, int32_t* per_node,
                                       int32_t* multiplicity, int32_t* least, int32_t* least_count) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    const Known known = {static_cast<int32_t>(criterion), static_cast<int32_t>(max_size), shortest, at_end};
    each_root(slots, roots, n_roots, lack, scratch, {room_nodes, room_ends, room_words, max_size},
              [&](Scratch& s, int32_t root) {
                  count_rings(net, s, root, known, per_node, multiplicity, least, least_count);
              });
}

extern "C" __global__ void rings_members(const int64_t* rows, const End* ends, const int32_t* back,
                                         const int64_t* angle_rows, int64_t n_nodes, int64_t slots,
                                         const int64_t* roots, int64_t n_roots, int32_t* lack, char* scratch,
                                         int64_t room_nodes, int64_t room_ends, int64_t room_words, int64_t max_size,
                                         int64_t criterion, const int32_t* shortest, const int32_t* at_end,
                                         int64_t size, int64_t* found, const int64_t* offsets, int64_t* nodes,
                                         int32_t* shifts) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    const Known known = {static_cast<int32_t>(criterion), static_cast<int32_t>(max_size), shortest, at_end};
    each_root(slots, roots, n_roots, lack, scratch, {room_nodes, room_ends, room_words, max_size},
              [&](Scratch& s, int32_t root) {
                  list_rings(net, s, root, known, static_cast<int32_t>(size), found, offsets, nodes, shifts);
              });
}

extern "C" __global__ void rings_shells(const int64_t* rows, const End* ends, const int32_t* back,
                                        const int64_t* angle_rows, int64_t n_nodes, int64_t slots,
                                        const int64_t* roots, int64_t n_roots, int32_t* lack, char* scratch,
                                        int64_t room_nodes, int64_t room_ends, int64_t room_words, int64_t max_size,
                                        int64_t* shells) {
    const Net net = net_of(rows, ends, back, angle_rows, n_nodes);
    each_root(slots, roots, n_roots, lack, scratch, {room_nodes, room_ends, room_words, max_size},
              [&](Scratch& s, int32_t root) {
                  count_shells(net, s, root, static_cast<int32_t>(max_size), shells);
              });
}
