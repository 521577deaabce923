// King's rings: for every angle at a node, the shortest closed paths through both its links; Guttman's from them.
//
// Without the root, the neighbours of the root search all at once: bit b of a mask says that neighbour b reaches a
// node within so many steps. Two neighbours are k steps apart when they meet for the first time: at a node that one
// reaches in ceil(k / 2) steps and the other in floor(k / 2). The ring then has k + 2 members.
#pragma once
#include "rings_walk.hpp"

namespace rk {
namespace rings {

// Grows the ball and the masks by a step; nodes that join reach no farther than level step + 1.
RK_RINGS bool search_on(const Net& net, Scratch& s, int32_t step) {
    if (!expand(net, s, step, Joins::all)) return false;
    sweep(s, step, 1, s.start[step + 2]);
    return true;
}

// Level 1 and its masks; `steps` masks will follow.
RK_RINGS bool search_begins(const Net& net, Scratch& s, int32_t root, int32_t steps) {
    if (!begin(net, s, root) || !expand(net, s, 0, Joins::all) || !widen(s, steps + 1, s.start[2] - 1)) return false;
    for (int32_t v = 1; v < s.start[2]; ++v) s.bit[v] = v - 1;
    seed_masks(s, s.start[2]);
    return true;
}

// Notes the size of every angle (i, j) still open whose neighbours have met, by masks of `step` and of `step - late`.
RK_RINGS int32_t close_angles(Scratch& s, int32_t degree, int32_t step, int32_t late, int32_t* sizes) {
    int32_t open = 0;
    int64_t angle = 0;
    for (int32_t i = 0; i < degree; ++i)
        for (int32_t j = i + 1; j < degree; ++j, ++angle) {
            if (sizes[angle]) continue;
            const int32_t a = s.bit[s.hop[i]], b = s.bit[s.hop[j]];
            const uint64_t bit_a = uint64_t{1} << (a & 63), bit_b = uint64_t{1} << (b & 63);
            const uint64_t *one = mask_of(s, step, 0), *two = mask_of(s, step - late, 0);
            const int32_t word_a = a >> 6, word_b = b >> 6;
            bool met = false;
            // Either neighbour may be the one that is a step behind.
            for (int64_t v = 1; v < s.extent[step - late] && !met; ++v)
                met = ((one[v * s.width + word_a] & bit_a) && (two[v * s.width + word_b] & bit_b)) ||
                      ((two[v * s.width + word_a] & bit_a) && (one[v * s.width + word_b] & bit_b));
            if (met)
                sizes[angle] = 2 * step - late + 2;
            else
                ++open;
        }
    return open;
}

// Size of the shortest closed path per angle of the root, 0 where it has more than max_size members.
RK_RINGS bool shortest_at(const Net& net, Scratch& s, int32_t root, int32_t max_size, int32_t* sizes) {
    const int32_t degree = net.degree(root);
    for (int64_t i = 0; i < net.angle_rows[root + 1] - net.angle_rows[root]; ++i) sizes[i] = 0;
    if (degree < 2) return true;
    const int32_t steps = (max_size - 1) / 2;
    if (!search_begins(net, s, root, steps)) return false;
    int32_t open = degree;
    for (int32_t step = 1; step <= steps && open; ++step) {
        if (!search_on(net, s, step)) return false;
        open = close_angles(s, degree, step, 1, sizes);
        if (open && 2 * step + 2 <= max_size) open = close_angles(s, degree, step, 0, sizes);
    }
    return true;
}

// Guttman: the shortest closed path through a link leaves by one of the angles it forms at its end.
RK_RINGS void shortest_ends(const Net& net, int32_t root, const int32_t* shortest, int32_t* at_end) {
    const int32_t degree = net.degree(root);
    for (int32_t i = 0; i < degree; ++i) {
        int32_t least = 0;
        for (int32_t j = 0; j < degree; ++j) {
            if (j == i) continue;
            const int32_t size = shortest[net.angle(root, i, j)];
            if (size && (!least || size < least)) least = size;
        }
        at_end[net.rows[root] + i] = least;
    }
}

struct ShortestRule {
    const Net& net;
    Scratch& s;
    Sink& sink;
    int32_t n, i, j;  // size, and the ends of the angle at the root
    int32_t paths;

    RK_RINGS bool allows(int32_t q, bool other_side, int32_t from, int32_t end, int32_t node) const {
        if (q == 0) {
            const int32_t here = s.image[s.ring[from]].node;
            return node == 0 && net.back[net.rows[here] + end] == (other_side ? j : i);
        }
        return other_side ? reaches(s, n - 1 - q, node, s.bit[s.hop[j]]) : reaches(s, q - 1, node, s.bit[s.hop[i]]);
    }
    RK_RINGS void visit() {
        ++paths;
        receive(net, s, sink, n);
    }
};

// Hands every King (Guttman) ring through the root to the sink; `sink.shortest` and `sink.at_end` are known.
RK_RINGS bool shortest_rings(const Net& net, Scratch& s, int32_t root, Sink& sink) {
    const int32_t degree = net.degree(root), step_of_none = -1;
    const int64_t row = net.rows[root];
    const int32_t* sizes = sink.shortest + net.angle_rows[root];
    int32_t steps = step_of_none;
    for (int pass = 0; pass < 2; ++pass) {
        int64_t angle = 0;
        for (int32_t i = 0; i < degree; ++i)
            for (int32_t j = i + 1; j < degree; ++j, ++angle) {
                const int32_t n = sizes[angle];
                const bool wanted = n && (!sink.size || n == sink.size) &&
                                    (sink.criterion == KING || sink.at_end[row + i] == n || sink.at_end[row + j] == n);
                if (!wanted) continue;
                const int32_t h = (n + 1) / 2;
                if (pass == 0) {
                    if (h - 1 > steps) steps = h - 1;
                    continue;
                }
                const int32_t a = s.bit[s.hop[i]], b = s.bit[s.hop[j]];
                ShortestRule rule = {net, s, sink, n, i, j, 0};
                for (int32_t v = 1; v < s.extent[n - 1 - h]; ++v)
                    if (reaches(s, h - 1, v, a) && reaches(s, n - 1 - h, v, b)) walk(net, s, n, h, v, rule);
                if (!sink.multiplicity) continue;
                if (sink.criterion == KING) {
                    sink.multiplicity[net.angle_rows[root] + angle] = rule.paths;
                } else {
                    // A path through a link uses one of the angles at this end of it.
                    if (sink.at_end[row + i] == n) sink.multiplicity[row + i] += rule.paths;
                    if (sink.at_end[row + j] == n) sink.multiplicity[row + j] += rule.paths;
                }
            }
        if (pass == 0) {
            if (steps == step_of_none) return true;
            if (!search_begins(net, s, root, steps)) return false;
            for (int32_t step = 1; step <= steps; ++step)
                if (!search_on(net, s, step)) return false;
        }
    }
    return true;
}

}  // namespace rings
}  // namespace rk
