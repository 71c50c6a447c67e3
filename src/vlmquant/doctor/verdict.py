"""What the measurements mean, in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlmquant.doctor.contenders import Arithmetic
from vlmquant.doctor.products import Product
from vlmquant.engines import ENGINES, Cpu
from vlmquant.limits import Cores

PAYS = 1.1
"""The least gain over the next simpler arithmetic for which the doctor recommends one."""
BUSY = 0.5
"""Processes per logical core (load average of the last minute) above which the timings are called rough."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The recommended `arithmetic` and `engine`, None when nothing was measured, and the reasons in `sentences`.

    `speedup` is against the fastest float32 of any engine, None when no float32 ran.
    """

    arithmetic: Arithmetic | None
    engine: str | None
    speedup: float | None
    sentences: tuple[str, ...]


def judge(products: Sequence[Product], cpu: Cpu, cores: Cores, load_average: float | None) -> Recommendation:
    """Weigh the `products`; `load_average` is that of the minute before the measurement, None when unknown.

    The fewest rounded digits win: bfloat16 must be `PAYS` times as fast as float32, INT8 `PAYS` times as fast as the
    better of the two.
    """
    float32, bfloat16, int8 = (_fastest(products, arithmetic) for arithmetic in ("float32", "bfloat16", "int8"))
    kept = float32
    if bfloat16 is not None and (float32 is None or gain(float32, bfloat16) >= PAYS):
        kept = bfloat16
    if int8 is not None and (kept is None or gain(kept, int8) >= PAYS):
        chosen, first = int8, _int8_pays(int8, float32, bfloat16)
    elif kept is not None:
        chosen, first = kept, _keep(kept, float32, int8)
    else:
        return Recommendation(arithmetic=None, engine=None, speedup=None, sentences=(_nothing(products), _weights(cpu)))
    return Recommendation(
        arithmetic=chosen.arithmetic,
        engine=chosen.engine,
        speedup=chosen.speedup,
        sentences=(
            *first,
            *_other_engines(products, chosen),
            *_absences(products),
            _weights(cpu),
            *_limits(cores),
            *_disturbance(cores, load_average),
        ),
    )


def gain(slower: Product, faster: Product) -> float:
    """Return how many times as fast as the first the second is."""
    return _ms(slower) / _ms(faster)


def in_integers(product: Product) -> bool:
    """Whether the engine ran most of an INT8 graph in INT8 kernels."""
    return product.int8_mac_share is not None and product.int8_mac_share > 0.5


def title(engine: str) -> str:
    """Return the engine's name as its makers write it."""
    return ENGINES[engine].title


def written(arithmetic: Arithmetic) -> str:
    """Return the arithmetic as it is written in texts."""
    return "INT8" if arithmetic == "int8" else arithmetic


def _int8_pays(int8: Product, float32: Product | None, bfloat16: Product | None) -> Iterable[str]:
    where = f"on {title(int8.engine)}"
    if float32 is None:
        yield f"INT8 runs here, {where}, in {_ms(int8):.2f} ms; no float32 ran to compare it with."
    else:
        yield (
            f"INT8 pays {gain(float32, int8):.1f}x here, {where}: {_ms(int8):.2f} ms against {_ms(float32):.2f} ms of "
            f"the fastest float32 ({title(float32.engine)})."
        )
    if bfloat16 is not None:
        yield f"Against bfloat16 ({title(bfloat16.engine)}, {_ms(bfloat16):.2f} ms) it is {gain(bfloat16, int8):.1f}x."


def _keep(kept: Product, float32: Product | None, int8: Product | None) -> Iterable[str]:
    where = f"Keep {kept.arithmetic} here, on {title(kept.engine)} ({_ms(kept):.2f} ms)"
    if int8 is None:
        yield f"{where}: no engine here multiplied integers."
    else:
        yield (
            f"{where}: the fastest INT8 ({title(int8.engine)}, {_ms(int8):.2f} ms) is {gain(kept, int8):.2f}x as fast, "
            f"and below {PAYS:g}x it is not worth the rounding."
        )
    if kept.arithmetic == "bfloat16" and float32 is not None:
        yield f"bfloat16 is {gain(float32, kept):.1f}x as fast as the fastest float32 ({title(float32.engine)})."


def _other_engines(products: Sequence[Product], chosen: Product) -> Iterable[str]:
    """Say of each engine that was not chosen for INT8 what INT8 gains there, if the choice was INT8."""
    for int8 in products:
        if int8.arithmetic != "int8" or int8.outcome != "ran" or int8 is chosen:
            continue
        if not in_integers(int8):
            yield f"{title(int8.engine)} computed the INT8 graph in float."
        elif chosen.arithmetic == "int8":
            own = _fastest([product for product in products if product.engine == int8.engine], "float32")
            if own is not None:
                pays = "pays less" if gain(own, int8) >= PAYS else "does not pay"
                ratio = f"{gain(own, int8):.1f}x as fast as its own float32"
                yield f"On {title(int8.engine)} INT8 {pays}: {ratio}, in {_ms(int8):.2f} ms."


def _absences(products: Sequence[Product]) -> Iterable[str]:
    for engine in _engines(products):
        own = [product for product in products if product.engine == engine]
        if all(product.outcome == "not run" for product in own):
            yield f"{title(engine)} was not measured; {own[0].reason}."
            continue
        for product in own:
            if product.outcome == "failed":
                yield f"{title(engine)} failed in {written(product.arithmetic)}: {product.reason}."
            elif product.outcome == "not run":
                yield f"{title(engine)} was not measured in {written(product.arithmetic)}; {product.reason}."


def _nothing(products: Sequence[Product]) -> str:
    if any(product.outcome == "failed" for product in products):
        return " ".join(["Nothing could be measured.", *_absences(products)])
    packages = " ".join(entry.package for entry in ENGINES.values())
    return f"No engine is installed, so nothing was measured; run: pip install {packages}."


def _weights(cpu: Cpu) -> str:
    if cpu.exact_dot_product is None:
        return (
            "This system does not say whether its 8-bit products can overflow; bundles of the default recipe "
            "static-int8 have weights that cannot."
        )
    if cpu.exact_dot_product:
        return "8-bit products are exact on this CPU, whatever the weights of a bundle."
    return (
        "This CPU has neither VNNI nor AMX and adds 8-bit products in 16 bits, which large weights overflow; bundles "
        "of the default recipe static-int8 are made so that they cannot."
    )


def _limits(cores: Cores) -> Iterable[str]:
    if cores.threads < cores.usable:
        yield (
            f"The container grants {cores.cpu_quota_cores:g} of {cores.usable} cores: more than {cores.threads} "
            f"thread{'s' if cores.threads > 1 else ''} would be held back (--threads {cores.threads})."
        )


def _disturbance(cores: Cores, load_average: float | None) -> Iterable[str]:
    if load_average is not None and load_average / cores.logical > BUSY:
        yield (
            f"The machine was busy with other work (load {load_average:.1f} on {cores.logical} cores), so the timings "
            "are rough; run it again when it is quiet."
        )


def _engines(products: Sequence[Product]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(product.engine for product in products))


def _fastest(products: Sequence[Product], arithmetic: Arithmetic) -> Product | None:
    """Return the fastest that ran in this arithmetic; for int8 only what really ran in integers."""
    ran = [product for product in products if product.arithmetic == arithmetic and product.median_ms is not None]
    if arithmetic == "int8":
        ran = [product for product in ran if in_integers(product)]
    return min(ran, key=_ms, default=None)


def _ms(product: Product) -> float:
    assert product.median_ms is not None
    return product.median_ms
