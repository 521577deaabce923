// What is searched from one root, by the CPU's loops and by GPU kernels alike. Each returns false, with nothing written
// but to places of this root that are written again, where the scratch does not suffice.
#pragma once
#include "rings_primitive.hpp"
#include "rings_shortest.hpp"

namespace rk {
namespace rings {

struct Known {
    int32_t criterion, max_size;
    const int32_t* shortest;  // (n_angles), or null for primitive rings
    const int32_t* at_end;    // (n_ends), or null
};

// shortest (n_angles) and at_end (n_ends), 0 where there is none within max_size.
RK_RINGS bool find_shortest(const Net& net, Scratch& s, int32_t root, int32_t max_size, int32_t* shortest,
                            int32_t* at_end) {
    if (!shortest_at(net, s, root, max_size, shortest + net.angle_rows[root])) return false;
    shortest_ends(net, root, shortest, at_end);
    return true;
}

RK_RINGS bool find_rings(const Net& net, Scratch& s, int32_t root, Sink& sink) {
    return sink.criterion == PRIMITIVE ? primitive_rings(net, s, root, sink) : shortest_rings(net, s, root, sink);
}

// Adds to per_node (n_nodes, max_size + 1) and to multiplicity, (n_angles) for KING, (n_ends) for GUTTMAN; each may be
// null. `least` (n_angles): with least_count null it is lowered to the smallest ring of every angle, else rings of that
// size are added to least_count.
RK_RINGS bool count_rings(const Net& net, Scratch& s, int32_t root, const Known& known, int32_t* per_node,
                          int32_t* multiplicity, int32_t* least, int32_t* least_count) {
    Sink sink = {known.criterion, known.max_size, known.shortest, known.at_end, per_node, least,
                 least_count, multiplicity, 0, 0, nullptr, nullptr};
    return find_rings(net, s, root, sink);
}

// Rings of one size: with `nodes` null, found (n_nodes) receives how many this root hands over; else they are written
// to nodes (n_rings, size) and shifts (n_rings, size, 3) from offsets[root] on.
RK_RINGS bool list_rings(const Net& net, Scratch& s, int32_t root, const Known& known, int32_t size, int64_t* found,
                         const int64_t* offsets, int64_t* nodes, int32_t* shifts) {
    const int64_t at = nodes ? offsets[root] * size : 0;
    Sink sink = {known.criterion, known.max_size, known.shortest, known.at_end, nullptr, nullptr,
                 nullptr, nullptr, size, 0, nodes ? nodes + at : nullptr, nodes ? shifts + 3 * at : nullptr};
    if (!find_rings(net, s, root, sink)) return false;
    if (!nodes) found[root] = sink.found;
    return true;
}

// Coordination sequence: nodes of the lifted net at distance 1, 2, ... n_shells; shells (n_nodes, n_shells).
RK_RINGS bool count_shells(const Net& net, Scratch& s, int32_t root, int32_t n_shells, int64_t* shells) {
    if (!begin(net, s, root)) return false;
    for (int32_t level = 0; level < n_shells; ++level) {
        if (!expand(net, s, level, Joins::all)) return false;
        shells[static_cast<int64_t>(root) * n_shells + level] = s.start[level + 2] - s.start[level + 1];
    }
    return true;
}

}  // namespace rings
}  // namespace rk
