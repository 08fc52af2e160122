"""The memory for batches: admitted whole, in order, and to each identity at most its part."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from logreceiver.links.budget import IDENTITY_PARTS, Allotment, Budget
from tests.support.patience import PATIENCE_SECONDS

MOST = 100


async def a_moment() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def asked(allotment: Allotment, size: int) -> asyncio.Task[None]:
    return asyncio.create_task(allotment.take(size))


async def test_what_does_not_fit_waits_in_order_until_something_is_given_back() -> None:
    budget = Budget(MOST)
    holders = [budget.allotment(name) for name in "abcd"]
    assert all(each.take_now(25) for each in holders)
    late = [asked(budget.allotment(name), size) for name, size in (("e", 25), ("f", 5))]
    await a_moment()
    assert not any(each.done() for each in late), "the small one does not overtake"
    holders[0].give(25)
    await a_moment()
    assert [each.done() for each in late] == [True, False]
    holders[1].close()
    await late[1]


async def test_who_has_used_up_its_part_holds_up_nobody_else() -> None:
    budget = Budget(MOST)
    greedy = [budget.allotment("greedy") for _ in range(5)]
    assert [each.take_now(10) for each in greedy] == [True, True, False, False, False]
    waiting = [asked(each, 10) for each in greedy[2:]]
    modest = asked(budget.allotment("modest"), 20)
    await modest
    assert not any(each.done() for each in waiting)
    greedy[0].close()
    await waiting[0]
    for each in waiting[1:]:
        each.cancel()


async def test_who_has_used_up_its_part_holds_up_nobody_even_if_there_is_no_room_for_it_either() -> None:
    budget = Budget(MOST)
    greedy = budget.allotment("greedy")
    assert greedy.take_now(25)
    assert all(budget.allotment(name).take_now(20) for name in "abc")
    waiting, modest = asked(greedy, 20), asked(budget.allotment("modest"), 10)
    await a_moment()
    assert (waiting.done(), modest.done()) == (False, True)
    waiting.cancel()


async def test_who_has_nothing_comes_in_however_many_batches_of_others_never_end() -> None:
    budget = Budget(MOST)
    hostile = [budget.allotment(name) for name in "abc" for _ in range(4)]
    assert sum(each.take_now(10) for each in hostile) == 6, "the part of each"
    others = [budget.allotment(name) for name in "ddee"]
    assert [each.take_now(10) for each in others] == [True, False, True, False], "a quarter is kept"
    waiting = [asked(each, 10) for each in others if not each._held]
    await a_moment()
    assert not any(each.done() for each in waiting)
    modest = budget.allotment("modest")
    assert modest.take_now(20)
    assert not budget.allotment("late").take_now(1)
    modest.close()
    await a_moment()
    assert not any(each.done() for each in waiting)
    for each in waiting:
        each.cancel()


async def test_identities_take_turns_with_what_waits() -> None:
    budget, order = Budget(MOST), list[str]()
    holder = budget.allotment("holder")
    holder.add(MOST)

    async def use(name: str) -> None:
        allotment = budget.allotment(name)
        await allotment.take(20)
        order.append(name)
        allotment.close()

    tasks = [asyncio.create_task(use(name)) for name in "aaab"]
    await a_moment()
    holder.close()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "a", "a"]


async def test_a_batch_that_is_larger_than_everything_is_admitted_alone() -> None:
    budget = Budget(MOST)
    first = budget.allotment("a")
    assert first.take_now(2 * MOST)
    second = asked(budget.allotment("b"), 1)
    await a_moment()
    assert not second.done()
    first.close()
    await second


async def test_who_no_longer_waits_keeps_nothing() -> None:
    budget = Budget(MOST)
    holder = budget.allotment("a")
    holder.add(MOST)
    gone, next_one = asked(budget.allotment("b"), 60), asked(budget.allotment("c"), 60)
    await a_moment()
    gone.cancel()
    await a_moment()
    holder.close()
    await next_one
    admitted = asked(budget.allotment("d"), 40)
    await a_moment()
    assert admitted.done()


async def test_one_that_leaves_in_the_moment_of_its_admission_gives_it_back() -> None:
    budget = Budget(MOST)
    holder = budget.allotment("a")
    holder.add(MOST)
    leaving = asked(budget.allotment("b"), MOST)
    await a_moment()
    holder.close()
    leaving.cancel()
    await a_moment()
    assert budget.allotment("c").take_now(MOST)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 30)), min_size=1, max_size=60))
async def test_everybody_is_admitted_in_the_end_and_never_more_than_there_is(asks: list[tuple[str, int]]) -> None:
    budget = Budget(MOST)
    most = 0

    async def use(name: str, size: int) -> None:
        nonlocal most
        allotment = budget.allotment(name)
        if not allotment.take_now(size):
            await allotment.take(size)
        most = max(most, budget._used)
        assert budget._by_identity[name] <= max(MOST // IDENTITY_PARTS, size)
        await asyncio.sleep(0)
        allotment.close()

    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(use(*each) for each in asks))
    assert most <= MOST
    assert budget._used == 0
    assert not budget._by_identity


async def test_what_waits_takes_some_of_it_but_never_more_than_half() -> None:
    budget = Budget(MOST, waiting_bytes=10)
    budget.add("a", 40)
    waits = [asked(budget.allotment("a"), 60) for _ in range(2)]
    await a_moment()
    assert not budget.take_now("b", 45), "40 are used, and two wait"
    waits += [asked(budget.allotment("a"), 60) for _ in range(20)]
    await a_moment()
    assert budget.take_now("b", 10), "40 are used, and all that wait take 50"
    assert not any(each.done() for each in waits)
    for each in waits:
        each.cancel()
