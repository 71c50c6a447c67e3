"""Tables of portable bundles: right on every CPU, and what that costs in accuracy."""

from typing import Any

from benchmarks.tables.format import METRICS, load, markdown, points

ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
PORTABLE = {"portable-real-tiny": "clip-real-tiny", "portable-street": "street CLIP"}


def portability() -> str:
    """Return the least and mean cosine of each engine to the simulation, over all models and components."""
    result = load("portability")
    rows = []
    for machine in next(iter(result["models"].values()))["machines"]:
        there = [model["machines"][machine] for model in result["models"].values() if machine in model["machines"]]
        cells = [machine if len(there) == len(result["models"]) else f"{machine}, {len(there)} of the models"]
        for engine in ENGINES:
            found = [row for engines in there for row in engines[engine].values()]
            cells.append(_cosines(found))
        rows.append(cells)
    models, where = ", ".join(result["models"]), result["environment"]
    return markdown(["the same files on", *ENGINES.values()], rows) + (
        f"\n\nCosine of each engine to the simulation: the least, and the lowest mean of a component, "
        f"over {models}. This CPU is real ({where['cpu_model']}: {' '.join(where['cpu_features'])}); the others are "
        "not: OpenVINO's kernels capped by oneDNN's switch, or a CPU emulated by QEMU."
    )


def _cosines(rows: list[dict[str, Any]]) -> str:
    ran = [row for row in rows if "failed" not in row]
    if not ran:
        return "does not run"
    text = f"{min(row['cosine_min'] for row in ran):.5f}, {min(row['cosine_mean'] for row in ran):.5f}"
    return text if len(ran) == len(rows) else f"{text} ({len(rows) - len(ran)} of {len(rows)} components do not run)"


def portable() -> str:
    """Return how scores change from unconstrained 8-bit weights to portable ones."""
    rows = []
    for file, title in PORTABLE.items():
        result = load(file)
        for metric, name in METRICS.items():
            row = result["portable_minus_eight_bits"]["both"][metric]
            eight, ours = (f"{100 * row[form]:.2f}" for form in ("eight_bits", "portable"))
            rows.append([title, f"{name}, n = {row['samples']}", eight, ours, points(row)])
    cosines = "; ".join(
        f"{title}: image {found['eight_bits']['image_mean']:.5f} -> {found['portable']['image_mean']:.5f}, "
        f"text {found['eight_bits']['text_mean']:.5f} -> {found['portable']['text_mean']:.5f}"
        for file, title in PORTABLE.items()
        for found in [load(file)["cosine_to_float"]]
    )
    return (
        markdown(["model", "metric", "8 bits %", "portable %", "points"], rows)
        + f"\n\nBoth towers in simulation. Mean cosine to the float model, 8 bits -> portable: {cosines}."
    )
