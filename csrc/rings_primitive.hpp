// Primitive rings: members are nowhere closer in the net than along the ring (Franzblau's shortest-path rings).
//
// Each is searched from its smallest node only. In a ring of n members, k = n / 2, it is enough that antipodes are k
// apart: any two members lie on a shortest path between antipodes. Two members of which one is at level i and the
// other at level j of the root, i + j <= k + n % 2, have every path shorter than k between them inside the ball
// that the ring needs itself, so one sweep of masks from the inner half of the ball answers every question.
#pragma once
#include "rings_walk.hpp"

namespace rk {
namespace rings {

struct PrimitiveRule {
    const Net& net;
    Scratch& s;
    Sink& sink;
    int32_t n, k, h;   // size, distance of antipodes, position of the apex
    int32_t last;      // the last end at the apex that leads towards the root

    // Whether two members are less than k apart.
    RK_RINGS bool shortcut(int32_t a, int32_t b) const {
        return s.bit[a] >= 0 ? reaches(s, k - 1, b, s.bit[a]) : reaches(s, k - 1, a, s.bit[b]);
    }
    RK_RINGS bool allows(int32_t q, bool other_side, int32_t from, int32_t end, int32_t node) const {
        const int32_t level = q < n - q ? q : n - q;
        if (s.member[node] != level) return false;
        const bool odd = n & 1;
        if (!other_side) {
            // Each ring once: of the two sides (of the two apices of an odd ring) one comes first.
            if (q == h - 1 && (odd ? node <= s.ring[h] : end >= last)) return false;
            return !odd || q != 1 || q == h - 1 || !shortcut(node, s.ring[h]);
        }
        if (!odd && from == h && end <= s.in[h]) return false;
        if (q == 0) return true;
        return !shortcut(s.ring[q - k], node) && (!odd || !shortcut(s.ring[q - k - 1], node));
    }
    RK_RINGS void visit() { receive(net, s, sink, n); }
};

// Marks the nodes of a level that may be members: not before the root, and with a neighbour one level lower that may.
RK_RINGS bool mark_members(Scratch& s, int32_t root, int32_t level) {
    bool any = false;
    for (int32_t v = s.start[level]; v < s.start[level + 1]; ++v) {
        s.member[v] = -1;
        if (s.image[v].node < root) continue;
        for (int32_t j = s.first[v]; j < s.first[v + 1]; ++j) {
            // A neighbour further on in the ball has not been marked yet, and is none.
            const int32_t u = s.hop[j];
            if (u < 0 || u >= s.start[level] || s.member[u] != level - 1) continue;
            s.member[v] = level;
            any = true;
            break;
        }
    }
    return any;
}

RK_RINGS bool primitive_rings(const Net& net, Scratch& s, int32_t root, Sink& sink) {
    int32_t max_size = sink.size ? sink.size : sink.max_size;
    int32_t candidates = 0;
    for (int64_t e = net.rows[root]; e < net.rows[root + 1]; ++e) candidates += net.ends[e].node >= root;
    if (candidates < 2) return true;

    // The ball: nodes to level max_size / 2, all links among those that shortcuts can pass. Members thin out with the
    // level; where they end, so do the rings. Nothing but members is asked of the last level of an even size.
    if (!begin(net, s, root)) return false;
    s.member[0] = 0;
    for (int32_t level = 0; 2 * level + 1 <= max_size; ++level) {
        const int32_t rest = max_size - 2 * level;
        if (!expand(net, s, level, rest < 2 ? Joins::none : rest == 2 ? Joins::members : Joins::all)) return false;
        if (rest >= 2 && !mark_members(s, root, level + 1)) {
            max_size = 2 * level + 1;
            break;
        }
    }
    if (max_size < 3) return true;
    const int32_t depth = max_size / 2, inner = (max_size + 1) / 2 - 1;
    int32_t sources = 0;
    const int32_t extent = s.start[inner + 1], outer_source = (max_size - depth) / 2;
    for (int32_t v = 1; v < s.start[outer_source + 1]; ++v)
        if (s.member[v] >= 0) s.bit[v] = sources++;
    if (depth > 1) {
        if (!widen(s, depth, sources)) return false;
        seed_masks(s, extent);
        for (int32_t step = 1; step < depth; ++step) sweep(s, step, 0, extent);
    }

    for (int32_t k = 1; k <= depth; ++k)
        for (int32_t v = s.start[k]; v < s.start[k + 1]; ++v) {
            if (s.member[v] < 0) continue;
            int32_t inward = 0, last = 0;
            for (int32_t j = s.first[v]; j < s.first[v + 1]; ++j) {
                const int32_t u = s.hop[j];
                if (u >= 0 && s.member[u] == k - 1) ++inward, last = j - s.first[v];
            }
            if (inward > 1 && k > 1 && (!sink.size || sink.size == 2 * k)) {
                PrimitiveRule rule = {net, s, sink, 2 * k, k, k, last};
                walk(net, s, 2 * k, k, v, rule);
            }
            if (2 * k + 1 <= max_size && (!sink.size || sink.size == 2 * k + 1)) {
                PrimitiveRule rule = {net, s, sink, 2 * k + 1, k, k + 1, 0};
                walk(net, s, 2 * k + 1, k + 1, v, rule);
            }
        }
    return true;
}

}  // namespace rings
}  // namespace rk
