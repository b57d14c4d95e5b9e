from __future__ import annotations

import random

from inference.slots import Slots


def test_a_conversation_comes_back_to_its_slot() -> None:
    slots = Slots(3)
    prompts = [[number] * 50 for number in range(3)]
    homes = [slots.take(prompt) for prompt in prompts]
    for slot, prompt in zip(homes, prompts, strict=True):
        slots.give_back(slot, prompt)
    for slot, prompt in reversed(list(zip(homes, prompts, strict=True))):
        assert slots.take(prompt + [7] * 10) == slot


def test_a_common_beginning_does_not_cost_another_prompt_its_work() -> None:
    slots = Slots(2)
    template = [1] * 24
    long = [*template, *range(100, 200)]
    home = slots.take(long)
    slots.give_back(home, long)
    chat = slots.take([*template, 5])
    assert chat != home
    slots.give_back(chat, [*template, 5])
    assert slots.take([*template, 6]) == chat, "what shares most of a short prompt may take its place"


def test_strangers_take_the_least_recently_used_slot() -> None:
    slots = Slots(3)
    order = [slots.take([number]) for number in range(3)]
    for number in (2, 0, 1):
        slots.give_back(order[number], [number] * 9)
    assert [slots.take([50 + number]) for number in range(3)] == [order[2], order[0], order[1]]


def test_no_slot_is_taken_twice() -> None:
    rng, slots = random.Random(1), Slots(4)
    taken: dict[int, list[int]] = {}
    for _ in range(2000):
        if len(taken) < 4 and (not taken or rng.random() < 0.5):
            prompt = [rng.randrange(2) for _ in range(rng.randrange(1, 6))]
            slot = slots.take(prompt)
            assert slot not in taken
            taken[slot] = prompt
        else:
            slot, prompt = taken.popitem()
            slots.give_back(slot, prompt)
