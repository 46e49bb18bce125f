"""Progress: sums of pieces, from any thread, that end at the total."""

from concurrent.futures import ThreadPoolExecutor

from darkvocab.progress import Progress


def test_pieces_from_many_threads_add_up_in_order():
    seen = []
    progress = Progress(4_000, lambda done, total: seen.append((done, total)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(progress.advance, [1] * 4_000))
    assert seen == [(done, 4_000) for done in range(1, 4_001)]


def test_progress_never_goes_beyond_its_total_and_ends_at_it():
    seen = []
    progress = Progress(5, lambda done, total: seen.append(done))
    for n in (3, 3):
        progress.advance(n)
    progress.finish()
    assert seen == [3, 5, 5]
    Progress(5).finish()
