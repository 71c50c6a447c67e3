"""When each picture is shown: the time stamps of a recording, mended where they cannot be right.

Stamps are believed as long as they go on from each other. Where one does not, the pictures behind it decide: if they
go on as if nothing had happened, only the stamps in between were wrong, and those pictures are spread evenly between
their neighbours. If not, the clock really jumped. Ahead means that time passed unseen, so stamps are kept; back means
another recording, which is counted on from the end of the last. Both leave a gap, over which no event goes on.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from typing import Generic, TypeVar

from vlmquant.errors import VideoError
from vlmquant.text import counted

LOOK_AHEAD = 4
"""Pictures that are looked at behind a doubtful stamp: so many wrong ones in a row are still mended."""

SET_BACK = "the clock is set back"
SET_AHEAD = "the clock jumps ahead"

_RESTART_SECONDS = 1
"""A stamp this much before the last one is a clock set back, or wild; one that is less so is a misplaced picture."""

_HOLE_SECONDS = Fraction(1, 2)
"""Packets that do not decode leave a gap when the picture stands still for longer than this."""

_JUMP_SECONDS = Fraction(2)
"""Without a lost packet, it may stand still for longer: recordings of variable rate leave out what is equal."""

_JUMP_STEPS = 10
"""And one that has a picture every minute is not full of gaps: this many nominal steps are none either."""

_LONGEST_STEP_SECONDS = Fraction(60)
"""A picture that is said to be shown for longer is believed for this long; a file can say anything."""

_WILD_SECONDS = 60
"""At the very start or end a single stamp has no neighbours on both sides: beyond this it is taken for wrong."""

_LEAST_STEP_SECONDS = Fraction(1, 1000)
"""Times grow by at least this much where nothing says by how much."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Stamped(Generic[T]):
    """A picture as decoded: its own time and duration in seconds, None where it has none.

    `lost` is the number of packets since the picture before that could not be decoded.
    """

    picture: T
    stamp: Fraction | None
    duration: Fraction | None = None
    lost: int = 0


@dataclass(frozen=True, eq=False)
class TimedPicture(Generic[T]):
    """A picture with the time at which it is shown and the time when it ends, in seconds.

    `gap` says why nothing is known between the end of the picture before and this one; None where they are neighbours.
    """

    picture: T
    time: Fraction
    end: Fraction
    gap: str | None = None


