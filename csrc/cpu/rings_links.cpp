// Host loops that turn a bond list into the net of its nodes; each is one pass of csrc/rings_links.hpp.
#include "rings_links.hpp"

using rk::rings::BondList;
using rk::rings::Bonds;
using rk::rings::Link;

namespace {

constexpr int64_t WORTH_THREADS = 16384;  // rows; below, starting threads takes longer than a pass

template <class Item>
int64_t each(int64_t n, int64_t threads, Item item) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && n > WORTH_THREADS)
    for (int64_t i = 0; i < n; ++i) item(i);
    return 0;
}

}  // namespace

RK_EXPORT int64_t rk_rings_count_bonds(const int64_t* edges, const int32_t* shifts, int64_t n_bonds, int64_t n_atoms,
                                       int32_t* degrees, int64_t* first_bad, int64_t threads) {
    const BondList list = {edges, shifts, n_bonds};
    return each(n_bonds, threads, [&](int64_t b) { rk::rings::count_bond(list, b, n_atoms, degrees, first_bad); });
}

RK_EXPORT int64_t rk_rings_fill_bonds(const int64_t* edges, const int32_t* shifts, int64_t n_bonds, const int64_t* rows,
                                      int32_t* written, Link* bonds, int64_t threads) {
    const BondList list = {edges, shifts, n_bonds};
    return each(n_bonds, threads, [&](int64_t b) { rk::rings::fill_bond(list, b, rows, written, bonds); });
}

RK_EXPORT int64_t rk_rings_tidy_rows(const int64_t* rows, int64_t n_rows, Link* links, int32_t* lengths,
                                     int64_t threads) {
    return each(n_rows, threads, [&](int64_t i) { rk::rings::tidy_row(rows, i, links, lengths); });
}

RK_EXPORT int64_t rk_rings_count_links(const int64_t* nodes, int64_t n_nodes, const int64_t* rows,
                                       const int32_t* lengths, const Link* bonds, const int32_t* index, int32_t* counts,
                                       int64_t threads) {
    const Bonds net = {rows, lengths, bonds, index};
    return each(n_nodes, threads, [&](int64_t k) { counts[k] = rk::rings::links_of(net, nodes[k], nullptr); });
}

RK_EXPORT int64_t rk_rings_fill_links(const int64_t* nodes, int64_t n_nodes, const int64_t* rows,
                                      const int32_t* lengths, const Link* bonds, const int32_t* index,
                                      const int64_t* places, Link* links, int64_t threads) {
    const Bonds net = {rows, lengths, bonds, index};
    return each(n_nodes, threads, [&](int64_t k) { rk::rings::links_of(net, nodes[k], links + places[k]); });
}

RK_EXPORT int64_t rk_rings_pack_links(const int64_t* places, const int64_t* rows, int64_t n_nodes, const Link* links,
                                      int32_t* ends, int32_t* back, int32_t* bridges, int64_t threads) {
    auto* out = reinterpret_cast<rk::rings::End*>(ends);
    return each(n_nodes, threads,
                [&](int64_t k) { rk::rings::pack_row(places, rows, links, k, out, back, bridges); });
}
