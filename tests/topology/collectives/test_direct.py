from topology import all_reduce, collective, parse


def test_exchange_is_one_crossing_direct_moves_fewer_bytes():
    graph = parse("node")
    assert all_reduce(graph, 320, "exchange").cycles == 270
    assert all_reduce(graph, 320 * 8, "direct").cycles == 2 * 270
    large = 320 * 8000
    assert (
        all_reduce(graph, large, "direct").cycles
        < 0.3 * all_reduce(graph, large, "exchange").cycles
    )


def test_scatter_beats_a_star_for_large_tensors():
    graph, large = parse("node"), 320 * 7000
    star = collective("broadcast", graph, large, "direct").cycles
    assert collective("broadcast", graph, large, "scatter").cycles < 0.4 * star
