"""The form of bench.json: what must stand in it, so that old and foreign files are found out at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    """Whether it is a string with something in it."""
    return isinstance(value, str) and value != ""


def number(value: Any) -> bool:
    """Whether it is a finite number, and not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def positive(value: Any) -> bool:
    """Whether it is a number above 0."""
    return number(value) and value > 0


def whole(value: Any) -> bool:
    """Whether it is a whole number, 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def percent(value: Any) -> bool:
    """Whether it is a number from 0 to 100."""
    return number(value) and 0 <= value <= 100


def optional(check: Check) -> Check:
    """None passes, too."""
    return lambda value: value is None or check(value)


def or_empty(check: Check) -> Check:
    """An empty mapping passes, too."""
    return lambda value: value == {} or check(value)


def one_of(*names: str) -> Check:
    """One of these strings."""
    return lambda value: isinstance(value, str) and value in names


def many(check: Check, least: int = 0) -> Check:
    """A list of at least so many, each of which passes."""
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(check, value))


def table(check: Check) -> Check:
    """A mapping from names to what passes."""
    return lambda value: isinstance(value, dict) and all(map(text, value)) and all(map(check, value.values()))


def record(form: Mapping[str, Check]) -> Check:
    """A mapping with exactly these names."""
    return lambda value: not list(mismatches("", value, form))


def truth(value: Any) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def anything(value: Any) -> bool:
    """Settings and facts are free."""
    return True


SPEEDUP: dict[str, Check] = {
    "median": positive,
    "ci95": many(positive, least=2),
    "verdict": one_of("faster", "slower", "no difference"),
    "baseline": text,
    "mac_ratio": optional(positive),
    "clock": one_of("host", "cpu"),
}
MACS = record(dict.fromkeys(("theoretical", "gpu_supported", "dense"), whole))
PARAMS = record(dict.fromkeys(("nonzero", "stored", "dense"), whole))
LATENCY: dict[str, Check] = {name: positive for name in ("p50", "p90", "mean", "samples")} | {
    "p99": optional(positive),
    "cv": number,
}
ROW: dict[str, Check] = {
    **dict.fromkeys(("artifact", "runtime", "provider", "precision", "device"), text),
    "batch_size": positive,
    "samples_ms": many(positive, least=1),
    "first_call_ms": optional(positive),
    "cpu_ms": optional(many(number, least=1)),
    "gpu_ms": optional(many(positive, least=1)),
    "enqueue_ms": optional(many(positive, least=1)),
    "transfer_ms": optional(record({"to_device": positive, "from_device": positive})),
    "throughput": positive,
    "macs": or_empty(MACS),
    "params": or_empty(PARAMS),
    "size_bytes": whole,
    "compressed_bytes": optional(whole),
    "peak_memory_bytes": optional(whole),
    "accuracy": optional(percent),
    "top5": optional(percent),
    "accuracy_reason": optional(text),
    "agreement": optional(percent),
    "flipped": optional(whole),
    "worst_logit_error": optional(number),
    "reference_accuracy": optional(percent),
    "speedup_vs_dense": optional(record(SPEEDUP)),
    "warnings": many(text),
    "settings": table(anything),
    "latency_ms": record(LATENCY),
    "mac_ratio": optional(positive),
    "efficiency": optional(positive),
}
CLOCK: dict[str, Check] = {
    "t_s": number,
    **dict.fromkeys(("sm_mhz", "temperature_c", "power_w"), optional(number)),
    "throttle": many(text),
}
LAYER: dict[str, Check] = {
    "layer": text,
    "op": text,
    "macs": optional(whole),
    "share_of_macs": optional(number),
    "ms": number,
    "share_of_time": number,
    "width": optional(many(whole, least=1)),
    "aligned": optional(truth),
}
REPORT: dict[str, Check] = {
    "environment": table(anything),
    "command": many(text),
    "rows": many(anything, least=1),
    "clocks": many(record(CLOCK)),
    "profiles": table(many(record(LAYER))),
}


def problems(content: Any) -> list[str]:
    """What is wrong with the content of a bench.json, in words; nothing for a good one."""
    found = list(mismatches("", content, REPORT))
    if found:
        return found
    for position, row in enumerate(content["rows"]):
        found += mismatches(f"rows[{position}].", row, ROW)
    return found


def mismatches(where: str, value: Any, form: Mapping[str, Check]) -> Iterator[str]:
    """How `value`, which stands at `where`, differs from an object of this form, in words."""
    if not isinstance(value, dict):
        yield f"{where.rstrip('.') or 'the file'} is no object"
        return
    for name in form.keys() - value.keys():
        yield f"{where}{name} is missing"
    for name, entry in value.items():
        if name not in form:
            yield f"{where}{name} is not a field of this version"
        elif not form[name](entry):
            yield f"{where}{name} cannot be {str(entry)[:60]}"


def plain(value: Any) -> Any:
    """A list in place of a tuple, and a dictionary in place of any other mapping."""
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def finite(value: Any) -> Any:
    """The value with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
