"""Huffman trees of word counts: the inner nodes on the path to each word, and the branch taken at each."""

import heapq

import numpy as np


def huffman_paths(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Paths from the root of the counts' Huffman tree to each word (Huffman 1952), short for frequent words.

    Returns node_VL, the V - 1 inner nodes numbered from 0, padded with -1 after a path's end, and sign_VL, int8: 1 for
    the first child, -1 for the second, 0 for padding. L is the length of the longest path.
    """
    V = len(counts)
    heap = [(count, word) for word, count in enumerate(counts)]
    heapq.heapify(heap)
    parent = np.zeros(2 * V - 1, np.int64)
    sign = np.zeros(2 * V - 1, np.int8)
    for node in range(V, 2 * V - 1):
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        for (_, child), turn in ((first, 1), (second, -1)):
            parent[child], sign[child] = node, turn
        heapq.heappush(heap, (first[0] + second[0], node))
    ways: list[list[tuple[int, int]]] = []
    for word in range(V):
        way, node = [], word
        while node != 2 * V - 2:
            way.append((int(parent[node]) - V, int(sign[node])))
            node = int(parent[node])
        ways.append(way[::-1])
    longest = max(map(len, ways))
    node_VL, sign_VL = np.full((V, longest), -1, np.int32), np.zeros((V, longest), np.int8)
    for word, way in enumerate(ways):
        node_VL[word, : len(way)], sign_VL[word, : len(way)] = zip(*way, strict=True)
    return node_VL, sign_VL