class Clock(Generic[T]):
    """Times the pictures of one recording, in their order; `start` is where an unstamped first picture stands.

    `nominal` is the recording's own step from picture to picture in seconds, None where it has none. The counts say
    what was mended. Raises VideoError, while it runs, when a picture has no stamp and there is no nominal step.
    """

    def __init__(self, nominal: Fraction | None, start: Fraction = Fraction(0)) -> None:
        self.untimed = self.misplaced = self.mended = 0
        self._nominal = nominal
        self._start = start
        self._lag = Fraction(0)  # by how much the recording's clock was set back on the way
        self._last: Fraction | None = None
        self._end = start
        self._steps = deque[Fraction](maxlen=2)  # the last ones; of two, the smaller is not a jump
        self._lost = 0  # packets since the last gap

    def run(self, pictures: Iterable[Stamped[T]]) -> Iterator[TimedPicture[T]]:
        """Yield every picture that is shown later than the one before, with its time."""
        ahead = deque[Stamped[T]]()
        rest = iter(pictures)
        while _fill(ahead, rest, 1):
            if self._goes_on(self._time(ahead[0])):
                yield self._believe(ahead.popleft())
                continue
            _fill(ahead, rest, LOOK_AHEAD + 1)
            wrong = self._wrong_stamps(ahead)
            if wrong and self._change_places(ahead, wrong):
                ahead = deque(sorted(ahead, key=self._time))
            elif wrong:
                yield from self._mend([ahead.popleft() for _ in range(wrong)], ahead)
            elif self._last is None or self._time(ahead[0]) > self._last:
                yield self._believe(ahead.popleft())
            elif self._last - self._time(ahead[0]) > _RESTART_SECONDS:
                yield self._restart(ahead.popleft())
            else:
                self._lost += ahead.popleft().lost
                self.misplaced += 1

    def _time(self, item: Stamped[T]) -> Fraction:
        return self._guess() if item.stamp is None else item.stamp + self._lag

    def _guess(self) -> Fraction:
        """Return the time of a picture that says nothing: one step after the last."""
        if self._last is None:
            return self._start
        if self._nominal is None:
            raise VideoError("a picture has no time stamp, and the file no frame rate; put it into an MP4 or MKV")
        return self._last + self._nominal

    def _goes_on(self, time: Fraction) -> bool:
        """Whether a stamp is where the next picture of an ordinary recording would be."""
        return self._last is not None and self._last < time <= self._end + self._step / 2

    def _wrong_stamps(self, ahead: deque[Stamped[T]]) -> int:
        """Return how many of the pictures ahead have wrong stamps: 0 when the first is right or the clock jumped."""
        times = [self._time(item) for item in ahead]
        if self._last is None:
            return self._wrong_start(ahead, times)
        first, far = times[0], self._last - times[0] > _RESTART_SECONDS
        if first > self._last or far:
            for number, time in enumerate(times[1:], start=1):
                between = self._last < time < first if first > self._last else time > self._last
                if between and time <= self._end + self._jump + number * self._step:
                    return number
        return int(len(times) == 1 and (far or first - self._end > _WILD_SECONDS))

    def _change_places(self, ahead: deque[Stamped[T]], wrong: int) -> bool:
        """Whether the first picture ahead is right but early: decoders let pictures behind a hole slip before it."""
        first, later = self._time(ahead[0]), [self._time(item) for item in islice(ahead, wrong, None)]
        return self._last is not None and first > self._last and max(later, default=first) > first

    def _wrong_start(self, ahead: deque[Stamped[T]], times: list[Fraction]) -> int:
        """The first stamp is wrong when those behind it go on from each other, far from it."""
        if len(times) < 3 or not self._nominal:
            return 0
        believable = times[0] + self._shown(ahead[0]) + _WILD_SECONDS
        agree = all(0 < b - a <= 2 * self._nominal for a, b in pairwise(times[1:]))
        return int(agree and not times[0] - _RESTART_SECONDS < times[1] <= believable)

    def _mend(self, wrong: list[Stamped[T]], ahead: deque[Stamped[T]]) -> Iterator[TimedPicture[T]]:
        """Spread pictures with wrong stamps evenly between the last right one and the next."""
        step = max(self._step, _LEAST_STEP_SECONDS)
        before = self._time(ahead[0]) - 2 * step if self._last is None else self._last
        after = self._time(ahead[0]) if ahead else before + step * (len(wrong) + 1)
        for number, item in enumerate(wrong, start=1):
            self.mended += 1
            time = before + (after - before) * Fraction(number, len(wrong) + 1)
            yield self._show(item, time, time + (after - before) / (len(wrong) + 1))

    def _believe(self, item: Stamped[T]) -> TimedPicture[T]:
        """Take a picture at its own time; there is a gap before it when it comes much later than expected."""
        time = self._time(item)
        self.untimed += item.stamp is None
        lost = self._lost + item.lost
        hole = Fraction(0) if self._last is None else time - self._end
        gap = None
        if lost and hole > _HOLE_SECONDS:
            gap = f"{counted(lost, 'packet')} could not be decoded"
        elif hole > self._jump:
            gap = SET_AHEAD
        if self._last is not None:
            self._steps.append(time - self._last)
        return self._show(item, time, time + self._shown(item), gap)

    def _restart(self, item: Stamped[T]) -> TimedPicture[T]:
        time = self._end if self._last is None else max(self._end, self._last + _LEAST_STEP_SECONDS)
        self._lag += time - self._time(item)
        return self._show(item, time, time + self._shown(item), SET_BACK)

    def _show(self, item: Stamped[T], time: Fraction, end: Fraction, gap: str | None = None) -> TimedPicture[T]:
        self._lost = 0 if gap else self._lost + item.lost
        self._last, self._end = time, end
        return TimedPicture(item.picture, time, end, gap)

    def _shown(self, item: Stamped[T]) -> Fraction:
        return min(item.duration or self._nominal or Fraction(0), max(_LONGEST_STEP_SECONDS, _JUMP_STEPS * self._step))

    @property
    def _jump(self) -> Fraction:
        return max(_JUMP_SECONDS, _JUMP_STEPS * self._step)

    @property
    def _step(self) -> Fraction:
        """The step from picture to picture here; headers are believed only until it is known."""
        return min(self._steps) if len(self._steps) == 2 else self._nominal or Fraction(0)


def _fill(ahead: deque[Stamped[T]], rest: Iterator[Stamped[T]], count: int) -> bool:
    """Take pictures until `count` are ahead; False when there are none left at all."""
    while len(ahead) < count and (item := next(rest, None)) is not None:
        ahead.append(item)
    return bool(ahead)
