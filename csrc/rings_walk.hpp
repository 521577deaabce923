// Walks that fill in the members of a ring from its apex, and what is done with a ring that is found.
#pragma once
#include "rings_shared.hpp"
#include "rings.hpp"

namespace rk {
namespace rings {

enum Criterion : int32_t { KING = 0, GUTTMAN = 1, PRIMITIVE = 2 };

// Where rings go. Pointers may be null.
struct Sink {
    int32_t criterion, max_size;
    const int32_t* shortest;  // per angle: king; zero: none
    const int32_t* at_end;    // per end: guttman
    int32_t* per_node;        // (n_nodes, max_size + 1)
    int32_t* least;           // per angle: smallest ring, to be lowered
    int32_t* least_count;     // per angle: rings as small as `least`
    int32_t* multiplicity;    // per angle (king) or end (guttman): shortest closed paths
    int32_t size;             // rings wanted below, or 0
    int64_t found;            // of this size, at this root
    int64_t* member_nodes;    // (rings, size), from this root's first on
    int32_t* member_shifts;   // (rings, size, 3)
};

// Whether a ring is found from the angle of its member p, as it is from that of the member at 0.
RK_RINGS bool found_from(const Net& net, const Scratch& s, const Sink& sink, int32_t n, int32_t p) {
    if (sink.criterion == PRIMITIVE) return true;
    const int32_t node = s.image[s.ring[p]].node;
    if (sink.criterion == KING) return sink.shortest[net.angle(node, s.out[p], s.in[p])] == n;
    const int64_t row = net.rows[node];
    return sink.at_end[row + s.out[p]] == n || sink.at_end[row + s.in[p]] == n;
}

// The i-th end along the ring from member p, leaving p by the smaller (by the larger) of its two ends.
RK_RINGS int64_t end_along(const Net& net, const Scratch& s, int32_t n, int32_t p, int32_t i) {
    const bool onward = s.out[p] < s.in[p];
    int32_t q = onward ? p + i : p - i;
    q = q >= n ? q - n : q < 0 ? q + n : q;
    return net.rows[s.image[s.ring[q]].node] + (onward ? s.out[q] : s.in[q]);
}

// A ring is met once from every member that `found_from` names, and its translates likewise: one of these meetings is
// kept, the one whose sequence of ends is the smallest. No two are equal: the same ends from the same node on trace the
// same lifted ring, and a finite ring is not its own translate.
RK_RINGS bool is_first_meeting(const Net& net, const Scratch& s, const Sink& sink, int32_t n) {
    const int64_t own = end_along(net, s, n, 0, 0);
    for (int32_t p = 1; p < n; ++p) {
        const int64_t other = end_along(net, s, n, p, 0);
        if (other > own || !found_from(net, s, sink, n, p)) continue;
        if (other < own) return false;
        for (int32_t i = 1; i < n; ++i) {
            const int64_t a = end_along(net, s, n, p, i), b = end_along(net, s, n, 0, i);
            if (a < b) return false;
            if (a > b) break;
        }
    }
    return true;
}

RK_RINGS void receive(const Net& net, Scratch& s, Sink& sink, int32_t n) {
    if (!is_first_meeting(net, s, sink, n)) return;
    if (sink.per_node)
        for (int32_t p = 0; p < n; ++p)
            add_shared(sink.per_node + static_cast<int64_t>(s.image[s.ring[p]].node) * (sink.max_size + 1) + n, 1);
    if (sink.least_count) {
        for (int32_t p = 0; p < n; ++p) {
            const int64_t angle = net.angle(s.image[s.ring[p]].node, s.out[p], s.in[p]);
            if (sink.least[angle] == n) add_shared(sink.least_count + angle, 1);
        }
    } else if (sink.least) {
        for (int32_t p = 0; p < n; ++p)
            lower_shared(sink.least + net.angle(s.image[s.ring[p]].node, s.out[p], s.in[p]), n);
    }
    if (n == sink.size) {
        if (sink.member_nodes) {
            const bool onward = s.out[0] < s.in[0];
            for (int32_t i = 0; i < n; ++i) {
                const End image = s.image[s.ring[onward || i == 0 ? i : n - i]];
                const int64_t at = sink.found * n + i;
                sink.member_nodes[at] = image.node;
                sink.member_shifts[3 * at] = image.x;
                sink.member_shifts[3 * at + 1] = image.y;
                sink.member_shifts[3 * at + 2] = image.z;
            }
        }
        ++sink.found;
    }
}

// Visits every ring of n members with the root at 0 and `apex` at position h that the rule allows: first positions
// h - 1 ... 0 down one side, then h + 1 ... n - 1 and the root again up the other. `rule.allows(q, other_side, from,
// end, node)` judges the step from position `from` by the end `end` of its row to `node` at position q;
// `rule.visit()` takes the ring.
template <class Rule>
RK_RINGS void walk(const Net& net, Scratch& s, int32_t n, int32_t h, int32_t apex, Rule& rule) {
    s.ring[h] = apex;
    int32_t done = 0;
    s.cursor[0] = 0;
    while (done >= 0) {
        const bool other_side = done >= h;
        const int32_t from = other_side ? done : h - done;
        const int32_t to = other_side ? (done + 1 == n ? 0 : done + 1) : from - 1;
        const int32_t here = s.ring[from], row = s.first[here], degree = s.first[here + 1] - row;
        int32_t end = s.cursor[done], node = -1;
        for (; end < degree; ++end) {
            node = s.hop[row + end];
            if (node >= 0 && rule.allows(to, other_side, from, end, node)) break;
        }
        if (end == degree) {
            --done;
            continue;
        }
        s.cursor[done] = end + 1;
        const int32_t back = net.back[net.rows[s.image[here].node] + end];
        if (other_side) {
            s.out[from] = end;
            s.in[to] = back;
        } else {
            s.in[from] = end;
            s.out[to] = back;
        }
        s.ring[to] = node;
        if (done + 1 == n) {
            rule.visit();
        } else {
            ++done;
            s.cursor[done] = 0;
        }
    }
}

}  // namespace rings
}  // namespace rk
