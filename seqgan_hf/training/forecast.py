"""How long the rest of a run will take, told from what its units and evaluations have taken so far."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import fmean

from ..objectives import Turn
from .arguments import AdversarialTrainingArguments
from .evaluation import interval
from .progress import Meter
from .units import Units


class Forecast:
    """Times units by phase, and evaluations, in this session alone; what it has not seen yet it does not guess.

    `turns` are the schedule, with units counted through the run.
    """

    def __init__(self, args: AdversarialTrainingArguments, turns: list[Turn], units: Units, meter: Meter):
        self.args, self.turns, self.units, self.meter = args, turns, units, meter
        self.spent = defaultdict[str, list[float]](list)

    def after(self, turn: Turn, done: int, evaluated: bool) -> dict[str, float]:
        """`seconds_left` of the run, or `seconds_left_at_least` while a phase or an evaluation ahead is untimed.

        The `done`th unit of its phase was just done, and the meter was read before its evaluation.
        """
        self.spent[turn.phase].append(self.meter.seconds)
        if evaluated:
            self.spent["evaluation"].append(time.perf_counter() - self.meter.since)
        seconds, evaluations, timed = 0.0, 0, True
        budget = max(0.0, (self.args.max_seconds or 0.0) - self.units.seconds)
        for phase, first, last in self._ahead(turn, done):
            if not self.spent[phase]:
                timed = False
                continue
            pace, end = fmean(self.spent[phase]), last
            if self.args.max_seconds and phase != "pretrain_generator":
                end = min(last, first + int(budget / pace))
                budget -= (end - first) * pace
            seconds += (end - first) * pace
            if every := interval(self.args, phase):
                evaluations += end // every - first // every + (end == last and last % every > 0)
        if evaluations and self.spent["evaluation"]:
            seconds += evaluations * fmean(self.spent["evaluation"])
        elif evaluations:
            timed = False
        return {"seconds_left" if timed else "seconds_left_at_least": round(seconds, 3)}

    def _ahead(self, turn: Turn, done: int) -> list[tuple[str, int, int]]:
        """Phases to come, each with the numbers of its units: after the first, up to the last."""
        here, before, ahead = self.turns.index(turn), dict[str, int](), list[tuple[str, int, int]]()
        for number, each in enumerate(self.turns):
            first = done if number == here else before.get(each.phase, 0)
            if number >= here and first < each.units:
                ahead.append((each.phase, first, each.units))
            before[each.phase] = each.units
        return ahead
