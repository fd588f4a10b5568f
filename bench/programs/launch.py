"""A parent that starts one child after the other: `launch.py WAY [C PROGRAM]`. See bench.peers.launch. What `multiprocessing`
spawns runs this file again: so nothing is imported here before it is known who this is."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

    from bench.measure import answer, repeated
    from bench.peers.launch import C_WAYS, WAYS

    way = C_WAYS[sys.argv[1]](sys.argv[2]) if len(sys.argv) > 2 else WAYS[sys.argv[1]]()
    with way as work:
        answer(repeated(work))
