// Host loops that turn a bond list into the net of its nodes.
#include "rings_links.hpp"

#include <algorithm>
#include <vector>

using rk::rings::Bonds;
using rk::rings::Link;

namespace {

struct Net {
    std::vector<int64_t> rows, lengths;  // bonds
    std::vector<Link> bonds;
    std::vector<int32_t> index;
    std::vector<int64_t> nodes, link_rows;
    std::vector<Link> links;
};

template <class Row>
void in_parallel(int64_t n, int64_t threads, Row row) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && n > 512)
    for (int64_t i = 0; i < n; ++i) row(i);
}

}  // namespace

// edges (2, n_bonds), shifts (n_bonds, 3), is_node (n_atoms). sizes receives the numbers of nodes and of link ends.
// Returns 0, or -1 where a bond names an atom that is not there, -2 where an atom is bonded to itself; at[0] is that
// bond.
RK_EXPORT int64_t rk_rings_links_build(const int64_t* edges, const int32_t* shifts, int64_t n_bonds,
                                       const uint8_t* is_node, int64_t n_atoms, int64_t threads, int64_t* sizes,
                                       void** handle) {
    auto* net = new Net;
    net->rows.assign(n_atoms + 1, 0);
    for (int64_t b = 0; b < n_bonds; ++b) {
        const int64_t i = edges[b], j = edges[n_bonds + b];
        const int32_t* s = shifts + 3 * b;
        const bool outside = i < 0 || j < 0 || i >= n_atoms || j >= n_atoms;
        if (outside || (i == j && !s[0] && !s[1] && !s[2])) {
            sizes[0] = b;
            delete net;
            return outside ? -1 : -2;
        }
        ++net->rows[i + 1];
        ++net->rows[j + 1];
    }
    for (int64_t i = 0; i < n_atoms; ++i) net->rows[i + 1] += net->rows[i];
    net->bonds.resize(2 * n_bonds);
    net->lengths.assign(n_atoms, 0);
    for (int64_t b = 0; b < n_bonds; ++b) {
        const int64_t i = edges[b], j = edges[n_bonds + b];
        const int32_t x = shifts[3 * b], y = shifts[3 * b + 1], z = shifts[3 * b + 2];
        net->bonds[net->rows[i] + net->lengths[i]++] = {static_cast<int32_t>(j), x, y, z, 0};
        net->bonds[net->rows[j] + net->lengths[j]++] = {static_cast<int32_t>(i), -x, -y, -z, 0};
    }
    in_parallel(n_atoms, threads, [&](int64_t i) {
        net->lengths[i] = rk::rings::tidy_row(net->bonds.data() + net->rows[i], net->lengths[i]);
    });
    net->index.assign(n_atoms, -1);
    for (int64_t i = 0; i < n_atoms; ++i)
        if (is_node[i]) {
            net->index[i] = static_cast<int32_t>(net->nodes.size());
            net->nodes.push_back(i);
        }
    const int64_t n_nodes = static_cast<int64_t>(net->nodes.size());
    const Bonds bonds = {net->rows.data(), net->lengths.data(), net->bonds.data(), net->index.data()};
    std::vector<int64_t> bridged(n_nodes + 1, 0);  // rows with a place for every bridge
    in_parallel(n_nodes, threads, [&](int64_t k) {
        bridged[k + 1] = rk::rings::links_of(bonds, net->nodes[k], nullptr);
    });
    for (int64_t k = 0; k < n_nodes; ++k) bridged[k + 1] += bridged[k];
    std::vector<Link> links(bridged[n_nodes]);
    net->link_rows.assign(n_nodes + 1, 0);
    in_parallel(n_nodes, threads, [&](int64_t k) {
        Link* row = links.data() + bridged[k];
        net->link_rows[k + 1] = rk::rings::tidy_row(row, rk::rings::links_of(bonds, net->nodes[k], row));
    });
    for (int64_t k = 0; k < n_nodes; ++k) net->link_rows[k + 1] += net->link_rows[k];
    net->links.resize(net->link_rows[n_nodes]);
    in_parallel(n_nodes, threads, [&](int64_t k) {
        const Link* row = links.data() + bridged[k];
        std::copy(row, row + (net->link_rows[k + 1] - net->link_rows[k]), net->links.data() + net->link_rows[k]);
    });
    sizes[0] = n_nodes;
    sizes[1] = net->link_rows[n_nodes];
    *handle = net;
    return 0;
}

// Writes nodes (n_nodes), rows (n_nodes + 1), ends (n_ends, 4), back (n_ends), bridges (n_ends), and frees the handle.
RK_EXPORT int64_t rk_rings_links_export(void* handle, int64_t threads, int64_t* nodes, int64_t* rows, int32_t* ends,
                                        int32_t* back, int32_t* bridges) {
    auto* net = static_cast<Net*>(handle);
    const int64_t n_nodes = static_cast<int64_t>(net->nodes.size());
    for (int64_t k = 0; k < n_nodes; ++k) nodes[k] = net->nodes[k];
    for (int64_t k = 0; k <= n_nodes; ++k) rows[k] = net->link_rows[k];
    in_parallel(n_nodes, threads, [&](int64_t k) {
        for (int64_t e = rows[k]; e < rows[k + 1]; ++e) {
            const Link& link = net->links[e];
            ends[4 * e] = link.node;
            ends[4 * e + 1] = link.x;
            ends[4 * e + 2] = link.y;
            ends[4 * e + 3] = link.z;
            bridges[e] = link.bridges;
            const int64_t other = rows[link.node];
            back[e] = static_cast<int32_t>(rk::rings::place_of_reverse(
                net->links.data() + other, rows[link.node + 1] - other, static_cast<int32_t>(k), link));
        }
    });
    delete net;
    return 0;
}
